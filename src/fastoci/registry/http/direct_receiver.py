"""The body of an answer straight from the transport into buffers, past aiohttp's reader.

aiohttp makes the connection, the request and the headers. Then this protocol takes the transport over for the announced
bytes and gives it back, so that the connection is used again. It costs half of aiohttp's cheapest way and the loop sees
no bytes objects (benchmarks/micro/receive.py). Only this file and ``aiohttp_protocol`` touch aiohttp's inner parts; its
conformance test is tests/registry/http/test_direct_receiver.py.

What it relies on, in aiohttp 3.14: ``response.connection.protocol`` is the transport's protocol; what that has read
already is in ``response.content``, which goes on parsing held-back bytes as it is drained; after ``content.feed_eof``
the response releases its connection, and the next request makes a new parser; what a protocol without a parser receives
makes ``should_close`` true.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections import deque
from contextlib import suppress
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from fastoci._core import Buffer

_INTERNALS: Final = (
    (ResponseHandler, ("pause_reading", "resume_reading", "connection_lost", "should_close", "_drop_timeout")),
    (aiohttp.StreamReader, ("read_nowait", "is_eof", "feed_eof", "exception")),
)
_MIN_SIZE: Final = 128 << 10  # bytes: a smaller body has mostly come with its headers
_SCRATCH: Final = 64 << 10


def supported() -> bool:
    """Whether the installed aiohttp has the parts that this uses; otherwise aiohttp's reader receives."""
    return all(hasattr(kind, name) for kind, names in _INTERNALS for name in names)


class DirectReceiver(asyncio.BufferedProtocol):
    """Receives exactly ``left`` bytes. Belongs to one task; ``close`` it.

    Reading is paused whenever no buffer is being filled: the kernel's buffer and TCP hold the sender back. Bytes that
    come all the same are kept for the next buffer. A connection on which bytes wait beyond the last, or come before the
    next request, is not used again: they would pass for an answer.
    """

    def __init__(self, response: aiohttp.ClientResponse, protocol: Any, left: int, read_s: float) -> None:
        self.left = left
        self._stop = 0  # bytes that are left when ``fill`` is content
        self._response = response
        self._protocol = protocol
        self._transport: asyncio.Transport = protocol.transport
        self._read_s = read_s
        self._loop = asyncio.get_running_loop()
        self._backlog: deque[bytes] = deque()
        self._scratch = bytearray()
        self._buffer: Buffer | None = None  # that is being filled
        self._into: Buffer | None = None  # where the next bytes go; None: into the scratch bytes
        self._view: memoryview | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None
        self._received_at = self._loop.time()
        self._lost = False

    @classmethod
    def begin(cls, response: aiohttp.ClientResponse, left: int, read_s: float) -> DirectReceiver | None:
        """Take the transport over; None where only aiohttp can read the body."""
        connection = response.connection
        protocol: Any = connection and connection.protocol
        if (
            left < _MIN_SIZE
            or not supported()
            or protocol is None
            or protocol.transport is None
            or response.content.exception()
        ):
            return None
        if "Transfer-Encoding" in response.headers or protocol.upgraded:
            return None
        self = cls(response, protocol, left, read_s)
        protocol.pause_reading()
        content = response.content
        while data := content.read_nowait():  # resumes the parser, so that it gives out what it holds back
            self._backlog.append(data)
        if content.is_eof():  # the body is all here, and the connection is released
            self._error = EOFError()
            return self
        protocol.pause_reading()
        self._transport.set_protocol(self)
        return self

    async def fill(self, buffer: Buffer, maximum: int) -> None:
        """Receive until the buffer is full or ``maximum`` bytes came; less of them when the connection broke meanwhile.

        Raises:
            OSError, TimeoutError, EOFError: nothing more came before the connection broke, fell silent or ended.
        """
        before = len(buffer)
        self._stop = self.left - min(maximum, self.left)
        while self._backlog and buffer.room and self.left > self._stop:
            data = self._backlog.popleft()
            took = buffer.append(data[: self.left - self._stop])
            self.left -= took
            if took < len(data):
                self._backlog.appendleft(data[took:])
        if not buffer.room or self.left == self._stop:
            return
        if self._error is None:
            await self._receive(buffer)
        if self._error is not None and len(buffer) == before:
            raise self._error

    async def _receive(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._waiter = self._loop.create_future()
        self._received_at = self._loop.time()
        self._timer = self._loop.call_later(self._read_s, self._check_silence)
        try:
            self._transport.resume_reading()
            await self._waiter
        finally:
            self._timer.cancel()
            self._let_go()
            self._buffer = self._waiter = None
            if not self._lost:
                self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio asks where the next bytes should go."""
        self._let_go()
        buffer = self._into = self._buffer
        if buffer is None or not buffer.room or self.left == self._stop:
            self._into = None
            self._scratch = self._scratch or bytearray(_SCRATCH)
            return memoryview(self._scratch)  # not paused here: uvloop must not be stopped before it has read
        self._view = buffer.reserve(self.left - self._stop)
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio has put bytes there.

        Raises:
            ValueError: more than there was room for.
        """
        self._let_go()
        self._received_at = self._loop.time()
        buffer = self._into
        if buffer is None:
            self._transport.pause_reading()
            self._backlog.append(bytes(self._scratch[:nbytes]))
            return
        if not 0 < nbytes <= self.left - self._stop:
            raise ValueError(f"{nbytes} bytes, at most {self.left - self._stop}")
        buffer.advance(nbytes)
        self.left -= nbytes
        if self.left == self._stop or not buffer.room:
            self._transport.pause_reading()
            self._wake()

    def eof_received(self) -> bool:
        """The server closed its side."""
        self._fail(EOFError())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; aiohttp's protocol learns it too."""
        self._lost = True
        self._let_go()
        self._fail(exc if isinstance(exc, OSError) else EOFError())
        self._protocol.connection_lost(exc)

    def _let_go(self) -> None:
        """End the view at once: a traceback or the transport may hold it for longer than the buffer is ours."""
        if self._view is not None:
            with suppress(BufferError):  # the transport is using it just now, and lets go of it itself
                self._view.release()
            self._view = None

    def break_off(self, error: BaseException) -> None:
        """Want no more: ``fill`` raises the error."""
        self._fail(error)

    def _check_silence(self) -> None:
        """Fail when nothing came for ``read_s``; else check again when that could be so."""
        silent = self._loop.time() - self._received_at
        if silent >= self._read_s:
            self._fail(TimeoutError())
        else:
            self._timer = self._loop.call_later(self._read_s - silent, self._check_silence)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error.with_traceback(None)  # which may hold a piece of the view
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Give the transport back when all bytes were received; end the connection otherwise. Idempotent."""
        if self._response.closed:
            return
        if not self._lost:
            self._transport.set_protocol(self._protocol)
        if self.left or self._backlog or self._error is not None or self._lost or not self._is_quiet():
            if not self._lost:
                self._transport.abort()
            self._response.close()
            return
        self._protocol._parser = None  # it has not seen the end of the body
        self._response.content.feed_eof()  # the response releases its connection, and reading goes on
        self._protocol._drop_timeout()

    def _is_quiet(self) -> bool:
        """Whether the server neither sent more than the body nor closed, as far as that has arrived."""
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        if tls is not None:
            try:
                tls.read(1)  # what is deciphered, or waits to be; the connection ends if there is any
            except ssl.SSLWantReadError:
                pass
            except (OSError, ValueError):
                return False
            else:
                return False
        poller = select.poll()
        poller.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poller.poll(0)
