"""Merged metadata that points into plain tars, made of what the writer makes for layer files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastoci import _core
from fastoci.errors import FormatError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.testing.layers import Entry, tar, whiteout
from fastoci.unpack.erofs import MergedWriter
from fastoci.unpack.erofs_devices import TarDevices
from fastoci.unpack.erofs_reader import ErofsReader
from support.erofs_listing import erofs_listing

TARS = [
    b"".join(tar([Entry("low", data=b"low" * 5000), Entry("gone", data=b"x")])),
    b"".join(tar([whiteout("gone"), Entry("high", data=b"high" * 70_000)])),
]
BLOBS = [Digest.of(b"one"), Digest.of(b"two")]


def merged(path: Path, tars: Sequence[bytes]) -> Path:
    pool = _core.Pool(_core.BUFFER_SIZE)
    with path.open("wb+") as file:
        bounds = {"max_entries": 1000, "max_bytes": 1 << 30, "max_memory": 1 << 26}
        writer = MergedWriter(file.fileno(), manifest=Digest.of(b"manifest"), **bounds)
        for layer in tars:
            writer.begin(Digest.of(layer))
            buffer = pool.take()
            assert buffer is not None
            buffer.append(layer)
            writer.feed(buffer)
            buffer.release()
            writer.end()
        writer.finish()
        writer.abort()
    return path


def for_tars(path: Path, devices: Sequence[tuple[Digest, int]]) -> bytes:
    """The copy of merged metadata, by buffers that are not full when they come."""
    pool, found = _core.Pool(_core.BUFFER_SIZE), b""
    with path.open("rb") as file:
        copy, more = TarDevices(file.fileno(), "metadata", devices), True
        while more:
            buffer = pool.take()
            assert buffer is not None
            taken = len(found) % 5
            buffer.append(bytes(_core.BUFFER_SIZE - 4100 + taken))
            more = copy.fill(buffer)
            found += bytes(buffer)[_core.BUFFER_SIZE - 4100 + taken :]
            buffer.release()
    return found


def test_the_same_files_are_read_from_the_tars_alone(tmp_path: Path) -> None:
    metadata = merged(tmp_path / "merged", TARS)
    before = metadata.read_bytes()
    copy = tmp_path / "copy"
    copy.write_bytes(for_tars(metadata, [(blob, len(layer)) for blob, layer in zip(BLOBS, TARS, strict=True)]))
    assert copy.stat().st_size == len(before)
    names = [tmp_path / "tar-0", tmp_path / "tar-1", tmp_path / "file-0", tmp_path / "file-1"]
    for number, layer in enumerate(TARS):
        names[number].write_bytes(layer)
        names[2 + number].write_bytes(bytes(4096) + layer)
    fds = [os.open(name, os.O_RDONLY) for name in (copy, metadata, *names)]
    try:
        assert erofs_listing(fds[0], fds[2:4]) == erofs_listing(fds[1], fds[4:])
        assert [slot.tag for slot in ErofsReader(fds[0], "copy").devices] == [blob.hex for blob in BLOBS]
    finally:
        for fd in fds:
            os.close(fd)


def test_content_that_is_not_in_the_tar_as_it_is_read_is_refused(tmp_path: Path) -> None:
    dirty = TARS[0].replace(b"x" + bytes(7), b"xgarbage", 1)
    assert len(dirty) == len(TARS[0])
    with pytest.raises(UnsupportedError, match="cannot be used where it is in the tar"):
        for_tars(merged(tmp_path / "merged", [dirty]), [(BLOBS[0], len(dirty))])


def test_devices_of_another_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="has 2 devices, and the image 1 layers"):
        for_tars(merged(tmp_path / "merged", TARS), [(BLOBS[0], len(TARS[0]))])
