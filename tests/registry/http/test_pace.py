"""A shared rate, in virtual time: kept over any five seconds, shared evenly, not used by who is cancelled."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter

import pytest

from fastoci.registry.http.connector import new_socket
from fastoci.registry.http.pace import BURST_S, Pace
from fastoci.registry.http.servers import Servers
from support import virtual_time

RATE = 1_000_000
PIECE = RATE // 50
STEPS = 100_000
WINDOW_S = 5.0


@pytest.mark.parametrize("users", [1, 8])
def test_a_rate_is_kept_over_any_five_seconds_and_shared_evenly(users: int, monkeypatch: pytest.MonkeyPatch) -> None:
    moments, taken = list[tuple[float, int]](), Counter[int]()

    async def work() -> None:
        pace, end = Pace(RATE), time.monotonic() + 8

        async def use(number: int) -> None:
            while time.monotonic() < end:
                await pace.use(PIECE)
                moments.append((time.monotonic(), PIECE))
                taken[number] += PIECE

        await asyncio.gather(*map(use, range(users)))

    virtual_time.run(work(), monkeypatch, steps=STEPS)
    for start in (moments[0][0] + step / 4 for step in range(12)):
        size = sum(piece for moment, piece in moments if start <= moment < start + WINDOW_S)
        assert size == pytest.approx(RATE * WINDOW_S, rel=0.05)
    assert max(taken.values()) - min(taken.values()) <= RATE * BURST_S + PIECE  # the first finds what nobody used


def test_what_nobody_used_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> float:
        pace = Pace(RATE)
        await pace.use(1)
        await asyncio.sleep(60)
        begun = time.monotonic()
        for _ in range(20):
            await pace.use(RATE / 10)
        return time.monotonic() - begun

    assert virtual_time.run(work(), monkeypatch, steps=STEPS) == pytest.approx(1.8, abs=0.11)


def test_who_is_cancelled_while_it_waits_has_used_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> float:
        pace = Pace(1)
        await pace.use(1)
        waiting = [asyncio.create_task(pace.use(100)) for _ in range(10)]
        await asyncio.sleep(0.1)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        begun = time.monotonic()
        await pace.use(1)
        return time.monotonic() - begun

    assert virtual_time.run(work(), monkeypatch, steps=STEPS) < 1.0


def test_the_time_in_which_somebody_waits_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> tuple[float, float]:
        pace = Pace(10)
        await pace.use(1)
        await asyncio.sleep(5)
        idle = pace.waited_s()
        await asyncio.gather(*(pace.use(10) for _ in range(4)))
        return idle, pace.waited_s()

    idle, waited = virtual_time.run(work(), monkeypatch, steps=STEPS)
    assert idle == 0.0
    assert waited == pytest.approx(2.9, abs=0.11)


def test_beside_a_bandwidth_connections_hold_little_that_nobody_has_read() -> None:
    """What the system receives ahead was sent all the same: of all connections together a fifth of a second's worth."""
    assert Servers(maximum=8).receive_buffer is None
    assert Servers(maximum=8, bandwidth=50_000_000).receive_buffer == 1_250_000
    assert Servers(maximum=8, bandwidth=1000).receive_buffer == 64 << 10
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
    with new_socket(None, 2_000_000, address) as limited, new_socket(None, None, address) as free:
        sizes = [each.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for each in (limited, free)]
    assert sizes[0] in (
        4_000_000,
        sizes[1],
    )  # twice, for what the system needs; as root
