"""A gRPC server on a Unix socket, for callers that ``allow`` lets in. A call that is left is cancelled at once.

Spec: gRPC over HTTP/2, "Requests", "Responses"; unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final, cast

from h2.errors import ErrorCodes

from fastoci.aio import wait_to_end
from fastoci.containerd.rpc.exchange import Bounds, Exchange, Held
from fastoci.containerd.rpc.framing import CONTENT_TYPE, Code, escaped
from fastoci.containerd.rpc.link import Link
from fastoci.containerd.rpc.peer import Peer
from fastoci.errors import ContainerdError, FastociError

_LOG: Final = logging.getLogger(__name__)
_BOUNDS: Final = Bounds()
_CONNECTIONS: Final = 64
# The socket's file belongs to whoever bound it: a service manager's lives on.
_KEPT: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
_OPENING: Final = [(":status", "200"), ("content-type", CONTENT_TYPE)]
_OWN_HEADERS: Final = frozenset({"te", "content-type", "user-agent", "grpc-timeout", "grpc-accept-encoding"})

Handler = Callable[["Call"], Awaitable[bytes] | AsyncIterator[bytes]]


class Call:
    """What a handler gets: one call. A handler is an async function that gives a message, or an async generator."""

    def __init__(self, link: Link, exchange: Exchange, peer: Peer) -> None:
        headers = exchange.headers
        self.method = headers[":path"]
        self.metadata: Mapping[str, str] = {
            name: value for name, value in headers.items() if name[:1] != ":" and name not in _OWN_HEADERS
        }
        self.peer = peer
        self._link = link
        self._exchange = exchange

    async def request(self) -> bytes:
        """The one message of the caller.

        Raises:
            ContainerdError: there is none, or more than one; or it did not come within ``Bounds.wait_s``.
        """
        message = await self.receive()
        if message is None or await self.receive() is not None:
            raise self.failure("the method takes one message", Code.INVALID_ARGUMENT)
        return message

    async def receive(self, within_s: float | None = None) -> bytes | None:
        """The next message of the caller, None after its last one.

        Args:
            within_s: how long the caller may take; ``Bounds.wait_s`` unless given.
        Raises:
            ContainerdError: it did not come in time, or is no message.
        """
        return await self._exchange.receive(self._link.bounds.wait_s if within_s is None else within_s)

    def failure(self, text: str, code: int) -> ContainerdError:
        """An error for the caller, to be raised by the handler."""
        return ContainerdError(text, code=code, path=self._link.path)


class Server:
    """Serves calls by the name of their method."""

    def __init__(
        self, handlers: Mapping[str, Handler], *, allow: Callable[[Peer], bool], bounds: Bounds = _BOUNDS
    ) -> None:
        self._handlers = handlers
        self._allow = allow
        self._bounds = bounds
        self._links: dict[Link, Peer] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._held = Held()
        self._stopping = asyncio.Event()

    async def serve(self, listener: socket.socket, *, grace_s: float = 10.0) -> None:
        """Serve callers of a listening socket until ``stop``, and then those that are there for ``grace_s`` seconds.

        When this task is cancelled nobody is waited for: all calls are cancelled.
        """
        path = str(listener.getsockname())
        loop = asyncio.get_running_loop()

        def link() -> Link:
            held = self._held
            return Link(path, self._bounds, held=held, on_connect=self._connected, on_request=self._requested)

        server = await loop.create_unix_server(link, sock=listener, **_KEPT)
        try:
            await self._stopping.wait()
            server.close()
            await self._drained(grace_s)
        finally:
            server.close()
            await self._end()

    def stop(self) -> None:
        """Take no new connections and calls, and let ``serve`` end when the calls under way have."""
        self._stopping.set()

    async def _drained(self, grace_s: float) -> None:
        for link in self._links:
            link.retire()
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace_s)

    async def _end(self) -> None:
        links = list(self._links)
        for link in links:
            link.close(link.failure("the server stops", Code.UNAVAILABLE))
        for task in self._calls:
            task.cancel()
        waits = [*self._calls, *(link.lost for link in links)]
        if waits:
            _, cancelled = await wait_to_end(asyncio.wait(waits))
            if cancelled:
                raise asyncio.CancelledError

    # -- the link's calls --

    def _connected(self, link: Link, transport: asyncio.Transport) -> bool:
        connected = cast(socket.socket, transport.get_extra_info("socket"))
        peer = Peer.of(connected)
        if len(self._links) >= _CONNECTIONS:
            _LOG.warning("a connection of process %d is refused: there are %d", peer.pid, _CONNECTIONS)
            return False
        if not self._allow(peer):
            _LOG.warning("a connection of process %d, user %d, is refused", peer.pid, peer.uid)
            return False
        self._links[link] = peer
        link.lost.add_done_callback(lambda _: self._links.pop(link, None))
        return True

    def _requested(self, link: Link, exchange: Exchange) -> None:
        headers = exchange.headers
        handler = self._handlers.get(headers.get(":path", ""))
        if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith(CONTENT_TYPE):
            link.put_headers(exchange, [(":status", "415")], end=True)
            link.reset(exchange, ErrorCodes.NO_ERROR)
        elif handler is None:
            text = f"{headers.get(':path', '')[:200]} is not served here"
            self._close(link, exchange, Code.UNIMPLEMENTED, text)
        elif len(self._calls) >= self._bounds.exchanges:
            self._close(link, exchange, Code.RESOURCE_EXHAUSTED, f"{len(self._calls)} calls are under way")
        else:
            task = asyncio.create_task(self._run(link, exchange, handler, Call(link, exchange, self._links[link])))
            self._calls.add(task)
            task.add_done_callback(partial(self._ended, link, exchange))
            exchange.on_error = task.cancel

    async def _run(self, link: Link, exchange: Exchange, handler: Handler, call: Call) -> None:
        code, text = int(Code.OK), ""
        try:
            async with aclosing(_answers(handler(call))) as messages:
                async for message in messages:
                    if not exchange.begun:
                        link.put_headers(exchange, _OPENING)
                    await exchange.send(message, self._bounds.wait_s)
        except ContainerdError as error:
            code, text = error.code, error.message
        except FastociError as error:
            code, text = Code.INTERNAL, str(error)
        except Exception as error:
            _LOG.exception("%s failed", call.method)
            code, text = Code.UNKNOWN, f"unexpected {type(error).__name__}: {error}"
        self._close(link, exchange, code, text)

    def _ended(self, link: Link, exchange: Exchange, task: asyncio.Task[None]) -> None:
        """A call is over. One that was cancelled, even before it began, may have a caller that waits for its status."""
        self._calls.discard(task)
        if task.cancelled():
            error = exchange.error or link.failure("the call was cancelled here", Code.CANCELLED)
            self._close(link, exchange, error.code, error.message)

    @staticmethod
    def _close(link: Link, exchange: Exchange, code: int, text: str) -> None:
        """End a call with its status; one whose message was cut short without."""
        exchange.forget()
        if not exchange.partial:
            trailers = [("grpc-status", str(int(code)))] + ([("grpc-message", escaped(text))] if text else [])
            link.put_headers(exchange, trailers if exchange.begun else [*_OPENING, *trailers], end=True)
        link.reset(exchange, ErrorCodes.NO_ERROR if exchange.closed else ErrorCodes.INTERNAL_ERROR)


async def _answers(answer: Awaitable[bytes] | AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The messages of a handler, of either kind."""
    if isinstance(answer, Awaitable):
        yield await answer
        return
    async with aclosing(answer) as messages:  # type: ignore[type-var]
        async for message in messages:
            yield message
