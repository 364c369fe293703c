"""Names of hosts to addresses, within a deadline, on threads that nothing waits for.

The name service of the C library cannot be stopped, and may take minutes when its servers are silent. A thread of the
loop's executor, or of uvloop's, would keep the program from its end as long: so each lookup has a thread of its own,
which is left to itself when nobody wants the answer any more.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

from aiohttp.abc import AbstractResolver, ResolveResult

from fastoci.registry.http.address_policy import AddressScope, scope_of


class Resolver(AbstractResolver):
    """Looks up names; notes in ``seen`` how far the farthest address of each host is."""

    def __init__(self, seen: dict[str, AddressScope] | None, timeout_s: float) -> None:
        self._seen = seen
        self._timeout_s = timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Look a name up on a thread.

        Raises:
            TimeoutError: it took too long.
            OSError: it has no address.
        """
        async with asyncio.timeout(self._timeout_s):
            found = await _on_a_thread(host, port, family)
        if self._seen is not None and found:
            self._seen[host.lower()] = min(scope_of(result["host"]) for result in found)
        return found

    async def close(self) -> None:
        """Nothing is open."""


async def _on_a_thread(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[ResolveResult]] = loop.create_future()

    def deliver(found: list[ResolveResult], error: Exception | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def work() -> None:
        found: list[ResolveResult] = []
        error: Exception | None = None
        try:
            found = _look_up(host, port, family)
        except Exception as cause:
            error = cause
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(deliver, found, error)

    threading.Thread(target=work, name="fastoci-lookup", daemon=True).start()
    return await answer


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    """The addresses for TCP, of the kinds that this machine has, as the name service orders them."""
    found = []
    kind = socket.SOCK_STREAM
    for each, _, protocol, _, address in socket.getaddrinfo(host, port, family, kind, flags=socket.AI_ADDRCONFIG):
        # The numeric host, with the interface of an address that is of one link.
        numeric, _port = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        found.append(ResolveResult(hostname=host, host=numeric, port=port, family=each, proto=protocol, flags=flags))
    return found
