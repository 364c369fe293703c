"""An engine that is left while jobs run: each ends, says why, and leaves nothing half made; the next run goes on.

Covers: engine_parts.py.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest
import uvloop

import fastoci
from fastoci.jobs.image import Image
from fastoci.jobs.running import RunningJobs
from fastoci.testing.layers import Entry
from fastoci.testing.registry import Registry
from support.images import image_of, made, same

uvloop.new_event_loop().close()  # opens a pipe for the life of the process, which is no test's leak

LAYERS = (made(1, files=4, size=600_000), made(2, files=3, size=100_000), made(3, files=3, size=100_000))
PULLS = 8

Loop = Callable[[Coroutine[object, object, object]], object]


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as registry:
        for number in range(PULLS):
            registry.add_image("app", str(number), image_of(*LAYERS, own(number)))
        yield registry


def own(number: int) -> list[Entry]:
    return [Entry(f"own{number}", data=bytes([number]) * 1000)]


async def leave(registry: Registry, root: Path, after_s: float) -> int:
    """Leave an engine while it unpacks; how many of its pulls had not ended."""
    async with fastoci.Engine(root / "store") as engine:
        names = [f"{registry.address}/app:{number}" for number in range(PULLS)]
        await engine.pull(names[0])
        pulls = [asyncio.create_task(engine.pull(name, rootfs=root / str(number))) for number, name in enumerate(names)]
        await asyncio.sleep(after_s)
    assert all(pull.done() for pull in pulls)
    errors = [error for pull in pulls if (error := pull.exception()) is not None]
    for error in errors:
        assert isinstance(error, RuntimeError)
        assert "the engine was left" in str(error)
    return len(errors)


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_pulls_end_with_their_engine_at_whatever_instant_and_the_next_run_goes_on(tmp_path: Path, loop: Loop) -> None:
    async def run() -> None:
        async with Registry() as registry:
            for number in range(PULLS):
                registry.add_image("app", str(number), image_of(*LAYERS, own(number)))
            ended = [await leave(registry, tmp_path / str(instant), 0.04 * instant) for instant in range(8)]
            assert ended[0] == PULLS
            async with fastoci.Engine(tmp_path / "2" / "store") as engine:
                for number in range(PULLS):
                    root = tmp_path / "2" / str(number)
                    await engine.pull(f"{registry.address}/app:{number}", rootfs=root)
                    assert same(root, *LAYERS, own(number))
            assert [path.name for path in (tmp_path / "2").iterdir() if path.name.endswith(".fastoci")] == []

    loop(run())


async def test_an_image_of_an_engine_that_is_left_stops_unpacking(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "store") as engine:
        image = await engine.pull(f"{registry.address}/app:1")
        unpack = asyncio.create_task(image.unpack(tmp_path / "root"))
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="left while this job ran"):
        await unpack
    assert not (tmp_path / "root").exists()
    with pytest.raises(RuntimeError, match="inside `async with Engine"):
        await image.unpack(tmp_path / "root")


async def test_who_cancels_a_job_sees_it_cancelled_although_its_engine_is_left(
    registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path / "store") as engine:
        pull = asyncio.create_task(engine.pull(f"{registry.address}/app:1"))
        await asyncio.sleep(0)
        pull.cancel()
    assert pull.cancelled()


async def test_a_task_goes_on_after_its_job_was_ended() -> None:
    """What ``end`` cancels is the job: the task that did it is not left cancelled."""
    running, done = RunningJobs(), asyncio.Event()

    async def task() -> str:
        with pytest.raises(RuntimeError, match="left"), running.job(), running.job():
            await done.wait()
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        return "went on"

    doing = asyncio.create_task(task())
    await asyncio.sleep(0)
    assert not await running.end()
    assert await doing == "went on"
    with pytest.raises(RuntimeError, match="left"), running.job():
        raise AssertionError


async def test_a_task_that_is_cancelled_while_it_leaves_waits_and_says_so() -> None:
    running, may_end = RunningJobs(), asyncio.Event()

    async def slow() -> None:
        with running.job():
            try:
                await asyncio.Event().wait()
            finally:
                await may_end.wait()

    doing = asyncio.create_task(slow())
    await asyncio.sleep(0)
    leaving = asyncio.create_task(running.end())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    assert not leaving.done()
    may_end.set()
    assert await leaving
    with pytest.raises(RuntimeError, match="left"):
        await doing


def test_all_that_an_engine_and_an_image_do_are_jobs() -> None:
    methods = [
        method
        for owner in (fastoci.Engine, Image)
        for name, method in inspect.getmembers(owner, inspect.iscoroutinefunction)
        if not name.startswith("_")
    ]
    assert len(methods) > 24
    assert [method.__qualname__ for method in methods if method.__code__.co_name != "run"] == []
