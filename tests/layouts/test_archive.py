"""Archives that are read: their members, those that are refused, and streams that go by once.

Covers: layouts/archive_members.py, layouts/archive_opening.py, layouts/archive_spool.py, layouts/byte_stream.py.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
import zstandard

from fastoci.errors import FormatError, StoreError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.testing.suites.filling import collect
from support.archives import Members, link, opened, tar_bytes, write_tar

NOISE = random.Random(0).randbytes(3 << 20)
MEMBERS: Members = [
    ("small", b"one"),
    ("d/large", NOISE),
    ("empty", b""),
    link("d/link", "large"),
    ("./odd//name", b"2"),
]


async def contents(path: Path) -> dict[str, bytes]:
    async with opened(path) as (archive, buffers):
        files = {name: each for name, each in archive.members.files.items() if each.link is None}
        return {name: await collect(archive.fetch(member, 0, buffers)) for name, member in files.items()}


def expected() -> dict[str, bytes]:
    return {"small": b"one", "d/large": NOISE, "empty": b"", "odd/name": b"2"}


def zstd_of(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


async def test_members_of_a_file_are_read_where_they_are(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    assert await contents(path) == expected()
    async with opened(path) as (archive, buffers):
        large = archive.members.find("d/link", follow=True)
        assert large.digest is None
        assert await collect(archive.fetch(large, 2 << 20, buffers)) == NOISE[2 << 20 :]
        found, digest = await archive.hashed(large)
        assert digest == Digest.of(NOISE)
        assert archive.members.find("d/large") == found
        assert await archive.head(found) == NOISE[:4]


@pytest.mark.parametrize("compress", [gzip.compress, zstd_of], ids=["gzip", "zstd"])
async def test_a_compressed_archive_goes_by_and_its_members_are_hashed(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.tar.x"
    path.write_bytes(compress(tar_bytes(MEMBERS)))
    assert await contents(path) == expected()
    async with opened(path) as (archive, _):
        digests = {name: each.digest for name, each in archive.members.files.items() if each.link is None}
    assert digests == {name: Digest.of(data) for name, data in expected().items()}


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
async def test_a_pipe_is_read_to_its_end_while_it_is_written_slowly(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    reader, writer = os.pipe()
    data = compress(tar_bytes(MEMBERS) + bytes(200_000))

    def write() -> None:
        with open(writer, "wb", buffering=0) as pipe:
            for piece in (data[:3], data[3:700], data[700:]):
                pipe.write(piece)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert await contents(Path(f"/dev/fd/{reader}")) == expected()
    finally:
        os.close(reader)
        await asyncio.to_thread(thread.join)


async def test_a_fifo_waits_for_its_writer_and_the_wait_can_be_cancelled(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reading = asyncio.create_task(contents(tmp_path / "fifo"))
    await asyncio.sleep(0.05)
    assert not reading.done()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    reading = asyncio.create_task(contents(tmp_path / "fifo"))
    await asyncio.to_thread((tmp_path / "fifo").write_bytes, tar_bytes(MEMBERS[:1]))
    assert await reading == {"small": b"one"}


async def test_members_beyond_so_many_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = {f"{seed}": bytes([seed]) * (1 << 20) for seed in range(5)}
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes(list(large.items())), 1))
    monkeypatch.setattr("fastoci.layouts.archive_spool._FILES", 2)
    assert await contents(tmp_path / "a.tar.gz") == large
    async with opened(tmp_path / "a.tar.gz") as (archive, _):
        assert len({member.fd for member in archive.members.files.values()}) == 3


def of_kind(name: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    return info, b""


HOSTILE: dict[str, tuple[Members, type[Exception], str]] = {
    "two of one name": ([("a", b"1"), ("a", b"2")], FormatError, "two members that are called 'a'"),
    "two spellings": ([("a", b"1"), ("./a", b"2")], FormatError, "two members that are called 'a'"),
    "a link of the name": ([("a", b"1"), link("a", "b")], FormatError, "two members that are called 'a'"),
    "absolute": ([("/etc/passwd", b"1")], FormatError, "leads out of the archive, or is too long: '/etc/passwd'"),
    "dot-dot": ([("a/../../b", b"1")], FormatError, r"leads out of the archive, or is too long: 'a/../../b'"),
    "absolute link": ([link("a", "/etc/passwd")], FormatError, "'a' is a link out of the archive, to '/etc/passwd'"),
    "link out": ([link("d/a", "../../b")], FormatError, "'d/a' is a link out of the archive, to '../../b'"),
    "hard link out": ([link("d/a", "../b", tarfile.LNKTYPE)], FormatError, "'d/a' is a link out of the archive"),
    "device": ([of_kind("null", tarfile.CHRTYPE)], UnsupportedError, "the member 'null' is a device"),
    "fifo": ([of_kind("pipe", tarfile.FIFOTYPE)], UnsupportedError, "the member 'pipe' is a FIFO"),
    "long name": ([("n" * 5000, b"")], FormatError, "the name of a member leads out of the archive, or is too long"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("compressed", [False, True], ids=["file", "stream"])
async def test_an_archive_that_could_be_read_in_two_ways_is_refused(
    tmp_path: Path, name: str, *, compressed: bool
) -> None:
    members, kind, text = HOSTILE[name]
    data = tar_bytes([("before", b"x"), *members])
    (tmp_path / "a.tar").write_bytes(gzip.compress(data) if compressed else data)
    with pytest.raises(kind, match=text):
        await contents(tmp_path / "a.tar")


def sparse() -> bytes:
    """A file of the old GNU form: ten bytes, of which the archive has two."""
    info = tarfile.TarInfo("holes")
    info.size = 512
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    block[386 : 386 + 24] = b"00000000000\0" + b"00000001000\0"
    block[483:495] = b"00000002000\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512 * 3)


def huge_pax() -> bytes:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * (2 << 20)}
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def large_window() -> bytes:
    """A frame that does not say how long it is."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return frame.compress(b"1") + frame.flush()


MALFORMED: dict[str, tuple[bytes, type[Exception], str]] = {
    "sparse": (sparse(), UnsupportedError, "the member 'holes' is a sparse file"),
    "huge header": (huge_pax(), FormatError, "special"),
    "cut in a body": (tar_bytes([("a", b"1" * 3000)])[:2000], FormatError, "within the member 'a'"),
    "cut in a header": (tar_bytes([("a", b"1")])[:1200], FormatError, "ends inside a header"),
    "no tar": (b"x" * 2000, FormatError, "not a tar header"),
    "bzip2": (b"BZh91AY", UnsupportedError, "is compressed, and not by gzip or zstd"),
    "damaged gzip": (
        gzip.compress(tar_bytes([("a", b"1" * 3000)]))[:-5],
        FormatError,
        "a.tar: the compressed data ends early",
    ),
    "large window": (large_window(), FormatError, "a.tar: a zstd frame demands a window of 134217728 bytes"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_archive_is_refused(tmp_path: Path, name: str) -> None:
    data, kind, text = MALFORMED[name]
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(kind, match=text):
        await contents(tmp_path / "a.tar")


async def test_a_pipe_that_ends_too_early_is_no_whole_archive(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, tar_bytes([("a", b"1" * 3000)])[:2000])
    os.close(writer)
    with pytest.raises(FormatError, match="ends within the member 'a', after 1488 of its bytes"):
        await contents(Path(f"/dev/fd/{reader}"))
    os.close(reader)


async def test_more_members_than_allowed_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [(str(number), b"") for number in range(4)])
    with pytest.raises(FormatError, match="more than 3 members"):
        async with opened(path, msgspec.structs.replace(Limits(), archive_members=3)):
            pass


async def test_a_file_that_becomes_shorter_is_told(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a", NOISE)])
    async with opened(path) as (archive, buffers):
        os.truncate(path, 1 << 20)
        with pytest.raises(StoreError, match="became shorter: 'a'"):
            await collect(archive.fetch(archive.members.find("a"), 0, buffers))
        with pytest.raises(StoreError, match="became shorter: 'a'"):
            await archive.hashed(archive.members.find("a"))


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["directory", "nothing"])
async def test_what_is_no_file_is_told(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a")
    with pytest.raises(StoreError, match=f"{tmp_path}/a"):
        await contents(tmp_path / "a")


def test_the_archives_here_are_tars_to_others() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(MEMBERS))) as tar:
        assert tar.getnames() == ["small", "d/large", "empty", "d/link", "./odd//name"]


async def test_links_are_followed_once_and_only_where_that_is_asked(tmp_path: Path) -> None:
    links: Sequence[tuple[str | tarfile.TarInfo, bytes]] = [
        ("d/file", b"x"),
        link("d/soft", "file"),
        link("d/hard", "d/file", tarfile.LNKTYPE),
        link("e/far", "../d/./file"),
        link("twice", "d/soft"),
        link("nowhere", "d/none"),
    ]
    async with opened(write_tar(tmp_path / "a.tar", links)) as (archive, _):
        members = archive.members
        for name in ("d/soft", "d/hard", "e/far"):
            assert members.find(name, follow=True).name == "d/file"
            with pytest.raises(FormatError, match=f"the member '{name}' is a link to 'd/file'"):
                members.find(name)
        for name in ("twice", "nowhere"):
            with pytest.raises(FormatError, match="which is not a file of the archive"):
                members.find(name, follow=True)
        with pytest.raises(FormatError, match="has no member 'other'"):
            members.find("other")
