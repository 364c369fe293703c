"""What is told of a blob that comes slowly: steps of less than a buffer.

Covers: registry/fetch/arrival.py.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from fastoci import Engine, Limits
from fastoci.events import BlobProgress, BlobReceived, Event
from fastoci.testing.faults import FaultServer, Rule, Scenario, Tweak

RATE = 400_000
SIZE = 900_000
SLOW = Scenario("T", "a slow link", "", "ok", rules=(Rule("layer", Tweak(rate=RATE)),), layer=SIZE)


async def test_a_slow_blob_is_told_twice_a_second_in_steps_below_a_buffer(tmp_path: Path) -> None:
    told: list[Event] = []
    async with FaultServer(SLOW) as server, Engine(tmp_path, observer=told.append) as engine:
        await engine.pull(server.image)
    sizes = [event.size for event in told if isinstance(event, BlobReceived)]
    assert len(sizes) >= 2
    assert all(0 < second - first < SIZE // 2 for first, second in itertools.pairwise([0, *sizes]))
    written = [event.offset for event in told if isinstance(event, BlobProgress)]
    assert max(written) >= max(sizes)


async def test_a_blob_that_comes_at_once_is_told_by_what_is_written(tmp_path: Path) -> None:
    told: list[Event] = []
    async with FaultServer(Scenario("T", "well", "", "ok")) as server, Engine(tmp_path, observer=told.append) as engine:
        await engine.pull(server.image)
    assert any(isinstance(event, BlobProgress) for event in told)
    assert sum(isinstance(event, BlobReceived) for event in told) <= 2


async def test_bytes_of_ranges_ahead_of_their_turn_are_told(tmp_path: Path) -> None:
    """Each connection is slow: what comes by all of them counts, in whatever order."""
    told: list[Event] = []
    plan = Scenario("T", "slow connections", "", "ok", rules=(Rule("layer", Tweak(rate=8 << 20)),), layer=48 << 20)
    async with (
        FaultServer(plan) as server,
        Engine(tmp_path, limits=Limits(connections=4), observer=told.append) as engine,
    ):
        await engine.pull(server.image)
    ahead = 0
    written: dict[str, int] = {}
    for event in told:
        if isinstance(event, BlobProgress):
            written[event.blob] = event.offset
        elif isinstance(event, BlobReceived):
            ahead = max(ahead, event.size - written.get(event.blob, 0))
    assert ahead > 2 << 20
