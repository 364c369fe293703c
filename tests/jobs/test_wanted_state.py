"""A list as the wanted state: what a run of it brought goes when it is no longer on it, and nothing else does.

Covers: jobs/wanted_state.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastoci import Engine, PrefetchRequest, PrefetchResult, WantedState
from fastoci.errors import StoreBusyError
from fastoci.image.digest import Digest
from fastoci.server.pull_api import Content, Document
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry
from support.images import made

IMAGES = 4
BASE = made(1, files=2, size=50_000)
BUILT = [
    Image.build([Layer.build(BASE, "gzip"), Layer.build(made(10 + number, files=2, size=9_000), "gzip")])
    for number in range(IMAGES)
]
PROD = WantedState(list_name="prod", prune=True)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as registry:
        for number, image in enumerate(BUILT):
            registry.add_image("app", str(number), image)
        yield registry


def name(registry: Registry, tag: int | str) -> str:
    return f"{registry.address}/app:{tag}"


def requests(registry: Registry, *tags: int | str, pinned: bool = False) -> list[PrefetchRequest]:
    return [PrefetchRequest(name(registry, tag), pinned=pinned) for tag in tags]


async def there(engine: Engine) -> dict[str, bool]:
    """The tags of the images that are there, and whether they are pinned."""
    return {image.name.rpartition(":")[2]: image.pinned for image in await engine.images()}


def tags(names: Sequence[str]) -> list[str]:
    return [each.rpartition(":")[2] for each in names]


async def run(
    engine: Engine, registry: Registry, *wanted: int | str, pinned: bool = False, state: WantedState = PROD
) -> PrefetchResult:
    return await engine.prefetch(requests(registry, *wanted, pinned=pinned), state)


async def test_what_is_no_longer_on_the_list_goes_and_what_others_pulled_stays(
    registry: Registry, tmp_path: Path
) -> None:
    async with Engine(tmp_path) as engine:
        await engine.pull(name(registry, 0))
        await run(engine, registry, 0, 1, 2)
        plan = await engine.plan_prefetch(requests(registry, 2), PROD)
        assert tags(plan.pruned.removed) == ["1"]
        assert (await there(engine)).keys() == {"0", "1", "2"}
        result = await run(engine, registry, 2)
        assert result.pruned == plan.pruned
        assert await there(engine) == {"0": False, "2": False}
        assert (await run(engine, registry, 2)).pruned.removed == ()


async def test_without_prune_nothing_goes_and_a_later_prune_knows_all_runs(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        for number in range(3):
            await run(engine, registry, number, state=WantedState(list_name="prod"))
        assert (await there(engine)).keys() == {"0", "1", "2"}
        await run(engine, registry, 3)
        assert (await there(engine)).keys() == {"3"}


async def test_lists_do_not_take_each_others_images(registry: Registry, tmp_path: Path) -> None:
    test = WantedState(list_name="test", prune=True)
    async with Engine(tmp_path) as engine:
        await run(engine, registry, 0, 1)
        await run(engine, registry, 1, 2, state=test)
        await run(engine, registry, 0)
        assert (await there(engine)).keys() == {"0", "1", "2"}
        await run(engine, registry, 2, state=test)
        assert (await there(engine)).keys() == {"0", "2"}


async def test_a_pull_since_makes_an_image_the_users(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        await run(engine, registry, 0, 1, 2)
        await engine.pull(name(registry, 0))
        await engine.prefetch(requests(registry, 1))
        await run(engine, registry, 3)
        assert (await there(engine)).keys() == {"0", "1", "3"}


async def test_the_list_pins_what_it_wants_pinned_and_lets_go_only_of_that(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        for number in (0, 1):
            await engine.pull(name(registry, number))
        await engine.pin(name(registry, 0))
        await run(engine, registry, 0, 1, 2, 3, pinned=True)
        assert await there(engine) == {"0": True, "1": True, "2": True, "3": True}
        await engine.pin(name(registry, 3))
        result = await run(engine, registry, 2)
        assert await there(engine) == {"0": True, "1": False, "2": False, "3": True}
        assert tags(result.pruned.unpinned) == ["1", "2"]


async def test_an_image_that_fails_stays_and_those_off_the_list_go(tmp_path: Path) -> None:
    class Losing(Registry):
        lost = False

        async def manifest(self, name: str, reference: str) -> Document | None:
            return None if self.lost and reference == "0" else await super().manifest(name, reference)

    async with Losing() as registry, Engine(tmp_path) as engine:
        for number, image in enumerate(BUILT):
            registry.add_image("app", str(number), image)
        await run(engine, registry, 0, 1, 2)
        registry.lost = True
        result = await run(engine, registry, 0, 2, "absent")
        assert [image.outcome for image in result.images] == ["present", "failed", "failed"]
        assert (await there(engine)).keys() == {"0", "2"}
        assert tags(result.pruned.removed) == ["1"]


@pytest.mark.parametrize(
    ("extra", "complete", "why"),
    [("NOT A NAME", True, "1 of its names cannot be read"), ("", False, "the list could not be read whole")],
    ids=["a name that cannot be read", "a list that could not be read"],
)
async def test_a_list_with_problems_prunes_nothing_and_says_why(
    registry: Registry, tmp_path: Path, extra: str, complete: bool, why: str
) -> None:
    state = WantedState(list_name="prod", prune=True, complete=complete)
    async with Engine(tmp_path) as engine:
        await run(engine, registry, 0, 1)
        wanted = [*requests(registry, 0), *([PrefetchRequest(extra)] if extra else [])]
        assert (await engine.plan_prefetch(wanted, state)).pruned.withheld == why
        assert (await engine.prefetch(wanted, state)).pruned.withheld == why
        assert (await there(engine)).keys() == {"0", "1"}


async def test_a_job_that_ends_at_its_first_failure_prunes_nothing(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        await run(engine, registry, 0, 1)
        result = await engine.prefetch(requests(registry, 0, "absent"), PROD, fail_fast=True)
        assert result.pruned.withheld
        assert (await there(engine)).keys() == {"0", "1"}


async def test_an_empty_list_prunes_only_when_that_is_meant(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        await run(engine, registry, 0, 1)
        for work in (engine.prefetch, engine.plan_prefetch):
            with pytest.raises(ValueError, match="an empty list would prune all that it brought"):
                await work([], PROD)
        assert (await there(engine)).keys() == {"0", "1"}
        result = await engine.prefetch([], WantedState(list_name="prod", prune=True, allow_empty=True))
        assert tags(result.pruned.removed) == ["0", "1"]
        assert await there(engine) == {}


async def test_gc_deletes_at_once_what_the_list_gave_up_and_keeps_what_failed_images_have(
    registry: Registry, tmp_path: Path
) -> None:
    lost = BUILT[2].layers[1].descriptor.digest
    registry.remove_blob(str(lost))
    async with Engine(tmp_path) as engine:
        await run(engine, registry, 0, 1)
        result = await run(engine, registry, 0, 2, state=WantedState(list_name="prod", prune=True, gc=True))
        there_now = {path.name for path in (tmp_path / "blobs" / "sha256").iterdir()}
    own = {blob.digest.hex for blob, _ in BUILT[1].blobs()} - {blob.digest.hex for blob, _ in BUILT[0].blobs()}
    assert own
    assert there_now.isdisjoint(own)
    assert {item.name.partition(":")[2] for item in result.pruned.deleted} >= own
    assert Digest.of(BUILT[2].config, "sha256").hex in there_now


async def test_two_jobs_of_a_list_do_not_run_at_once(tmp_path: Path) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    class Slow(Registry):
        async def blob(self, name: str, digest: str) -> Content | None:
            if name == "app":
                began.set()
                await go.wait()
            return await super().blob(name, digest)

    async with Slow() as registry, Engine(tmp_path) as engine, Engine(tmp_path) as other:
        registry.add_image("app", "0", BUILT[0])
        registry.add_image("quick", "1", BUILT[1])
        first = asyncio.create_task(run(engine, registry, 0))
        await began.wait()
        quick = [PrefetchRequest(f"{registry.address}/quick:1")]
        with pytest.raises(StoreBusyError, match="another job of the list prod is at work"):
            await other.prefetch([], WantedState(list_name="prod", prune=True, allow_empty=True))
        plan = await other.plan_prefetch(quick, WantedState(list_name="test", prune=True))
        assert len(plan.images) == 1
        go.set()
        await first
        assert (await there(other)).keys() == {"0"}
        await other.prefetch(quick, PROD)
        assert (await there(other)).keys() == {"1"}


@pytest.mark.parametrize("bad", ["-x", "a b", "x" * 129, "a\nb", "\u00e4"], ids=repr)
def test_a_list_name_is_a_plain_word(bad: str) -> None:
    with pytest.raises(ValueError, match="is no name of a list"):
        WantedState(list_name=bad)


def test_prune_without_a_list_name_is_refused() -> None:
    with pytest.raises(ValueError, match="prune needs a list_name"):
        WantedState(prune=True)


@pytest.mark.parametrize("field", ["prune", "complete", "allow_empty", "gc"])
def test_a_wish_that_is_no_bool_is_told_where_it_is_made(field: str) -> None:
    wish: dict[str, Any] = {field: "no"}
    with pytest.raises(TypeError, match=f"{field}: expected bool, got str 'no'"):
        WantedState(list_name="prod", **wish)
