"""What a layer is compressed with is read from its bytes."""

from __future__ import annotations

import gzip

import pytest
import zstandard

from fastoci import _core
from fastoci.errors import FormatError, UnsupportedError
from fastoci.stream.inflate import Inflate

BODY = bytes(range(256)) * 4000


class Collect:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.state = "open"

    def feed(self, span: _core.Span) -> None:
        self.data += bytes(span)

    def finish(self) -> None:
        self.state = "finished"

    def abort(self) -> None:
        self.state = "aborted"


def run(data: bytes, step: int = 1 << 20) -> tuple[Collect, _core.Pool]:
    pool = _core.Pool(2 * _core.SPAN_SIZE, poison=True)
    source, window = pool.take(), pool.take()
    assert source is not None
    assert window is not None
    sink = Collect()
    stage = Inflate(sink, window, history=8 << 20)
    try:
        for at in range(0, len(data), step):
            source.clear()
            source.append(data[at : at + step])
            stage.feed(source)
        stage.finish()
    except BaseException:
        stage.abort()
        source.release()
        assert pool.in_use == 0
        assert sink.state == "aborted"
        raise
    source.release()
    return sink, pool


@pytest.mark.parametrize("data", [gzip.compress(BODY), zstandard.compress(BODY), BODY], ids=["gzip", "zstd", "plain"])
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_every_compression_comes_out_whole(data: bytes, step: int) -> None:
    sink, pool = run(data, step)
    assert sink.data == BODY
    assert sink.state == "finished"
    assert pool.in_use == 0


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
