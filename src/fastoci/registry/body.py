"""A body on the wire into spans: exactly as many bytes as promised, in order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastoci._core import Span
from fastoci.errors import SizeMismatchError, TransportError, TruncatedError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import SpanSource
from fastoci.registry.takeover import Takeover
from fastoci.registry.transport import Reply


async def pour(
    reply: Reply, blob: Descriptor, *, skip: int, left: int, spans: SpanSource
) -> AsyncGenerator[Span, None]:
    """Yield ``left`` bytes of a body after its first ``skip``, in spans; the span's reference passes to the caller.

    A span is yielded when it is full or the body ends. What arrived before a cut is yielded before the cut is raised.
    Closes the reply.

    Raises:
        SizeMismatchError: the body goes on after the last byte.
        TransportError: it ends or breaks before.
    """
    receiver = None if skip else reply.take_over(left)
    if receiver is not None:
        async with aclosing(_receive(reply, receiver, spans)) as taken:
            async for span in taken:
                yield span
        return
    async with aclosing(_read(reply, blob, skip=skip, left=left, spans=spans)) as read:
        async for span in read:
            yield span


async def _receive(reply: Reply, receiver: Takeover, spans: SpanSource) -> AsyncGenerator[Span, None]:
    """The body past aiohttp."""
    size = receiver.left
    span: Span | None = None
    try:
        while receiver.left:
            span = await spans.take()
            try:
                await receiver.fill(span)
            except (OSError, EOFError) as error:
                raise reply.broken(error, size - receiver.left) from error
            full, span = span, None
            yield full
    finally:
        if span is not None:
            span.release()
        receiver.close()


async def _read(
    reply: Reply, blob: Descriptor, *, skip: int, left: int, spans: SpanSource
) -> AsyncGenerator[Span, None]:
    """The body as aiohttp reads it: chunked, without a length, small, or to be skipped in part."""
    span: Span | None = None
    cut: TransportError | None = None
    try:
        while True:
            try:
                data = await reply.some()
            except TransportError as error:
                cut = error
                break
            if not data:
                break
            start = min(skip, len(data))
            skip -= start
            left -= len(data) - start
            if left < 0:
                raise wrong_length(blob, blob.size - left)
            while start < len(data):
                if span is None:
                    span = await spans.take()
                start += span.append(data, start)
                if not span.room:
                    full, span = span, None
                    yield full
        if span is not None:
            last, span = span, None
            yield last
        if cut is None and left:
            cut = TruncatedError(
                f"{reply.url}: the body ended {left} bytes before its end", url=reply.url, received=reply.received
            )
        if cut is not None:
            raise cut
    finally:
        if span is not None:
            span.release()
        reply.close()


def wrong_length(blob: Descriptor, actual: int) -> SizeMismatchError:
    """The error for a source that announces or sends another number of bytes than ``blob.size``."""
    return SizeMismatchError(
        f"{blob.digest}: expected {blob.size} bytes, the registry has {actual}",
        subject=str(blob.digest),
        expected=blob.size,
        actual=actual,
    )
