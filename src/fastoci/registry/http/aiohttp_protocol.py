"""aiohttp's protocol of one connection, with the bounds that it lacks.

1. Interim answers (1xx) are counted: without end they are an error, not memory.
2. The headers of an answer have a deadline, which ``Silence`` may move: a byte or an interim answer now and then does
   not put it off. So has a proxy's answer to CONNECT.
3. Framing that breaks in mid-body ends the body: aiohttp closes the connection and leaves its reader waiting.
4. Heads are collected (``response_head``), and the parser is made for the size of a large one: its limits bound the
   trailers, too, which nobody else does.
5. The reader of a body that has ended lets go of the connection. aiohttp's own resumes reading whenever it is emptied,
   also when the connection has long been another request's.

What it relies on, in aiohttp 3.14: ``set_response_params`` is called before each request, messages come by
``feed_data``, ``set_exception`` is told of broken framing while ``_payload`` is the body that is being read, and a
reader reaches its connection by ``_protocol`` alone. A connection has no ``silence`` before CONNECT.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD

from fastoci.registry.http.first_byte import Silence
from fastoci.registry.http.response_head import HeadTooLargeError, ResponseHead

_INTERIM: Final = 32  # answers; servers send one or two
_TRAILERS: Final = 32


class _NoConnection:
    """What the reader of a body that has ended has for a connection."""

    connected = False

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing is read."""


_NO_CONNECTION: Final = _NoConnection()


class ClientProtocol(ResponseHandler):
    """One connection. Belongs to aiohttp.

    Args:
        proxy_s: the deadline of a proxy's answer to CONNECT.
    """

    silence: Silence | None = None  # of the request that is sent next
    _interim = 0
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, *, proxy_s: float) -> None:
        super().__init__(loop)
        self._proxy_s = proxy_s
        self._head: ResponseHead | None = None  # of the answer that is waited for
        self._options: dict[str, Any] = {}

    def set_response_params(self, **options: Any) -> None:
        """A request is about to be sent."""
        self._head, self._options = ResponseHead(), options
        self._interim = 0
        self._drop_deadline()
        first_s = self._proxy_s if self.silence is None else self.silence.first_s
        self._deadline = self._loop.call_later(first_s, self._miss)
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        head = self._head
        if head is None or self._parser is None:
            super().data_received(data)
            return
        try:
            heads, rest = head.feed(data)
        except HeadTooLargeError:
            self._give_up(HttpProcessingError(message="too much of headers"))
            return
        self._head = None if head.done else head
        for each in heads:
            self._make_room(len(each), each.count(b"\n"))
            super().data_received(each)
            if self.exception() is not None:
                return
        if rest:
            super().data_received(rest)

    def _make_room(self, size: int, lines: int) -> None:
        """Let the parser take a head of this size, where it is larger than most."""
        if size > self._options.get("max_field_size", 0) or lines > self._options.get("max_headers", 0):
            room = {"max_line_size": size, "max_field_size": size, "max_headers": lines + _TRAILERS}
            super().set_response_params(**{**self._options, **room})

    def feed_data(self, data: Any, size: int = 0) -> None:
        """An answer's headers have come."""
        if 100 <= data[0].code < 200 and data[0].code != 101:
            self._interim += 1
            if self._interim > _INTERIM:
                if self._interim == _INTERIM + 1:
                    self._give_up(HttpProcessingError(message=f"more than {_INTERIM} interim answers"))
                return
        else:
            self._drop_deadline()
        body = data[1]
        if body is not EMPTY_PAYLOAD:
            body.on_eof(partial(_detach, body))  # at once when it has all come, else before the connection is released
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """The connection is of no use any more; nor is the body on it."""
        self._drop_deadline()
        body = self._payload
        super().set_exception(exc, *cause)
        if isinstance(exc, HttpProcessingError) and body is not None and not body.is_eof() and not body.exception():
            error = aiohttp.ClientPayloadError("broken framing")
            error.__cause__ = exc
            body.set_exception(error)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._drop_deadline()
        super().connection_lost(exc)

    def _miss(self) -> None:
        more_s = 0.0 if self.silence is None else self.silence.more_s()
        if more_s > 0:
            self._deadline = self._loop.call_later(more_s, self._miss)
        else:
            self._give_up(aiohttp.SocketTimeoutError("no headers in time"))

    def _give_up(self, error: BaseException) -> None:
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _detach(body: Any) -> None:
    body._protocol = _NO_CONNECTION
