"""Hosts that serve nothing: one completes no connection, one resets each at its first byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Final

_FILLERS: Final = 3


class DeadHost:
    """A bound address where SYNs are dropped, because the queue of connections to accept is full."""

    def __init__(self, bound: socket.socket) -> None:
        self._sockets = [bound]

    async def start(self) -> None:
        """Fill the queue."""
        bound = self._sockets[0]
        bound.listen(0)
        for _ in range(_FILLERS):
            filler = socket.socket(bound.family, socket.SOCK_STREAM)
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(bound.getsockname())
            self._sockets.append(filler)

    async def aclose(self) -> None:
        """Give up the address."""
        for each in self._sockets:
            each.close()


class Resetter:
    """Resets each connection at its first byte."""

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._connected, sock=self._bound)

    async def aclose(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # the client was quicker
        finally:
            writer.transport.abort()
