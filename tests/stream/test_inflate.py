"""What a layer is compressed with is read from its bytes."""

from __future__ import annotations

import gzip

import pytest
import zstandard

from fastoci import _core
from fastoci.errors import FormatError, UnsupportedError
from fastoci.stream.inflate import Inflate

BODY = bytes(range(256)) * 4000


def run(data: bytes, step: int = 1 << 20) -> bytes:
    pool = _core.Pool(2 * _core.SPAN_SIZE, poison=True)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    stage = Inflate(history=8 << 20)
    result = b""
    for at in range(0, len(data), step):
        source.clear()
        source.append(data[at : at + step])
        if not stage.take(source):
            result += bytes(source)
            continue
        more = True
        while more:
            out.clear()
            more = stage.fill(out)
            result += bytes(out)
    stage.finish()
    return result


@pytest.mark.parametrize("data", [gzip.compress(BODY), zstandard.compress(BODY), BODY], ids=["gzip", "zstd", "plain"])
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_every_compression_comes_out_whole(data: bytes, step: int) -> None:
    assert run(data, step) == BODY


@pytest.mark.parametrize("head", [b"BZh91AY", b"\xfd7zXZ\0", b"PK\x03\x04"])
def test_other_compressions_are_refused_by_name(head: bytes) -> None:
    with pytest.raises(UnsupportedError, match="layers are tar, gzip or zstd"):
        run(head + bytes(100))


def test_a_cut_layer_raises_format_error_with_the_offset() -> None:
    data = gzip.compress(BODY)
    with pytest.raises(FormatError, match=f"ends early .at byte {len(data) - 9} "):
        run(data[:-9])


def test_an_empty_layer_is_refused() -> None:
    with pytest.raises(FormatError, match="empty"):
        run(b"")
