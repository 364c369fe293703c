"""Calls to a gRPC server behind a Unix socket. Every wait ends; a call that is left here ends at the server, too.

Spec: gRPC over HTTP/2, "Requests", "Responses".
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Mapping
from typing import Final, Self

from fastoci.containerd.rpc.exchange import Bounds, Exchange
from fastoci.containerd.rpc.framing import CONTENT_TYPE, Code, status
from fastoci.containerd.rpc.link import Link
from fastoci.containerd.rpc.peer import Peer
from fastoci.errors import ContainerdError

_BOUNDS: Final = Bounds()
_RETRY_S: Final = 0.05  # between two knocks at a socket whose queue is full
_AGENT: Final = "fastoci"

_HELP: Final = {
    errno.ENOENT: ("no socket is there; is containerd running, and is this its address?", Code.UNAVAILABLE),
    errno.ECONNREFUSED: ("nobody listens there; is containerd running?", Code.UNAVAILABLE),
    errno.EAGAIN: ("its queue is full; does containerd still take connections?", Code.UNAVAILABLE),
    errno.EACCES: ("this user may not connect; run this as the user that containerd runs as", Code.PERMISSION_DENIED),
    errno.EPERM: ("this user may not connect; run this as the user that containerd runs as", Code.PERMISSION_DENIED),
    errno.EPROTOTYPE: ("this is another kind of socket", Code.INVALID_ARGUMENT),
}


class Connection:
    """A connection to a server, for many calls at once. Made by ``open``; ``peer`` is who listens."""

    def __init__(self, link: Link, peer: Peer) -> None:
        self.peer = peer
        self._link = link

    @classmethod
    async def open(cls, path: str, *, bounds: Bounds = _BOUNDS) -> Connection:
        """Connect to a socket, and wait until the server has said that it speaks HTTP/2.

        Raises:
            ContainerdError: nobody is there, this user may not, or no answer came within ``bounds.connect_s``.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(bounds.connect_s):
                connected = await _connected(path)
                try:
                    peer = Peer.of(connected)
                    _, link = await loop.create_unix_connection(lambda: Link(path, bounds), sock=connected)
                except BaseException:
                    connected.close()
                    raise
                try:
                    await link.ready
                except BaseException:
                    link.close(link.failure("not needed any more", Code.CANCELLED))
                    raise
        except TimeoutError:
            text = f"{path}: no answer within {bounds.connect_s:g} s; does it hang, or is it another service?"
            raise ContainerdError(text, code=Code.DEADLINE_EXCEEDED, path=path) from None
        if link.error:
            raise link.error
        return cls(link, peer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        """Whether it is over, for whatever reason: no call can be made any more."""
        return self._link.error is not None

    async def close(self) -> None:
        """End the connection, with all calls that are under way."""
        self._link.close(self._link.failure("the connection was closed", Code.CANCELLED))
        await asyncio.wait([self._link.lost])

    async def call(
        self, method: str, request: bytes, metadata: Mapping[str, str] | None = None, *, within_s: float | None = None
    ) -> bytes:
        """Send one message, and give the one that comes back.

        Args:
            method: ``/package.Service/Method``.
            within_s: how long the server may take to answer; ``Bounds.wait_s`` unless given.
        Raises:
            ContainerdError: the server said no, with its ``code``; or no answer came.
        """
        async with self.stream(method, metadata) as stream:
            await stream.send(request, last=True)
            answer = await stream.receive(within_s)
            if answer is None or await stream.receive(within_s) is not None:
                raise stream.failure("the server did not give one answer", Code.INTERNAL)
            return answer

    def stream(self, method: str, metadata: Mapping[str, str] | None = None) -> Stream:
        """Begin a call with any number of messages to and fro. Use it with ``async with``, or ``cancel`` it.

        Raises:
            ContainerdError: the connection is over, the server takes no more calls at once, or the metadata cannot be
                sent.
        """
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            ("user-agent", _AGENT),
        ]
        for name, value in (metadata or {}).items():
            if not (value.isascii() and value.isprintable() and value == value.strip()):
                text = f"{name}: {value[:200]!r} cannot be sent: it is not ASCII, or has spaces around it"
                raise self._link.failure(text, Code.INVALID_ARGUMENT)
            headers.append((name, value))
        return Stream(self._link, self._link.begin(headers), method)


class Stream:
    """One call. A task may send while another receives."""

    def __init__(self, link: Link, exchange: Exchange, method: str) -> None:
        self._link = link
        self._exchange = exchange
        self._name = method.rpartition("/")[2]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    async def send(self, message: bytes, *, last: bool = False) -> None:
        """Send a message. ``last``: no other follows.

        Raises:
            ContainerdError: the server has ended the call, did not take it within ``Bounds.wait_s``, or is gone.
        """
        try:
            sent = await self._exchange.send(message, self._link.bounds.wait_s, last=last)
        except BaseException:
            self.cancel()
            raise
        if not sent:
            self._check()
            raise self.failure("the server ended the call early", Code.INTERNAL)

    async def receive(self, within_s: float | None = None) -> bytes | None:
        """The next message, None after the last one.

        Args:
            within_s: how long the server may take; ``Bounds.wait_s`` unless given.
        Raises:
            ContainerdError: the server said no, with its ``code``; or no message came.
        """
        try:
            message = await self._exchange.receive(self._link.bounds.wait_s if within_s is None else within_s)
        except BaseException:
            self.cancel()
            raise
        if message is None:
            self._check()
        return message

    def end(self) -> None:
        """Send no more messages."""
        self._link.end(self._exchange)

    def cancel(self) -> None:
        """Let the call go, if it is not over: the server is told."""
        self._link.reset(self._exchange)
        self._exchange.forget()

    def failure(self, text: str, code: int) -> ContainerdError:
        """An error of this call."""
        return ContainerdError(f"{self._name}: {text}", code=code, path=self._link.path)

    def _check(self) -> None:
        """Raise what the server said at the end, unless it was OK."""
        headers = self._exchange.headers
        kind = headers.get("content-type", "")
        if headers.get(":status") != "200" or not kind.startswith(CONTENT_TYPE):
            text = f"an answer that is not gRPC's (HTTP {headers.get(':status', '')[:3]}, {kind[:80]!r})"
            raise self.failure(text, Code.UNKNOWN)
        code, text = status(self._exchange.trailers or headers)
        if code:
            raise self.failure(text or f"gRPC status {code}", code)


async def _connected(path: str) -> socket.socket:
    """A socket that is connected to ``path``.

    Raises:
        ContainerdError: it cannot be.
    """
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # A Unix socket connects at once or not at all; EAGAIN is a full queue, of which no event tells the end.
        while True:
            number = _connect(connecting, path)
            if number != errno.EAGAIN:
                break
            await asyncio.sleep(_RETRY_S)
        if number:
            text, code = _HELP.get(number, (os.strerror(number), Code.UNAVAILABLE))
            raise ContainerdError(f"{path}: {text}", code=code, path=path)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _connect(connecting: socket.socket, path: str) -> int:
    try:
        if "\0" in path:
            raise ValueError("an address without NUL is expected")  # the kernel would read to there
        return connecting.connect_ex(path)
    except (OSError, ValueError) as error:  # too long for a socket's address, too
        raise ContainerdError(f"{path!r}: {error}", code=Code.INVALID_ARGUMENT, path=path) from error
