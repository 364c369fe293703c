"""EROFS files of another writer are read as they were made; of a damaged one, only a typed error comes.

Covers: unpack/erofs_reader.py, unpack/erofs_tree.py.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fastoci.errors import FormatError, ImagePathError, UnsupportedError
from fastoci.testing.trees import differences, listing
from fastoci.unpack.erofs_reader import ErofsReader
from fastoci.unpack.erofs_tree import resolve, walk
from support.erofs_listing import content, erofs_listing
from support.erofs_trees import FLAT, opened_file

SUPERBLOCK = 1024


def test_a_tree_of_another_writer_is_read_as_it_is(erofs_image: tuple[Path, Path]) -> None:
    tree, image = erofs_image
    with opened_file(image) as fd:
        found = erofs_listing(fd)
    assert differences(listing(tree), found) == []
    assert len(found) > FLAT


def test_each_name_of_a_large_directory_is_found_and_no_other(erofs_image: tuple[Path, Path]) -> None:
    with opened_file(erofs_image[1]) as fd:
        reader = ErofsReader(fd, "image")
        flat = reader.find(reader.root, b"flat")
        assert flat is not None
        assert flat.size > 10 * reader.block_size
        names = [each.name for each in reader.names(flat)]
        assert names == sorted(b"name-%d" % number for number in range(FLAT))
        for each in [*reader.names(flat)][::37]:
            inode = reader.find(flat, each.name)
            assert inode is not None
            assert inode.nid == each.nid
        assert [reader.find(flat, name) for name in (b"", b"!", b"name-", b"name-10000", b"zzz")] == [None] * 5


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("", ""),
        ("/", ""),
        ("../../..", ""),
        ("bin/sh", "usr/bin/sh"),
        ("/bin/", "usr/bin"),
        ("a/absolute", "usr/bin/sh"),
        ("a//./b/../file", "a/file"),
    ],
)
def test_a_path_is_followed_inside_the_root(erofs_image: tuple[Path, Path], path: str, own: str) -> None:
    with opened_file(erofs_image[1]) as fd:
        assert resolve(ErofsReader(fd, "image"), path.encode())[0] == own.encode()


def test_a_link_at_the_end_is_followed_only_on_request(erofs_image: tuple[Path, Path]) -> None:
    with opened_file(erofs_image[1]) as fd:
        reader = ErofsReader(fd, "image")
        assert resolve(reader, b"a/absolute", follow=False)[0] == b"a/absolute"
        assert resolve(reader, b"bin/", follow=False)[0] == b"usr/bin"
        long = os.fsencode(os.readlink(erofs_image[0] / "long-link"))
        assert reader.link(resolve(reader, b"long-link", follow=False)[1]) == long


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a/nothing", "no such file"),
        ("a/file/", "not a directory"),
        ("a/file/x", "not a directory"),
        ("loop", "too many symbolic links"),
        ("a/out", "no such file"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(erofs_image: tuple[Path, Path], path: str, reason: str) -> None:
    with opened_file(erofs_image[1]) as fd, pytest.raises(ImagePathError, match=reason) as caught:
        resolve(ErofsReader(fd, "image"), path.encode())
    assert caught.value.path == path


def test_what_is_not_erofs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x" * 100)
    (tmp_path / "zeros").write_bytes(bytes(8192))
    for name in ("short", "zeros"):
        with opened_file(tmp_path / name) as fd, pytest.raises(FormatError):
            ErofsReader(fd, name)


def test_a_superblock_that_another_byte_is_in_is_refused(erofs_image: tuple[Path, Path], tmp_path: Path) -> None:
    data = bytearray(erofs_image[1].read_bytes())
    data[SUPERBLOCK + 70] ^= 1
    (tmp_path / "image").write_bytes(data)
    with opened_file(tmp_path / "image") as fd, pytest.raises(FormatError, match="checksum"):
        ErofsReader(fd, "image")


def test_a_file_that_is_cut_is_refused(erofs_image: tuple[Path, Path], tmp_path: Path) -> None:
    data = erofs_image[1].read_bytes()
    (tmp_path / "image").write_bytes(data[:-4096])
    with opened_file(tmp_path / "image") as fd, pytest.raises(FormatError, match="superblock"):
        ErofsReader(fd, "image")


def test_compressed_files_are_refused(peer: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"words " * 100_000)
    command = [peer("mkfs.erofs"), "-zlz4", f"{tmp_path}/image", f"{tmp_path}/tree"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this mkfs.erofs does not compress")
    with opened_file(tmp_path / "image") as fd, pytest.raises(UnsupportedError):
        erofs_listing(fd)


def test_a_directory_in_two_places_is_refused(erofs_image: tuple[Path, Path], tmp_path: Path) -> None:
    data = unchecked(erofs_image[1].read_bytes())
    with opened_file(erofs_image[1]) as fd:
        reader = ErofsReader(fd, "image")
        (_, outer), (_, middle), (_, inner) = (resolve(reader, path) for path in (b"a", b"a/b", b"a/b/c"))
        (piece,) = reader.pieces(middle)
    at = data.index(struct.pack("<Q", inner.nid), piece.position, piece.position + piece.size)
    data[at : at + 8] = struct.pack("<Q", outer.nid)
    (tmp_path / "image").write_bytes(data)
    with opened_file(tmp_path / "image") as fd, pytest.raises(FormatError, match="two places"):
        erofs_listing(fd)


def test_damaged_metadata_give_typed_errors_and_end(erofs_image: tuple[Path, Path], tmp_path: Path) -> None:
    """Numbers anywhere in the metadata become other ones; what is read of it then ends, and says what it is."""
    good = unchecked(erofs_image[1].read_bytes())
    rng = random.Random(24)
    with opened_file(erofs_image[1]) as fd:
        reader = ErofsReader(fd, "image")
        inodes = [reader.root, *(inode for path, inode in walk(reader, reader.root) if not path.startswith(b"flat/"))]
    refused = 0
    for number in range(200):
        data = bytearray(good)
        inode = rng.choice(inodes)
        for _ in range(rng.randint(1, 3)):
            at = inode.position + rng.randrange(160)
            data[at : at + 4] = rng.choice([bytes(4), b"\xff" * 4, rng.randbytes(4), struct.pack("<I", 1 << 31)])
        path = tmp_path / str(number % 2)
        path.write_bytes(data)
        with opened_file(path) as fd:
            refused += refuses(fd)
    assert refused > 50


def unchecked(data: bytes) -> bytearray:
    """The file without its checksum, which covers some of the metadata too."""
    changed = bytearray(data)
    changed[SUPERBLOCK + 8] &= 0xFE
    return changed


def refuses(fd: int) -> bool:
    """Read all metadata but those of the many files, which would take long; whether that is refused."""
    try:
        reader = ErofsReader(fd, "image")
        for path, each in walk(reader, reader.root):
            if path.startswith(b"flat/"):
                break
            reader.xattrs(each)
            for _ in zip(reader.pieces(each), range(1000), strict=False):
                pass
        with suppress(ImagePathError):
            resolve(reader, b"usr/bin/sh")
    except (FormatError, UnsupportedError):
        return True
    return False


def test_content_is_the_files(erofs_image: tuple[Path, Path]) -> None:
    tree, image = erofs_image
    with opened_file(image) as fd:
        reader = ErofsReader(fd, "image")
        _, inode = resolve(reader, b"a/large")
        assert b"".join(content(reader, inode, [fd])) == (tree / "a/large").read_bytes()
