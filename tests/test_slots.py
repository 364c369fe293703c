"""Slots by host and in total: a queue at one host holds up no other, and a task that goes leaves nothing taken."""

from __future__ import annotations

import asyncio

from fastoci.slots import Slots


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_waits_for_its_host_holds_none_of_the_total() -> None:
    slots = Slots(2, 1)
    await slots.take("dead")
    queue = [asyncio.create_task(slots.take("dead")) for _ in range(10)]
    await turn()
    async with asyncio.timeout(5), slots.held("alive"):
        pass
    for task in queue:
        task.cancel()
    await asyncio.gather(*queue, return_exceptions=True)


async def test_there_are_no_more_than_the_total_over_all_hosts() -> None:
    slots = Slots(2, 8)
    await slots.take("one")
    await slots.take("two")
    third = asyncio.create_task(slots.take("three"))
    await turn()
    assert not third.done()
    slots.give_back("one")
    await third


async def test_a_task_that_is_cancelled_while_it_waits_leaves_nothing_taken() -> None:
    slots = Slots(1, 1)
    await slots.take("one")
    waits = [asyncio.create_task(slots.take(host)) for host in ("one", "two")]
    await turn()
    for task in waits:
        task.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    slots.give_back("one")
    async with asyncio.timeout(5):
        for host in ("two", "one"):
            async with slots.held(host):
                pass
