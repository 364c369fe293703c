"""Many images as one job: each unique blob once, each image as soon as it is whole, and one failure harms no other.

Covers: jobs/prefetch.py, jobs/prefetch_plan.py, jobs/prefetch_planning.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastoci import Engine, Limits, ListProblem, PrefetchRequest
from fastoci.errors import NotFoundError, PlatformError, ReferenceSyntaxError, StoreFullError
from fastoci.events import (
    BlobDone,
    Event,
    ImageDone,
    ImageFailed,
    ImagePlanned,
    ImageResolved,
    ImageStarted,
    JobDone,
    JobPlanned,
    JobStarted,
)
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform
from fastoci.jobs.prefetch_planning import merge
from fastoci.server.pull_api import Content
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry
from support.images import made, same

IMAGES = 6
BASE = made(1, files=4, size=200_000)


def own(number: int) -> list[Entry]:
    return made(10 + number, files=2, size=30_000 * (IMAGES - number))


BUILT = [Image.build([Layer.build(BASE, "gzip"), Layer.build(own(number), "gzip")]) for number in range(IMAGES)]
SHARED = BUILT[0].layers[0].descriptor


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as registry:
        for number, image in enumerate(BUILT):
            registry.add_image("app", str(number), image)
        yield registry


def requests(registry: Registry, *numbers: int, **more: object) -> list[PrefetchRequest]:
    return [
        PrefetchRequest(f"{registry.address}/app:{number}", origin=f"list:{number + 1}", **more)  # type: ignore[arg-type]
        for number in numbers
    ]


def blobs_asked(registry: Registry) -> Counter[str]:
    return Counter(record.path.rpartition("/")[2] for record in registry.log if "/blobs/" in record.path)


async def test_each_unique_blob_is_fetched_once_and_every_image_is_there(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path / "store") as engine:
        result = await engine.prefetch(requests(registry, *range(IMAGES)))
        assert set(blobs_asked(registry).values()) == {1}
        assert [image.outcome for image in result.images] == ["fetched"] * IMAGES
        assert [image.digest for image in result.images] == [str(image.descriptor.digest) for image in BUILT]
        assert sum(image.fetched for image in result.images) == result.plan.missing_size
        assert {blob.digest for blob in result.blobs} == {str(blob.digest) for blob in result.plan.missing}
        for number in range(IMAGES):
            image = await engine.image(f"{registry.address}/app:{number}")
            await image.unpack(tmp_path / str(number))
            assert same(tmp_path / str(number), BASE, own(number))


async def test_a_second_run_asks_for_no_blob_and_no_body(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        await engine.prefetch(requests(registry, *range(IMAGES)))
    registry.log.clear()
    async with Engine(tmp_path) as engine:
        result = await engine.prefetch(requests(registry, *range(IMAGES)))
    assert [image.outcome for image in result.images] == ["present"] * IMAGES
    assert {record.method for record in registry.log if "/manifests/" in record.path} == {"HEAD"}
    assert blobs_asked(registry) == Counter()


async def test_what_is_pinned_by_digest_and_there_costs_no_request(registry: Registry, tmp_path: Path) -> None:
    wanted = [PrefetchRequest(f"{registry.address}/app@{image.descriptor.digest}") for image in BUILT]
    async with Engine(tmp_path) as engine:
        await engine.prefetch(wanted)
        registry.log.clear()
        result = await engine.prefetch(wanted)
    assert [image.outcome for image in result.images] == ["present"] * IMAGES
    assert registry.log == []


async def test_a_plan_fetches_no_blob_and_says_what_would_be_fetched(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        await engine.pull(f"{registry.address}/app:0")
        registry.log.clear()
        plan = await engine.plan_prefetch(requests(registry, *range(IMAGES)))
        assert blobs_asked(registry) == Counter()
        assert {image.name for image in await engine.images()} == {f"{registry.address}/app:0"}
    blobs = {blob.digest: blob.size for image in BUILT for blob, _ in image.blobs()}
    there = {blob.digest for blob, _ in BUILT[0].blobs()}
    to_fetch = sum(size for digest, size in blobs.items() if digest not in there)
    assert plan.missing_size == to_fetch
    assert plan.by_registry == {registry.address: to_fetch}
    assert plan.shared_size == (IMAGES - 1) * SHARED.size
    assert plan.size == sum(blobs.values()) + sum(len(image.manifest) for image in BUILT)
    assert [image.missing == 0 for image in plan.images] == [True] + [False] * (IMAGES - 1)
    assert plan.requests == IMAGES + len(plan.missing)


async def test_the_requests_of_a_plan_are_those_that_the_job_sends(registry: Registry, tmp_path: Path) -> None:
    registry.add_image("app", "both", Index.build([BUILT[0], Image.build([], platform=Platform("linux", "riscv64"))]))
    named = PrefetchRequest(f"{registry.address}/app:both", ("all",))
    by_digest = PrefetchRequest(f"{registry.address}/app@{BUILT[2].descriptor.digest}")
    typo, no_name = ListProblem("list:7", "'pni' is not known"), PrefetchRequest("NOT A NAME", origin="list:8")
    absent = PrefetchRequest(f"{registry.address}/app:absent")
    asked = (named, by_digest, absent, typo, no_name)
    for _ in ("all is missing", "all is there"):
        registry.log.clear()
        async with Engine(tmp_path) as engine:
            result = await engine.prefetch(asked)
        asked_for = [record.path for record in registry.log if record.path != "/v2/"]  # which logins of many begin with
        assert len(asked_for) == result.plan.requests
    assert result.plan.requests == 2  # one for each tag


async def test_one_broken_image_stops_no_other_and_each_line_has_its_fate(registry: Registry, tmp_path: Path) -> None:
    broken = BUILT[2].layers[1].descriptor.digest
    registry.remove_blob(str(broken))
    asked = [
        *requests(registry, *range(IMAGES)),
        PrefetchRequest(f"{registry.address}/app:absent", origin="list:90"),
        PrefetchRequest("NOT A NAME", origin="list:91"),
        PrefetchRequest(f"{registry.address}/app:1", ("windows/arm64",), origin="list:92"),
    ]
    async with Engine(tmp_path) as engine:
        result = await engine.prefetch(asked)
        names = {image.name for image in await engine.images()}
    fates = {image.request.origin: type(image.error) for image in result.images}
    assert fates.pop("list:3") is NotFoundError
    assert fates.pop("list:90") is NotFoundError
    assert fates.pop("list:91") is ReferenceSyntaxError
    assert fates.pop("list:2, list:92") is PlatformError
    assert set(fates.values()) == {type(None)}
    assert names == {f"{registry.address}/app:{number}" for number in (0, 3, 4, 5)}
    assert [blob.error != "" for blob in result.blobs if blob.digest == str(broken)] == [True]


async def test_the_first_failure_ends_the_job_when_it_is_to(registry: Registry, tmp_path: Path) -> None:
    registry.remove_blob(str(BUILT[5].layers[1].descriptor.digest))
    async with Engine(tmp_path, limits=Limits(connections=1)) as engine:
        result = await engine.prefetch(requests(registry, *range(IMAGES)), fail_fast=True)
    outcomes = Counter(image.outcome for image in result.images)
    assert outcomes["failed"] == 1
    assert outcomes["skipped"] >= 3


async def test_an_image_that_is_there_is_not_skipped_unless_its_files_are_wanted(
    registry: Registry, tmp_path: Path
) -> None:
    async with Engine(tmp_path / "store") as engine:
        await engine.prefetch(requests(registry, 0, 1))
        files = PrefetchRequest(f"{registry.address}/app:1", rootfs=str(tmp_path / "files"))
        absent = PrefetchRequest(f"{registry.address}/app:absent")
        result = await engine.prefetch([*requests(registry, 0), files, *requests(registry, 2), absent], fail_fast=True)
    assert [image.outcome for image in result.images] == ["present", "skipped", "skipped", "failed"]


async def test_a_blob_that_one_repository_lost_comes_from_another(registry: Registry, tmp_path: Path) -> None:
    class Half(Registry):
        async def blob(self, name: str, digest: str) -> Content | None:
            return None if name == "lost" and digest == str(SHARED.digest) else await super().blob(name, digest)

    async with Half() as half, Engine(tmp_path) as engine:
        half.add_image("lost", "1", BUILT[5])
        half.add_image("whole", "1", BUILT[0])
        result = await engine.prefetch([PrefetchRequest(f"{half.address}/{name}:1") for name in ("lost", "whole")])
    assert [image.outcome for image in result.images] == ["fetched", "fetched"]


async def test_an_image_is_there_before_the_job_is_over(registry: Registry, tmp_path: Path) -> None:
    events: list[Event] = []
    async with Engine(tmp_path, observer=events.append, limits=Limits(connections=1)) as engine:
        await engine.prefetch(requests(registry, *range(IMAGES)))
    kinds = [type(event) for event in events if isinstance(event, ImageDone | BlobDone)]
    last_blob = len(kinds) - 1 - kinds[::-1].index(BlobDone)
    assert kinds[:last_blob].count(ImageDone) >= IMAGES - 1


async def test_a_larger_priority_is_whole_first(registry: Registry, tmp_path: Path) -> None:
    done: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, ImageDone):
            done.append(event.image)

    async with Engine(tmp_path, observer=observe, limits=Limits(connections=1)) as engine:
        await engine.prefetch([*requests(registry, 1, 2, 3, 4, 5), *requests(registry, 0, priority=1)])
    assert done[0] == f"{registry.address}/app:0"


async def test_lines_of_one_image_are_one_image_with_all_that_they_ask_for(registry: Registry, tmp_path: Path) -> None:
    several = [
        Image.build(image.layers, platform=Platform("linux", name))
        for image, name in zip(BUILT[:2], ("amd64", "arm64"), strict=True)
    ]
    registry.add_image("several", "1", Index.build(several))
    name = f"{registry.address}/several:1"
    lines = [
        PrefetchRequest(name, ("linux/amd64",), origin="list:1"),
        PrefetchRequest(name, ("linux/arm64",), pinned=True, origin="list:2"),
    ]
    async with Engine(tmp_path) as engine:
        result = await engine.prefetch(lines)
        [stored] = await engine.images()
    [image] = result.images
    assert image.request.origin == "list:1, list:2"
    assert stored.pinned
    assert set(stored.images) == {"linux/amd64", "linux/arm64"}


async def test_images_are_unpacked_while_others_are_fetched(registry: Registry, tmp_path: Path) -> None:
    wanted = [
        PrefetchRequest(f"{registry.address}/app:{number}", rootfs=str(tmp_path / f"root{number}"))
        for number in range(3)
    ]
    async with Engine(tmp_path / "store") as engine:
        result = await engine.prefetch(wanted)
        again = await engine.prefetch(wanted)
    assert [image.outcome for image in result.images] == ["fetched"] * 3
    assert [image.outcome for image in again.images] == ["present"] * 3
    assert all(same(tmp_path / f"root{number}", BASE, own(number)) for number in range(3))


async def test_a_job_that_has_no_space_fetches_nothing_and_says_so_of_each_image(
    registry: Registry, tmp_path: Path
) -> None:
    async with Engine(tmp_path, limits=Limits(store_size=100_000)) as engine:
        result = await engine.prefetch(requests(registry, *range(IMAGES)))
    assert [type(image.error) for image in result.images] == [StoreFullError] * IMAGES
    assert blobs_asked(registry) == Counter()


async def test_what_is_there_is_there_also_when_there_is_no_space_for_the_rest(
    registry: Registry, tmp_path: Path
) -> None:
    async with Engine(tmp_path) as engine:
        await engine.pull(f"{registry.address}/app:2")
    async with Engine(tmp_path, limits=Limits(store_size=100_000)) as engine:
        result = await engine.prefetch(requests(registry, 1, 2))
    assert [(image.request.origin, image.outcome) for image in result.images] == [
        ("list:2", "failed"),
        ("list:3", "present"),
    ]


async def test_a_job_that_is_cancelled_goes_on_where_it_was(registry: Registry, tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), dict[str, str]()

    def observe(event: Event) -> None:
        if isinstance(event, BlobDone):
            begun.set()
        elif isinstance(event, ImageDone | ImageFailed):
            ended[event.image] = type(event).__name__

    async with Engine(tmp_path, observer=observe, limits=Limits(connections=1)) as engine:
        job = asyncio.create_task(engine.prefetch(requests(registry, *range(IMAGES))))
        await begun.wait()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    assert len(ended) == IMAGES
    assert "ImageFailed" in ended.values()
    first = blobs_asked(registry)
    async with Engine(tmp_path) as engine:
        result = await engine.prefetch(requests(registry, *range(IMAGES)))
    assert not result.failed
    twice = {digest for digest, count in blobs_asked(registry).items() if count > 1}
    assert len(twice) <= 1 < len(first) + 1


async def test_an_empty_job_is_done(tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        assert (await engine.prefetch([])).images == ()


async def test_a_job_tells_its_totals_once_they_are_known_and_what_became_of_it(
    registry: Registry, tmp_path: Path
) -> None:
    registry.remove_blob(str(BUILT[2].layers[1].descriptor.digest))
    told: list[Event] = []
    asked = [*requests(registry, *range(IMAGES)), *(PrefetchRequest(name) for name in ("NOT A NAME", "ALSO NOT"))]
    absent = f"{registry.address}/app:absent"
    async with Engine(tmp_path, observer=told.append) as engine:
        await engine.pull(f"{registry.address}/app:0")
        told.clear()
        result = await engine.prefetch([*asked, PrefetchRequest(absent)])
    kinds = [type(event) for event in told]
    assert (told[0], told[-1]) == (JobStarted(IMAGES + 3), JobDone(present=1, fetched=4, failed=4, skipped=0))
    planned = kinds.index(JobPlanned)
    assert told[planned] == JobPlanned(IMAGES, len(result.plan.missing), result.plan.missing_size)
    before = Counter(kinds[:planned])
    assert (before[ImageStarted], before[ImageResolved], before[ImagePlanned]) == (IMAGES + 1, IMAGES, IMAGES)
    assert before[ImageFailed] == 3
    resolved = {event.image: event.digest for event in told if isinstance(event, ImageResolved)}
    assert resolved == {
        f"{registry.address}/app:{number}": str(image.descriptor.digest) for number, image in enumerate(BUILT)
    }


async def test_what_is_skipped_is_told_as_no_failure_of_its_own(registry: Registry, tmp_path: Path) -> None:
    told: list[Event] = []
    async with Engine(tmp_path, observer=told.append) as engine:
        absent = PrefetchRequest(f"{registry.address}/app:absent")
        await engine.prefetch([*requests(registry, *range(IMAGES)), absent], fail_fast=True)
    kinds = [(event.kind, event.exit_code) for event in told if isinstance(event, ImageFailed)]
    assert kinds == [("NotFoundError", 3)] + [("skipped", None)] * IMAGES
    assert told[-1] == JobDone(present=0, fetched=0, failed=1, skipped=IMAGES)


def test_a_line_that_is_no_image_is_kept_without_the_frames_that_refused_it() -> None:
    """They take some 2 kB each, and a list may have a million such lines."""
    _, refused = merge([PrefetchRequest("NO_HOST/app", origin="list:1"), PrefetchRequest("app", ("no platform",))])
    assert [each.request.reference for each in refused] == ["NO_HOST/app", "app"]
    for error in (each.error for each in refused):
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
    assert str(refused[0].error) == "reference 'NO_HOST/app': 'NO_HOST' is not a host[:port]"


async def test_an_image_for_another_platform_fails_before_its_layers_are_fetched(
    registry: Registry, tmp_path: Path
) -> None:
    alone = Image.build(BUILT[0].layers, platform=Platform("linux", "s390x"))
    registry.add_image("alone", "1", alone)
    wanted = [
        PrefetchRequest(f"{registry.address}/alone:1", ("linux/riscv64",)),
        PrefetchRequest(f"{registry.address}/alone:1", ("linux/riscv64", "linux/s390x"), origin="both"),
        PrefetchRequest(f"{registry.address}/app:1", (str(Platform.host()),)),
    ]
    async with Engine(tmp_path / "one") as engine:
        result = await engine.prefetch(wanted[:1])
        assert [type(image.error) for image in result.images] == [PlatformError]
        assert set(blobs_asked(registry)) == {str(Digest.of(alone.config))}
    async with Engine(tmp_path / "two") as engine:
        result = await engine.prefetch(wanted[1:])
    assert [type(image.error) for image in result.images] == [PlatformError, type(None)]
