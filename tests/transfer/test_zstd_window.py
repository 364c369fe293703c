"""Windows of zstd frames out of the memory budget: one layer at a time has large ones, and all come back."""

from __future__ import annotations

import asyncio

import pytest

from fastoci import _inflate
from fastoci._core import Pool
from fastoci.errors import UnsupportedError
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.zstd_window import WindowBudget

MIB = 1 << 20
RESERVE = 2 * MIB


async def test_a_window_that_grows_takes_the_difference_and_the_end_gives_all_back() -> None:
    buffers = Buffers(Pool(64 * MIB))
    with WindowBudget(buffers, reserve=RESERVE).share() as share:
        await share.take(16 * MIB)
        assert buffers.pool.aside == 16 * MIB + _inflate.WINDOW_OVERHEAD
        await share.take(32 * MIB)
        assert buffers.pool.aside == 32 * MIB + _inflate.WINDOW_OVERHEAD
    assert buffers.pool.aside == 0


async def test_a_second_layer_waits_for_the_first_ones_windows() -> None:
    buffers = Buffers(Pool(64 * MIB))
    budget = WindowBudget(buffers, reserve=RESERVE)
    order: list[str] = []

    async def layer() -> None:
        with budget.share() as share:
            await share.take(16 * MIB)
            order.append("second")

    with budget.share() as share:
        await share.take(16 * MIB)
        second = asyncio.create_task(layer())
        for _ in range(5):
            await asyncio.sleep(0)
        order.append("first")
    await second
    assert order == ["first", "second"]
    assert buffers.pool.aside == 0


async def test_a_usual_window_beyond_the_budget_is_granted_all_but_the_reserve() -> None:
    buffers = Buffers(Pool(16 * MIB))
    with WindowBudget(buffers, reserve=RESERVE).share() as share:
        await share.take(128 * MIB)
        assert buffers.pool.aside == 14 * MIB
    assert buffers.pool.aside == 0


async def test_a_larger_window_than_zstd_makes_is_refused_with_the_memory_that_would_do() -> None:
    buffers = Buffers(Pool(64 * MIB))
    with (
        WindowBudget(buffers, reserve=RESERVE).share() as share,
        pytest.raises(UnsupportedError, match=r"demands a window of 1073741824 bytes.*--memory 102[0-9]MiB would do"),
    ):
        await share.take(1 << 30)
    assert buffers.pool.aside == 0
