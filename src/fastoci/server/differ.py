"""The differ's socket: containerd's proxy plugin of type "diff" connects to it.

containerd gives a plugin about a second from its connection to the first bytes of HTTP/2, however busy the machine is,
and a differ that its socket starts has to begin in that time. So what does the work is imported when it is asked for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastoci.containerd import methods
from fastoci.containerd.rpc import Call, Peer, Server
from fastoci.limits import Limits

if TYPE_CHECKING:
    from fastoci.server.diff_service import DiffService
    from fastoci.server.served import Served

_GRACE_S: Final = 600.0  # for layers under way; a service manager kills sooner


class Differ:
    """Serves until ``stop``, on one event loop.

    Args:
        address: the socket of the containerd that asks.
        observer: is told of each call when it has ended.
    """

    def __init__(self, address: Path, limits: Limits, observer: Callable[[Served], object]) -> None:
        self._address = address
        self._limits = limits
        self._observe = observer
        self._made: DiffService | None = None
        self._server = Server({methods.APPLY: self._apply, methods.DIFF: self._diff}, allow=_is_allowed)

    @property
    def under_way(self) -> int:
        """How many calls have not ended."""
        return 0 if self._made is None else self._made.under_way

    async def serve(self, listener: socket.socket) -> None:
        """Answer those who connect, until ``stop``; then wait for the calls under way."""
        try:
            await self._server.serve(listener, grace_s=_GRACE_S)
        finally:
            if self._made is not None:
                await self._made.close()

    def stop(self) -> None:
        """Take no more calls."""
        self._server.stop()

    async def _apply(self, call: Call) -> bytes:
        return await self._service().apply(call)

    async def _diff(self, call: Call) -> bytes:
        return await self._service().diff(call)

    def _service(self) -> DiffService:
        if self._made is None:
            from fastoci.server.diff_service import DiffService

            self._made = DiffService(self._address, self._limits, self._observe)
        return self._made


def _is_allowed(peer: Peer) -> bool:
    """Whoever connects can write files as this user: so root, and this user."""
    return peer.uid in (0, os.geteuid())
