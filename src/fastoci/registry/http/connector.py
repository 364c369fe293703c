"""The pool of connections: what is checked before one is handed out, and how long it may take to make.

Which session uses which pool is ``transport``'s.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from fastoci.registry.http.address_policy import AddressScope, scope_of
from fastoci.registry.http.aiohttp_errors import BlockedAddressError
from fastoci.registry.http.aiohttp_protocol import ClientProtocol
from fastoci.registry.http.first_byte import Silence
from fastoci.registry.http.servers import Servers
from fastoci.registry.http.urls import Origin
from fastoci.slots import Slots

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h; the socket module has no name for it
_CONNECTS: Final = 3  # times ``connect_s`` for the name, and two addresses that do not speak TLS

_AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


class RequestTimeout(aiohttp.ClientTimeout):
    """What aiohttp hands through to the connector with a request. Who reads a body has a deadline of its own."""

    def __init__(self, silence: Silence, connect_s: float) -> None:
        super().__init__(total=None, sock_connect=connect_s)
        object.__setattr__(self, "silence", silence)  # the base is frozen


class Connector(aiohttp.TCPConnector):
    """A pool that never hands out a connection on which an answer waits that nobody asked for.

    Args:
        servers: which of them want a pause.
        max_wait_s: a longer wait is an error.
        notes: whether it is noted there if a host can be connected to.
        read_s: how long a proxy may take to reach a host.
        slots: the connections of all pools together; None where nothing limits them.
    """

    def __init__(
        self,
        servers: Servers,
        max_wait_s: float,
        *,
        notes: bool,
        read_s: float,
        slots: Slots | None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._servers = servers
        self._max_wait_s = max_wait_s
        self._notes = notes
        self._slots = slots
        loop = asyncio.get_running_loop()
        factory: functools.partial[Any] = functools.partial(ClientProtocol, loop=loop, proxy_s=read_s)
        self._factory = factory
        self._read_s = read_s

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> aiohttp.connector.Connection:
        slots, host = self._slots, str(req.url.origin())
        if slots is None:
            return await self._checked(req, traces, timeout)
        await slots.take(host)
        try:
            connection = await self._checked(req, traces, timeout)
        except BaseException:
            slots.give_back(host)
            raise
        connection.add_callback(functools.partial(slots.give_back, host))  # called once, when it is let go of
        return connection

    async def _checked(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> aiohttp.connector.Connection:
        """A connection that may be used at once."""
        server = self._servers.of(Origin.of(req.url))
        known = server.unresponsive
        spoiled = 0
        while True:
            async with server.connecting(aiohttp.ClientError, OSError) if self._notes else nullcontext():
                connection = await super().connect(req, traces, timeout)
            server.speaks_scheme |= req.url.scheme == "https"
            if connection.protocol is not None and connection.protocol.should_close:
                connection.close()
                spoiled += 1
                if spoiled > self.limit_per_host:  # so this one was new: the server speaks before it is asked
                    raise aiohttp.ClientConnectionError
            elif server.unresponsive and not known:
                # Those before it have waited for nothing: it need not, too.
                connection.release()
                raise aiohttp.SocketTimeoutError
            elif server.closed:
                # It answered another request so, while this one waited for a connection.
                connection.release()
                await server.wait_until_allowed(self._max_wait_s, manifest=False)
            else:
                if isinstance(connection.protocol, ClientProtocol):
                    connection.protocol.silence = getattr(timeout, "silence", None)
                return connection

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> aiohttp.client_proto.ResponseHandler:
        """Look a name up and connect, with a deadline for all of it: a name may have any number of addresses."""
        within_s = _CONNECTS * (timeout.sock_connect or 0.0) + (self._read_s if req.proxy else 0.0)
        async with asyncio.timeout(within_s):
            return await super()._create_connection(req, traces, timeout)


def new_socket(reach: AddressScope | None, receives: int | None, address: _AddressInfo) -> socket.socket:
    """A socket for an address that is about to be connected to: the last check of it, after the name service.

    Args:
        receives: bytes that the system may receive before they are read; None is as many as it sees fit. Bytes that
            nobody has read yet were sent all the same: of eight connections that may be a second's worth of a rate.
    """
    family, kind, protocol, _, target = address
    if reach is not None and (scope := scope_of(target[0])) > reach:
        raise BlockedAddressError(scope)
    made = socket.socket(family, kind, protocol)
    if receives is not None:
        with suppress(OSError):  # who may not have so many leaves it to the system: fewer would be slower than the rate
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receives)
    return made
