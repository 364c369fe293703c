"""What one request learns of a server, and what it keeps to itself."""

from __future__ import annotations

import asyncio

import pytest

from fastoci.registry.http.servers import Servers
from fastoci.registry.http.urls import Origin

ORIGIN = Origin("https", "registry.test", 443)


async def attempts(error: Exception) -> tuple[list[BaseException | None], int]:
    """How two attempts to connect end, of which the first raises; and how many were made."""
    server = Servers().of(ORIGIN)
    made = 0

    async def connect() -> None:
        nonlocal made
        async with server.connecting(OSError):
            made += 1
            await asyncio.sleep(0)
            if made == 1:
                raise error

    ends = await asyncio.gather(connect(), connect(), return_exceptions=True)
    return list(ends), made


async def test_a_refused_connection_is_found_out_once_for_all_who_wait() -> None:
    refused = ConnectionRefusedError()
    assert await attempts(refused) == ([refused, refused], 1)


async def test_what_nobody_expected_is_the_error_of_the_one_whom_it_happened_to() -> None:
    unexpected = KeyError("it")
    assert await attempts(unexpected) == ([unexpected, None], 2)


async def test_an_attempt_that_is_cancelled_leaves_the_next_to_the_others() -> None:
    server = Servers().of(ORIGIN)
    gate = asyncio.Event()

    async def connect() -> None:
        async with server.connecting(OSError):
            await gate.wait()

    first, second = asyncio.create_task(connect()), asyncio.create_task(connect())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    async with asyncio.timeout(20):
        await second
    with pytest.raises(asyncio.CancelledError):
        await first
