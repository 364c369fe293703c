"""Headers say what an entry is: to Python's reader, to our own, and to GNU tar."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from fastoci.stream.tar_headers import BLOCK, END, Kind, TarEntry, carries, header, padding

SECOND = 1_000_000_000
ODD_NAME = b"not-utf-8-\xff\xfe"
LONG = b"/".join([b"d" * 60] * 8)
NAMES = {
    "short": b"a",
    "field": b"n" * 100,
    "beyond-field": b"n" * 101,
    "prefix": b"p" * 155 + b"/" + b"n" * 100,
    "beyond-prefix": b"p" * 156 + b"/n",
    "long": LONG,
    "not-utf-8": ODD_NAME,
    "accent": b"\xc3\xa9",
    "blank": b" ",
}


def archive(*entries: TarEntry) -> bytes:
    parts = []
    for entry in entries:
        content = bytes(entry.size if entry.kind == "file" else 0)
        parts += [header(entry), content, bytes(padding(len(content)))]
    return b"".join([*parts, END])


def read_back(*entries: TarEntry) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive(*entries)), errors="surrogateescape") as tar:
        return tar.getmembers()


def member(entry: TarEntry) -> tarfile.TarInfo:
    (found,) = read_back(entry)
    return found


@pytest.mark.parametrize("path", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_name_is_read_as_it_was_written(path: bytes, kind: Kind) -> None:
    assert os.fsencode(member(TarEntry(path, kind)).name) == path


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_content_ends_at_a_whole_block(size: int) -> None:
    first, second = read_back(TarEntry(b"a", "file", size=size), TarEntry(b"b", "file"))
    assert (first.size, second.name) == (size, "b")


def test_numbers_that_ustar_has_no_digits_for_are_in_the_pax_header() -> None:
    huge = TarEntry(b"a", "file", uid=4_294_967_294, gid=3_000_000_000, size=1 << 40)
    with tarfile.open(fileobj=io.BytesIO(header(huge) + END)) as tar:
        found = tar.next()
    assert found is not None
    assert (found.uid, found.gid, found.size) == (huge.uid, huge.gid, huge.size)


@pytest.mark.parametrize(
    ("mtime_ns", "expected"),
    [
        (1_700_000_000 * SECOND, None),
        (1_700_000_000 * SECOND + 120_000_000, "1700000000.12"),
        (1, "0.000000001"),
        (-SECOND, "-1"),
        (-250_000_000, "-0.25"),
        (-1_750_000_000, "-1.75"),
        (0o100000000000 * SECOND, "8589934592"),
    ],
    ids=["whole", "fraction", "nanosecond", "before-1970", "just-before-1970", "long-before-1970", "beyond-2242"],
)
def test_a_time_is_written_to_the_nanosecond(mtime_ns: int, expected: str | None) -> None:
    found = member(TarEntry(b"a", "file", mtime_ns=mtime_ns))
    assert found.pax_headers.get("mtime") == expected
    assert found.mtime == pytest.approx(mtime_ns / SECOND)


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (TarEntry(b"a", "symlink", link=b"../x"), tarfile.SYMTYPE),
        (TarEntry(b"a", "symlink", link=LONG), tarfile.SYMTYPE),
        (TarEntry(b"a", "hardlink", link=ODD_NAME), tarfile.LNKTYPE),
        (TarEntry(b"a", "fifo"), tarfile.FIFOTYPE),
        (TarEntry(b"a", "character", device=(1, 3)), tarfile.CHRTYPE),
        (TarEntry(b"a", "block", device=(4095, 1_048_575)), tarfile.BLKTYPE),
    ],
    ids=["symlink", "long-symlink", "hardlink", "fifo", "character", "block"],
)
def test_what_is_no_file_is_read_as_it_was_written(entry: TarEntry, kind: bytes) -> None:
    found = member(entry)
    assert (found.type, os.fsencode(found.linkname)) == (kind, entry.link)
    assert (found.devmajor, found.devminor) == entry.device


def test_attributes_are_written_in_the_order_of_their_names() -> None:
    value = bytes(range(256))
    entry = TarEntry(b"a", "file", xattrs=((b"user.b", value), (b"security.capability", b"\0\1"), (b"user.a", b"1\n")))
    found = {key: os.fsencode(text) for key, text in member(entry).pax_headers.items()}
    assert list(found) == ["SCHILY.xattr.security.capability", "SCHILY.xattr.user.a", "SCHILY.xattr.user.b"]
    assert found["SCHILY.xattr.user.b"] == value


@pytest.mark.parametrize(("name", "value"), [(b"user.a=b", b"1"), (b"user.a", b"")], ids=["equals-sign", "empty"])
def test_an_attribute_that_no_tar_carries_is_refused(name: bytes, value: bytes) -> None:
    assert not carries(name, value)
    with pytest.raises(ValueError, match=r"cannot carry"):
        header(TarEntry(b"a", "file", xattrs=((name, value),)))


def test_the_length_of_a_record_counts_its_own_digits() -> None:
    for size in (*range(80, 100), *range(970, 1000)):
        value = b"v" * size
        found = member(TarEntry(b"a", "file", xattrs=((b"user.a", value),)))
        assert os.fsencode(found.pax_headers["SCHILY.xattr.user.a"]) == value


def test_the_root_is_named_as_other_tools_name_it() -> None:
    assert header(TarEntry(b"", "directory"))[:3] == b"./\0"


def test_an_entry_without_anything_odd_takes_one_block() -> None:
    assert len(header(TarEntry(b"usr/bin/x", "file", mode=0o4755, mtime_ns=SECOND, size=7))) == BLOCK


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
def test_gnu_tar_makes_the_same_files(tmp_path: Path) -> None:
    entries = (
        TarEntry(LONG, "directory", mode=0o750, mtime_ns=-1_500_000_000),
        TarEntry(LONG + b"/" + ODD_NAME, "file", mode=0o640, mtime_ns=SECOND + 5, size=3),
        TarEntry(b"link", "symlink", link=LONG + b"/../x", mode=0o777),
        TarEntry(b"again", "hardlink", link=LONG + b"/" + ODD_NAME),
    )
    subprocess.run(["tar", "-x", "--no-same-owner", "-p"], input=archive(*entries), cwd=tmp_path, check=True)
    root = os.fsencode(tmp_path)
    directory, file = os.stat(root + b"/" + LONG), os.stat(root + b"/again")
    assert (directory.st_mtime_ns, directory.st_mode & 0o7777) == (-1_500_000_000, 0o750)
    assert (file.st_mtime_ns, file.st_mode & 0o7777, file.st_nlink) == (SECOND + 5, 0o640, 2)
    assert os.readlink(root + b"/link") == LONG + b"/../x"
