"""One stream out of blocks: any reader takes it, and it is the same however the work was shared."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest
import zstandard

from fastoci import _core
from fastoci.image.convert import Recipe, Recompression
from fastoci.stream.compress import compressor
from fastoci.stream.inflate import Inflate

COMPRESSIONS = get_args(Recompression)
CONTENTS = {
    "nothing": [b""],
    "words": [b"to be or not to be " * 5000, b"that is the question " * 40_000],
    "noise": [os.urandom(_core.BUFFER_SIZE), os.urandom(7)],
}


def buffers(pieces: list[bytes]) -> list[_core.Buffer]:
    pool = _core.Pool(len(pieces) * _core.BUFFER_SIZE)
    made = []
    for piece in pieces:
        buffer = pool.take()
        assert buffer is not None
        buffer.append(piece)
        made.append(buffer)
    return made


def compressed(compression: Recompression, pieces: list[bytes], threads: int = 1, level: int | None = None) -> bytes:
    stream, blocks = compressor(Recipe(compression, level)), buffers(pieces)
    with ThreadPoolExecutor(threads) as pool:
        middle = list(pool.map(stream.block, blocks))
    for block in blocks:
        stream.count(block)
    return b"".join([stream.head, *middle, stream.tail()])


def by_our_own(data: bytes, size: int) -> bytes:
    inflate, made = Inflate(window=8 << 20), b""
    for start in range(0, len(data), _core.BUFFER_SIZE):
        (source,) = buffers([data[start : start + _core.BUFFER_SIZE]])
        inflate.take(source)
        more = True
        while more:
            (out,) = buffers([b""])
            more = inflate.fill(out)
            made += bytes(memoryview(out))
    inflate.finish()
    inflate.close()
    return made


@pytest.mark.parametrize("pieces", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_readers_get_what_was_compressed(compression: Recompression, pieces: list[bytes]) -> None:
    data, content = compressed(compression, pieces), b"".join(pieces)
    assert by_our_own(data, len(content)) == content
    if compression == "zstd":
        assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read() == content
    else:
        one = zlib.decompressobj(wbits=31)
        assert (one.decompress(data), one.eof, one.unused_data) == (content, True, b"")  # one member, to its end
        assert gzip.decompress(data) == content


@pytest.mark.skipif(shutil.which("gzip") is None, reason="needs gzip")
def test_the_oldest_reader_takes_it() -> None:
    content = CONTENTS["words"]
    done = subprocess.run(["gzip", "-dc"], input=compressed("gzip", content), capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"".join(content), b"")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_number_of_threads_does_not_show(compression: Recompression) -> None:
    pieces = [b"%d " % number * 10_000 for number in range(12)]
    assert compressed(compression, pieces, threads=1) == compressed(compression, pieces, threads=4)


def test_the_header_of_gzip_names_nobody_and_no_time() -> None:
    assert compressed("gzip", [b"x"])[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
