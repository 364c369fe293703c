"""A tar is made again out of its tar-split and the files that it unpacks to."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from fastoci import _core
from fastoci.errors import UnpackError
from fastoci.testing.layers import Entry, directory, hardlink, symlink, tar, whiteout
from fastoci.unpack.tar_split import TarSplitWriter

ENTRIES = [
    directory("d"),
    Entry("d/small", data=b"small", uid=3, gid=70_000),
    Entry("d/large", data=bytes(range(256)) * 9_000),
    Entry("d/empty"),
    Entry("d/\udcff", data=b"no text"),
    Entry("d/" + "long" * 60, data=b"a pax header", xattrs=(("user.a", b"\0value"),)),
    symlink("l", "d"),
    hardlink("h", "d/small"),
    whiteout("gone"),
]


def split(path: Path, layer: bytes, piece: int = 100_000) -> TarSplitWriter:
    pool = _core.Pool(_core.BUFFER_SIZE)
    with path.open("wb") as file:
        writer = TarSplitWriter(file.fileno(), "layer")
        for start in range(0, len(layer), piece):
            buffer = pool.take()
            assert buffer is not None
            buffer.append(layer[start : start + piece])
            writer.feed(buffer)
            buffer.release()
        writer.finish()
    return writer


def made_again(path: Path, contents: Mapping[bytes, bytes]) -> bytes:
    """The tar, as tar-split's own assembler makes it."""
    pieces = []
    for number, line in enumerate(gzip.decompress(path.read_bytes()).splitlines()):
        entry = json.loads(line)
        assert entry["position"] == number
        if entry["type"] == 2:
            pieces.append(base64.b64decode(entry["payload"]))
        else:
            content = contents[base64.b64decode(entry["name_raw"])]
            assert entry["size"] == len(content) > 0
            pieces.append(content)
    return b"".join(pieces)


def contents(entries: list[Entry]) -> dict[bytes, bytes]:
    return {os.fsencode(entry.path): b"".join(entry.chunks()) for entry in entries}


@pytest.mark.parametrize("tail", [b"", bytes(9_000) + b"behind the end"], ids=["plain", "with a tail"])
def test_the_tar_is_made_again_byte_by_byte(tmp_path: Path, tail: bytes) -> None:
    layer = b"".join(tar(ENTRIES)) + tail
    writer = split(tmp_path / "split", layer)
    assert made_again(tmp_path / "split", contents(ENTRIES)) == layer
    assert writer.is_exact
    assert (writer.tar.size, writer.tar.uid, writer.tar.gid) == (len(layer), 3, 70_000)


def test_the_content_of_files_is_not_in_it(tmp_path: Path) -> None:
    layer = b"".join(tar([Entry("noise", data=os.urandom(2_000_000))]))
    split(tmp_path / "split", layer)
    assert (tmp_path / "split").stat().st_size < 2_000


@pytest.mark.parametrize(
    ("entries", "exact"),
    [
        ([Entry("a", data=b"1"), Entry("a", data=b"2")], False),
        ([Entry("a", data=b"1"), symlink("./a", "b")], False),
        ([directory("d"), directory("d")], True),
    ],
    ids=["again", "replaced", "directory again"],
)
def test_content_that_is_not_in_the_tree_is_told(tmp_path: Path, entries: list[Entry], exact: bool) -> None:
    assert split(tmp_path / "split", b"".join(tar(entries))).is_exact is exact


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnpackError, match="layer layer: "):
        split(tmp_path / "split", b"no tar at all" * 100)


def test_a_split_that_was_stopped_ends_with_an_error(tmp_path: Path) -> None:
    with (tmp_path / "split").open("wb") as file:
        writer = TarSplitWriter(file.fileno(), "layer")
        writer.stop()
        with pytest.raises(UnpackError, match="was stopped"):
            writer.finish()
        writer.abort()
