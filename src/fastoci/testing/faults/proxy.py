"""A forward proxy that reaches the hosts of one scenario only: absolute targets, and tunnels by CONNECT."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlsplit

from fastoci.server.http import Listener, Peer, Request

Forward = Callable[[str, Request, Peer], Awaitable[bool]]


class Proxy:
    """Tells ``log`` of each request as it came, and ``forward`` the target's authority and the request for it."""

    def __init__(self, log: Callable[[Request], None], forward: Forward) -> None:
        self._log = log
        self._forward = forward
        self._listener = Listener(self._handle)

    async def start(self, bound: socket.socket) -> str:
        """Serve on a bound socket; its address."""
        await self._listener.start(bound)
        return "{}:{}".format(*bound.getsockname()[:2])

    async def aclose(self) -> None:
        """Serve no more."""
        await self._listener.aclose()

    async def _handle(self, request: Request, peer: Peer) -> bool:
        self._log(request)
        if request.method == "CONNECT":
            await _tunnel(request.target, peer)
            return False
        url = urlsplit(request.target)
        target = url.path + (f"?{url.query}" if url.query else "")
        own = ("proxy-authorization", "proxy-connection")
        headers = {name: value for name, value in request.headers.items() if name not in own}
        return await self._forward(url.netloc, replace(request, target=target, headers=headers), peer)


async def _tunnel(authority: str, peer: Peer) -> None:
    host, _, port = authority.rpartition(":")
    if not host.startswith("127."):
        raise ConnectionRefusedError("only the hosts of the scenario")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        await peer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        there = asyncio.ensure_future(_pump(peer.reader, writer))
        back = asyncio.ensure_future(_pump(reader, peer.writer))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
    finally:
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
