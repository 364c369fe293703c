"""Headers that are written are read as they were meant: by this project's reader, by CPython's, and by GNU tar."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastoci import _extract
from fastoci.stream import tar_header
from fastoci.stream.tar_header import END, TarEntry, header, padding

_TYPES = {
    tar_header.FILE: "f",
    tar_header.DIRECTORY: "d",
    tar_header.SYMLINK: "l",
    tar_header.HARD_LINK: "h",
    tar_header.FIFO: "p",
    tar_header.CHARACTER: "c",
    tar_header.BLOCK: "b",
}
_names = st.binary(min_size=1, max_size=60).map(lambda name: name.replace(b"\0", b"x").replace(b"/", b"y"))
_paths = st.lists(_names.filter(lambda name: name not in (b".", b"..")), min_size=1, max_size=8).map(b"/".join)
_ids = st.one_of(st.integers(0, 70_000), st.integers(0, 2**32 - 2))
_keys = st.from_regex(rb"(user|trusted|security)\.[a-z]{1,20}", fullmatch=True)
_entries = st.builds(
    TarEntry,
    path=_paths,
    type=st.sampled_from(list(_TYPES)),
    mode=st.integers(0, 0o7777),
    uid=_ids,
    gid=_ids,
    mtime_ns=st.integers(-(2**31) * 10**9, 2**36 * 10**9),
    link=_paths,
    device=st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)),
    xattrs=st.dictionaries(_keys, st.binary(min_size=1, max_size=200), max_size=3).map(
        lambda found: list(found.items())
    ),
)


@dataclass(frozen=True)
class Written:
    """An entry with its content."""

    entry: TarEntry
    data: bytes = b""

    @property
    def tar(self) -> bytes:
        return header(self.entry) + self.data + padding(len(self.data))


def written(entry: TarEntry, data: bytes) -> Written:
    """The entry with only what its type has."""
    kind = entry.type
    return Written(
        TarEntry(
            path=entry.path,
            type=kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=entry.mtime_ns,
            size=len(data) if kind == tar_header.FILE else 0,
            link=entry.link if kind in (tar_header.SYMLINK, tar_header.HARD_LINK) else b"",
            device=entry.device if kind in (tar_header.CHARACTER, tar_header.BLOCK) else (0, 0),
            xattrs=entry.xattrs,
        ),
        data if kind == tar_header.FILE else b"",
    )


@given(st.lists(st.builds(written, _entries, st.binary(max_size=1500)), max_size=6))
@example([written(TarEntry(b"\xff" * 101, b"0", 0o644, 0, 0, -250_000_000), b"x")])
@example([written(TarEntry(b"n" * 100, b"5", 0o755, 2**21, 2**21 - 1, 2**33 * 10**9), b"")])
@example([written(TarEntry(b"n" * 86, b"0", 0, 0, 0, 0, xattrs=[(b"user.a", b"v" * 78)]), b"")])  # 99 or 101 bytes
@settings(max_examples=40)
def test_what_is_written_is_read_by_this_projects_reader_and_by_cpythons(entries: list[Written]) -> None:
    archive = b"".join(each.tar for each in entries) + END
    reader = _extract.TarReader()
    assert (reader.feed(archive), reader.finish()) == (0, 0)
    found = reader.entries()
    assert len(found) == len(entries)
    for want, got in zip(entries, found, strict=True):
        entry = want.entry
        assert (got.path.rstrip(b"/"), got.type, got.link) == (entry.path, _TYPES[entry.type], entry.link)
        assert (got.mode, got.uid, got.gid, got.size) == (entry.mode, entry.uid, entry.gid, len(want.data))
        assert (got.mtime_ns, got.device, got.xattrs) == (entry.mtime_ns, entry.device, dict(entry.xattrs))
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        members = tar.getmembers()
        assert [os.fsencode(member.name) for member in members] == [each.entry.path for each in entries]
        assert [os.fsencode(member.linkname) for member in members] == [each.entry.link for each in entries]
        for want, member in zip(entries, members, strict=True):
            time_ns = Decimal(member.pax_headers.get("mtime", str(member.mtime))) * 10**9
            assert (member.uid, member.gid) == (want.entry.uid, want.entry.gid)
            assert time_ns == want.entry.mtime_ns
            if member.isreg():
                file = tar.extractfile(member)
                assert file is not None
                assert file.read() == want.data


def test_gnu_tar_lists_what_is_written(peer: Callable[[str], str]) -> None:
    entries = [
        TarEntry(b"directory", tar_header.DIRECTORY, 0o1755, 1, 2, 1_700_000_000_000_000_000),
        TarEntry(b"d/" + b"n" * 200, tar_header.FILE, 0o4644, 3_000_000_000, 5, -2_000_000_000, size=9 << 30),
    ]
    archive = header(entries[0]) + header(entries[1])
    shown = subprocess.run([peer("tar"), "-tvf", "-", "--full-time", "--utc"], input=archive, capture_output=True)
    lines = shown.stdout.decode().splitlines()
    assert lines[0].split() == ["drwxr-xr-t", "1/2", "0", "2023-11-14", "22:13:20", "directory/"]
    assert lines[1].split() == [
        *("-rwSr--r--", "3000000000/5", str(9 << 30), "1969-12-31", "23:59:58"),
        "d/" + "n" * 200,
    ]


def test_what_a_tar_cannot_say_is_refused() -> None:
    for entry in (
        TarEntry(b"a\0b", b"0", 0o644, 0, 0, 0),
        TarEntry(b"a", b"2", 0o777, 0, 0, 0, link=b"\0"),
        TarEntry(b"a", b"0", 0o644, 0, 0, 0, xattrs=[(b"user.a=b", b"")]),
    ):
        with pytest.raises(ValueError, match=r"NUL"):
            header(entry)
