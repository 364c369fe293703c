"""Space that stays free beside a job: what nobody pinned makes way, no more than has to, and nothing in vain.

On a small file system in memory.

Covers: store/keep_free.py, store/gc/eviction.py.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fastoci import Engine, PrefetchRequest, PrefetchResult, WantedState
from fastoci.errors import StoreFullError
from fastoci.store.gc import collect
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry
from support.disks import mounted
from support.images import made

MIB = 1 << 20
DISK = 32 * MIB
SHARED = Layer.build(made(1, files=1, size=4 * MIB, compressibility=0.0), "gzip")
BUILT = [
    Image.build([Layer.build(made(10 + number, files=1, size=4 * MIB, compressibility=0.0), "gzip")])
    for number in range(5)
]
PAIR = [
    Image.build([SHARED, Layer.build(made(20 + number, files=1, size=10_000, compressibility=0.0), "gzip")])
    for number in range(2)
]


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as registry:
        for number, image in enumerate(BUILT):
            registry.add_image("app", str(number), image)
        for name, image in zip("ab", PAIR, strict=True):
            registry.add_image("app", name, image)
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs"):
        yield place / "store"


def request(registry: Registry, tag: int | str, *, pinned: bool = False) -> PrefetchRequest:
    return PrefetchRequest(f"{registry.address}/app:{tag}", pinned=pinned)


async def bring(engine: Engine, registry: Registry, *tags: int | str, state: WantedState) -> PrefetchResult:
    return await engine.prefetch([request(registry, tag) for tag in tags], state)


async def filled(engine: Engine, registry: Registry, *tags: int | str) -> None:
    """Pull images, each used a day later than the one before, and none of them now."""
    for number, tag in enumerate(tags):
        await engine.pull(f"{registry.address}/app:{tag}")
        await used(engine, registry, tag, 40 - number)


async def used(engine: Engine, registry: Registry, tag: int | str, days: int) -> None:
    """Make an image one that was used last so many days ago."""
    store = engine._open.store
    path = Path(store.paths.ref_path(f"{registry.address}/app:{tag}"))
    then = time.time() - days * 86_400
    os.utime(path, (then, then))


async def there(engine: Engine) -> str:
    return " ".join(image.name.rpartition(":")[2] for image in await engine.images())


def free(store: Path) -> int:
    found = os.statvfs(store)
    return found.f_bavail * found.f_frsize


def tags(result: PrefetchResult) -> list[str]:
    return [name.rpartition(":")[2] for name in result.evicted.images]


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """References count as settled at once."""
    monkeypatch.setattr(collect, "_SETTLED_NS", -(10**18))


async def test_nothing_goes_when_there_is_space(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 0, 1)
        result = await bring(engine, registry, 2, state=WantedState(keep_free=16 * MIB))
        assert result.evicted.items == ()
        assert await there(engine) == "0 1 2"


async def test_the_least_recently_used_goes_and_no_more_than_has_to(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 1, 0, 2, 3)
        state = WantedState(keep_free=free(store) - 2 * MIB)
        plan = await engine.plan_prefetch([request(registry, 4)], state)
        assert [name[-2:] for name in plan.evicted.images] == [":1"]
        assert await there(engine) == "0 1 2 3"
        result = await bring(engine, registry, 4, state=state)
        assert tags(result) == ["1"]
        assert await there(engine) == "0 2 3 4"
        assert free(store) >= state.keep_free
        assert {item.name for item in result.evicted.items} == {item.name for item in plan.evicted.items}


async def test_percent_is_of_the_file_system(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 0, 1, 2)
        result = await bring(engine, registry, 3, state=WantedState(keep_free_percent=60.0))
        assert tags(result) == ["0"]
        assert free(store) >= DISK * 60 // 100


async def test_what_no_image_needs_goes_before_any_image(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 0, 1, 2)
        await engine.remove(f"{registry.address}/app:1")
        result = await bring(engine, registry, 3, state=WantedState(keep_free=free(store) - 2 * MIB))
        assert tags(result) == []
        assert result.evicted.items
        assert await there(engine) == "0 2 3"


async def test_pinned_images_and_those_of_the_job_stay(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 0, 1, 2, 3)
        await engine.pin(f"{registry.address}/app:0")
        await used(engine, registry, 0, 50)
        result = await bring(engine, registry, 1, 4, state=WantedState(keep_free=free(store) - 2 * MIB))
        assert tags(result) == ["2"]
        assert [image.outcome for image in result.images] == ["present", "fetched"]
        assert await there(engine) == "0 1 3 4"


async def test_a_job_that_cannot_fit_fetches_nothing_and_evicts_nothing(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 0, 1, 2)
        await engine.pin(f"{registry.address}/app:1")
        registry.log.clear()
        state = WantedState(keep_free=29 * MIB)
        plan = await engine.plan_prefetch([request(registry, 3)], state)
        assert isinstance(plan.evicted.error, StoreFullError)
        result = await bring(engine, registry, 0, 3, state=state)
        assert await there(engine) == "0 1 2"
    error = result.images[1].error
    assert isinstance(error, StoreFullError)
    [requirement] = error.requirements
    assert requirement.needed == result.plan.missing_size > requirement.free == 0
    assert str(29 * MIB) in str(error)
    assert [image.outcome for image in result.images] == ["present", "failed"]
    assert not [record for record in registry.log if "/blobs/" in record.path]


async def test_an_image_whose_blobs_others_need_is_not_evicted_in_vain(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, "a", 0, "b")
        await engine.pin(f"{registry.address}/app:b")
        await used(engine, registry, "a", 60)
        result = await bring(engine, registry, 1, state=WantedState(keep_free=free(store) - 2 * MIB))
        assert tags(result) == ["0"]
        assert await there(engine) == "1 a b"


async def test_images_that_share_blobs_go_together_when_that_is_needed(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, "a", "b", 0)
        await engine.pin(f"{registry.address}/app:0")
        result = await bring(engine, registry, 1, state=WantedState(keep_free=free(store) - 2 * MIB))
        assert sorted(tags(result)) == ["a", "b"]
        assert await there(engine) == "0 1"


async def test_what_the_job_needs_of_an_image_that_goes_is_not_counted_and_stays(
    registry: Registry, store: Path
) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, "a", 0)
        registry.log.clear()
        result = await bring(engine, registry, "b", 1, state=WantedState(keep_free=free(store) - 2 * MIB))
        assert tags(result) == ["0"]
        assert [image.outcome for image in result.images] == ["fetched", "fetched"]
        asked = Counter(record.path.rpartition("/")[2] for record in registry.log if "/blobs/" in record.path)
        assert str(SHARED.descriptor.digest) not in asked


async def test_what_the_list_gives_up_goes_first_pinned_or_not(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 0)
        await engine.prefetch([request(registry, 1, pinned=True)], WantedState(list_name="prod"))
        state = WantedState(list_name="prod", prune=True, keep_free=free(store) - 2 * MIB)
        result = await bring(engine, registry, 2, state=state)
        assert tags(result) == ["1"]
        assert await there(engine) == "0 2"


async def test_what_an_incomplete_list_may_still_want_stays(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await engine.prefetch([request(registry, 0)], WantedState(list_name="prod"))
        await used(engine, registry, 0, 90)
        await filled(engine, registry, 1)
        state = WantedState(list_name="prod", prune=True, complete=False, keep_free=free(store) - 2 * MIB)
        result = await bring(engine, registry, 2, state=state)
        assert tags(result) == ["1"]
        assert await there(engine) == "0 2"


async def test_a_job_with_nothing_to_fetch_is_not_refused(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 0, 1)
        refused = await bring(engine, registry, 1, state=WantedState(keep_free=DISK))
        assert (refused.evicted.items, refused.evicted.error) == ((), None)
        assert [image.outcome for image in refused.images] == ["present"]
        result = await bring(engine, registry, 1, state=WantedState(keep_free=free(store) + 2 * MIB))
        assert tags(result) == ["0"]
        assert await there(engine) == "1"


async def test_a_blob_with_another_name_frees_nothing(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 0, 1)
        layer = BUILT[0].layers[0].descriptor.digest
        (store.parent / "link").hardlink_to(await engine.path(layer))
        result = await bring(engine, registry, 2, state=WantedState(keep_free=free(store) - 2 * MIB))
        assert tags(result) == ["1"]


async def test_files_that_are_unpacked_count_on_the_stores_disk(registry: Registry, store: Path) -> None:
    state = WantedState(keep_free=8 * MIB)
    async with Engine(store) as engine:
        await filled(engine, registry, 0, 1, 2)
        wanted = PrefetchRequest(f"{registry.address}/app:3", rootfs=str(store.parent / "root"))
        plan = await engine.plan_prefetch([wanted], state)
        assert plan.evicted.images or plan.evicted.error
        elsewhere = PrefetchRequest(f"{registry.address}/app:3", rootfs=str(store.parent.parent / "root"))
        assert (await engine.plan_prefetch([elsewhere], state)).evicted.items == ()


async def test_a_broken_reference_refuses_the_job(registry: Registry, store: Path) -> None:
    async with Engine(store) as engine:
        await filled(engine, registry, 0, 1)
        Path(engine._open.store.paths.ref_path(f"{registry.address}/app:0")).write_bytes(b"{")
        result = await bring(engine, registry, 2, state=WantedState(keep_free=free(store)))
        assert "is not a reference" in str(result.evicted.error)
        assert [image.outcome for image in result.images] == ["failed"]


@pytest.mark.parametrize("percent", [-1.0, 100.0, float("nan")], ids=["negative", "all", "none"])
def test_a_percentage_that_there_is_not_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="keep_free_percent"):
        WantedState(keep_free_percent=percent)
