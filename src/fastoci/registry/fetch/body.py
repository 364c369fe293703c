"""A body on the wire into buffers: exactly as many bytes as promised, in order."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

from fastoci._core import Buffer
from fastoci.errors import SizeMismatchError, TimedOutError, TransportError, TruncatedError
from fastoci.image.descriptor import Descriptor
from fastoci.registry.http.content_encoding import Label, LabelledBody
from fastoci.registry.http.direct_receiver import DirectReceiver
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.servers import Server
from fastoci.registry.http.throughput import BY_ITSELF, StallDetector, StallPolicy

_CHECK_S: Final = 1.0  # between two checks of how fast the bytes come
_END_S: Final = 1.0  # for the end of a body after its last byte


class Body:
    """``left`` bytes of an answer's body, after its first ``skip``. Belongs to one task; ``close`` it.

    Args:
        server: which sends it.
        stall: when it is too slow.
        label: what they are said to be, if it takes a look to know.
    """

    def __init__(
        self,
        reply: Reply,
        blob: Descriptor,
        server: Server,
        *,
        skip: int,
        left: int,
        stall: StallPolicy = BY_ITSELF,
        label: Label | None = None,
    ) -> None:
        self.left = left
        self.server = server
        self._reply = reply
        self._blob = blob
        self._skip = skip
        self.skipped = skip
        renew = stall.renew and not skip  # all of it would be skipped again
        self._detector = StallDetector(time.monotonic, server.peers.median if renew else None, stall.lag)
        self._size = left
        self._rest = b""
        self._slow = ""
        self._timer: asyncio.TimerHandle | None = None
        self._check_s = _CHECK_S
        self._receiver = None if skip or label else reply.take_over(left)
        self._source = LabelledBody(reply, skip + left, self._check, label) if label else reply
        self._begun = False

    def follow(self, previous: Body) -> None:
        """Go on where ``previous`` ended, from the same server: how fast that was counts."""
        self._detector = previous._detector
        self._check_s = 0.0  # bodies may be shorter than the time between two checks

    def received(self) -> int:
        """Bytes that have come, also while ``fill`` waits."""
        return self._size - (self.left if self._receiver is None else self._receiver.left)

    @property
    def starved(self) -> bool:
        """It was broken off because a new connection may be faster."""
        return self._slow.startswith("starved")

    async def fill(self, buffer: Buffer, maximum: int) -> None:
        """Receive until the buffer is full or ``maximum`` bytes came; what came before an error stays in the buffer.

        Raises:
            SizeMismatchError: the body goes on after the last byte.
            TransportError: it ends or has ended, breaks, falls silent or is too slow.
        """
        if not self._begun:
            self._begun = True
            self.server.begin(self.received)
        maximum = min(maximum, self.left)
        if not maximum:
            text = f"{self._reply.url}: the body has no more than {self._size} bytes"
            raise TruncatedError(text, url=self._reply.url, received=self._size)
        self._detector.resume()
        try:
            if self._receiver is not None:
                await self._receive(self._receiver, buffer, maximum)
            else:
                await self._read(buffer, maximum)
        finally:
            self._detector.pause()

    async def _receive(self, receiver: DirectReceiver, buffer: Buffer, maximum: int) -> None:
        """The body past aiohttp."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._check_s, self._check_rate, receiver)
        try:
            stop = receiver.left - maximum
            while (left := receiver.left) > stop and buffer.room:
                await receiver.fill(buffer, self._reply.piece(left - stop))
                await self._reply.within_bandwidth(left - receiver.left, self._detector)
        except (OSError, EOFError) as error:
            self._count(self.left - receiver.left)
            if self._slow:
                raise self._too_slow() from error
            raise self._reply.broken(error, self._size - self.left) from error
        finally:
            self._count(self.left - receiver.left)

    async def _read(self, buffer: Buffer, maximum: int) -> None:
        """The body as aiohttp reads it: chunked, without a length, small, encoded, or to be skipped in part."""
        stop = self.left - maximum
        while buffer.room and self.left > stop:
            data = self._rest or await self._some()
            if not data:
                text = f"{self._reply.url}: the body ended {self.left} bytes before its end"
                raise TruncatedError(text, url=self._reply.url, received=self._reply.received)
            start = min(self._skip, len(data))
            self._skip -= start
            if len(data) - start > self.left:
                raise wrong_length(self._blob, self._blob.size + len(data) - start - self.left)
            wanted = data[: start + self.left - stop]
            took = buffer.append(wanted, start) if start < len(wanted) else 0
            self._rest = data[start + took :]
            self._count(took)
            self._detector.count(start)  # what is skipped comes, too: it is not a stall
            if self.left > stop:
                self._check()
        if not self.left:
            # Every byte is here; whether they are the right ones is seen elsewhere, and nobody waits for an end.
            with suppress(TransportError, TimeoutError):
                async with asyncio.timeout(_END_S):
                    if await self._source.some():
                        raise wrong_length(self._blob, self._blob.size + 1)

    async def _some(self) -> bytes:
        before = self._reply.received
        data = await self._source.some()
        await self._reply.within_bandwidth(self._reply.received - before, self._detector)
        return data

    def _check_rate(self, receiver: DirectReceiver) -> None:
        """Break a body off that is too slow."""
        self._count(self.left - receiver.left)
        self._slow = self._detector.verdict()
        if self._slow:
            receiver.break_off(TimeoutError())
        else:
            self._timer = asyncio.get_running_loop().call_later(_CHECK_S, self._check_rate, receiver)

    def _check(self) -> None:
        """Break off here, when it is too slow.

        Raises:
            TimedOutError: it is.
        """
        self._slow = self._detector.verdict()
        if self._slow:
            raise self._too_slow()

    def _count(self, size: int) -> None:
        self.left -= size
        self._detector.count(size)

    def _too_slow(self) -> TimedOutError:
        url = self._reply.url
        return TimedOutError(f"{url}: {self._slow}", url=url, received=self._size - self.left)

    def close(self) -> None:
        """End the transfer; the connection is used again if every byte was received."""
        self.server.end(self.received)
        if self._timer is not None:
            self._timer.cancel()
        if self._receiver is not None:
            self._receiver.close()
        self._reply.close()


def wrong_length(blob: Descriptor, actual: int) -> SizeMismatchError:
    """The error for a source that announces or sends another number of bytes than ``blob.size``."""
    return SizeMismatchError(
        f"{blob.digest}: expected {blob.size} bytes, the registry has {actual}",
        subject=str(blob.digest),
        expected=blob.size,
        actual=actual,
    )
