"""Streams that are inflated as they come: in pieces, each of them gone when the next is there."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from fastoci import _core
from fastoci.stream.deflate import Deflate
from fastoci.stream.inflate import Inflate

MIB = 1 << 20


def inflate_pieces(pieces: Iterable[bytes], *, deflate: type[Deflate] | None = None, allow: bool = False) -> bytes:
    """Inflate a stream that arrives in these pieces, all of them in one buffer."""
    source, out = _buffers()
    stage = Inflate(window=8 * MIB, deflate=deflate)
    result = bytearray()
    for piece in pieces:
        source.clear()
        assert source.append(piece) == len(piece)
        if not stage.take(source):
            result += bytes(source)
            continue
        more = True
        while more:
            out.clear()
            more = stage.fill(out)
            result += bytes(out)
            if allow and stage.demanded:
                stage.allow(stage.demanded)
    stage.finish()
    stage.close()
    return bytes(result)


@cache
def _buffers() -> tuple[_core.Buffer, _core.Buffer]:
    pool = _core.Pool(2 * _core.BUFFER_SIZE)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    return source, out
