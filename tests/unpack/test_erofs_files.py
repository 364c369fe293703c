"""The files of an image are seen and read by their paths, without a tree of them."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.errors import FormatError, ImagePathError
from fastoci.testing.trees import listing
from fastoci.unpack.erofs_files import FileData, ImageFile, ImageFiles, data_of
from fastoci.unpack.erofs_reader import ErofsReader, Piece
from support.erofs_trees import FLAT


@pytest.fixture
def files(erofs_image: tuple[Path, Path]) -> Iterator[ImageFiles]:
    with ImageFiles(io.FileIO(erofs_image[1]), "image") as opened:
        yield opened


def test_what_a_path_names_is_what_the_tree_has(erofs_image: tuple[Path, Path], files: ImageFiles) -> None:
    for node in listing(erofs_image[0])[:20] + listing(erofs_image[0])[-10:]:
        facts = os.lstat(erofs_image[0] / node.path)
        size = facts.st_size if node.kind in ("file", "symlink") else 0
        links = files.stat(node.path, follow=False).links if node.kind == "directory" else facts.st_nlink
        assert files.stat(node.path, follow=False) == ImageFile(
            *(f"/{node.path}", node.kind, node.mode, node.uid, node.gid, size, facts.st_mtime_ns, links, node.link),
            node.device,
        )


def test_a_directory_is_listed_in_the_order_of_bytes(files: ImageFiles) -> None:
    names = [file.path for file in files.list("flat")]
    assert names == sorted(f"/flat/name-{number}" for number in range(FLAT))
    assert [file.path for file in files.list("/bin")] == ["/usr/bin/sh"]
    assert [file.path for file in files.list()][:3] == ["/!before-the-dots", "/a", "/bin"]


def test_a_file_or_a_link_to_nowhere_is_listed_itself(files: ImageFiles) -> None:
    assert [file.path for file in files.list("/bin/sh")] == ["/usr/bin/sh"]
    assert [(file.path, file.link) for file in files.list("a/out")] == [("/a/out", "../../../../etc/passwd")]
    with pytest.raises(ImagePathError, match="no such file"):
        next(files.list("a/nothing"))


def test_all_below_a_path_comes_with_directories_first(erofs_image: tuple[Path, Path], files: ImageFiles) -> None:
    found = [file.path for file in files.walk("/usr")]
    assert found == ["/usr", "/usr/bin", "/usr/bin/sh"]
    everything = [file.path for file in files.walk()]
    assert everything[0] == "/"
    assert sorted(everything[1:]) == sorted(f"/{node.path}" for node in listing(erofs_image[0]))


def opened(image: Path, path: str) -> io.BufferedReader:
    file = io.FileIO(image)
    inode, pieces = data_of(ErofsReader(file.fileno(), "image"), path)
    return io.BufferedReader(FileData(pieces, inode.size, {0: file}, "image"))


def test_a_file_is_read_like_any_other(erofs_image: tuple[Path, Path]) -> None:
    tree, image = erofs_image
    with opened(image, "a/large") as got, (tree / "a/large").open("rb") as want:
        assert got.read() == want.read()
        assert got.read(1) == b""
        rng = random.Random(3)
        for _ in range(50):
            at, size = rng.randrange(1_100_000), rng.randrange(9000)
            assert got.seek(at) == want.seek(at)
            assert got.read(size) == want.read(size)
        assert got.seek(-5, os.SEEK_END) == want.seek(-5, os.SEEK_END)
        assert got.read() == want.read()
        assert got.tell() == want.tell()
    with opened(image, "a/empty") as got:
        assert got.read() == b""


def test_what_has_no_data_cannot_be_read(erofs_image: tuple[Path, Path]) -> None:
    with io.FileIO(erofs_image[1]) as file:
        reader = ErofsReader(file.fileno(), "image")
        for path, kind in (("/bin", "directory"), ("a/fifo", "fifo")):
            with pytest.raises(ImagePathError, match=f"is a {kind}$"):
                data_of(reader, path)


def test_holes_are_zeros_and_a_device_that_ends_too_soon_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "device").write_bytes(b"abcdef")
    pieces = [Piece(0, 3, 1, 2), Piece(3, 4, None, 0), Piece(7, 9, 1, 0)]
    with FileData(pieces, 16, {1: io.FileIO(tmp_path / "device")}, "image") as data:
        assert data.read(3) == b"cde"
        assert data.read(9) == bytes(4)
        with pytest.raises(FormatError, match="device 1 ends at byte 6"):
            data.read(9)
