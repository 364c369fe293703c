"""What is shown of real pulls, at each event: totals count each blob once, and are what is to come and what is here.

Covers: cli/progress/state.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastoci import Engine
from fastoci.cli.progress.state import ProgressState, extent
from fastoci.errors import NotFoundError
from fastoci.events import (
    BlobDone,
    BlobProgress,
    BlobStarted,
    BlobWaiting,
    Event,
    FetchDuplicated,
    ImageFailed,
    ImagePlanned,
)
from fastoci.image.platform import Platform
from fastoci.server.pull_api import Content
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Layer, from_seed
from fastoci.testing.registry import Registry, serve

PLATFORMS = ("amd64", "arm64", "s390x")
MANY = 30


class SlowRegistry(Registry):
    """Each blob takes its time, so that pulls overlap."""

    async def blob(self, name: str, digest: str) -> Content | None:
        """The blob with this digest, whatever the repository."""
        await asyncio.sleep(0.01)
        return await super().blob(name, digest)


def layer(seed: int, size: int) -> Layer:
    return Layer.build(from_seed(seed, files=1, size=size, compressibility=0.05), "gzip")


BASE = layer(1, 5_000_000)


APPS = [Image.build([BASE, layer(10 + number, 30_000)]) for number in range(MANY)]


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Thirty images over one base, one for three platforms over the same, and one of which a layer is not there."""
    made = SlowRegistry()
    for number, app in enumerate(APPS):
        made.add_image(f"app{number}", "1", app)
    shared = layer(2, 50_000)
    several = [
        Image.build([BASE, shared, layer(100 + number, 20_000)], platform=Platform("linux", name))
        for number, name in enumerate(PLATFORMS)
    ]
    made.add_image("several", "1", Index.build(several))
    broken = Image.build([BASE, layer(3, 60_000), layer(4, 10_000)])
    made.add_image("broken", "1", broken)
    made.remove_blob(str(broken.layers[2].descriptor.digest))
    with serve(made):
        yield made


class Witness:
    """Holds what a job shows against what it was told it lacks, at each event."""

    def __init__(self) -> None:
        self.state = ProgressState()
        self.events: list[Event] = []
        self.lacked: dict[str, int] = {}  # of all images
        self.wrong: list[tuple[str, int, int, Event]] = []
        self._total = 0

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.state.see(event, float(len(self.events)))
        if isinstance(event, ImagePlanned):
            self.lacked |= event.missing
        if isinstance(event, FetchDuplicated) and event.reason == "damaged in the store":
            self.lacked[event.blob] = event.size
        self._check_sums()
        done, total = self.state.extent()
        self._check("total", total, sum(self.lacked.values()), total != sum(self.lacked.values()))
        self._check("done", done, total, done > total)
        self._check("shrinks", total, self._total, total < self._total)
        self._total = total
        for image in self.state.images.values():
            here, size = extent(image)
            self._check("image", here, size, here > size or image.finished > len(image.blobs))

    def _check_sums(self) -> None:
        """The sums that are kept with each event are those of a walk over all images."""
        blobs, images = self.state.blobs, self.state.images.values()
        wanted = {digest for image in images if not image.ended for digest in image.blobs}
        lacked = {digest for image in images for digest in image.blobs}
        here = sum(min(blobs[digest].here, blobs[digest].size) for digest in lacked)
        rest = sum(max(0, blobs[digest].size - blobs[digest].here) for digest in wanted)
        assert self.state.extent() == (here, here + rest)
        assert self.state.missing == sum(not blobs[digest].done for digest in wanted)
        assert {blob.digest for blob in self.state.flying()} == {blob.digest for blob in blobs.values() if blob.flying}
        assert {image.name for image in self.state.active()} == {image.name for image in images if image.active}
        assert self.state.failed == sum(image.failed for image in images)

    def _check(self, what: str, first: int, second: int, is_wrong: bool) -> None:
        failed = any(isinstance(event, ImageFailed) for event in self.events)
        if is_wrong and not (failed and what in ("total", "shrinks")):
            self.wrong.append((what, first, second, self.events[-1]))

    def demand_complete(self) -> None:
        """All that was lacked is here, and nothing was wrong on the way."""
        assert self.wrong == []
        assert self.state.extent() == (sum(self.lacked.values()), sum(self.lacked.values()))
        assert all(image.ended for image in self.state.images.values())


async def pull(engine: Engine, registry: Registry, *names: str) -> None:
    async with asyncio.TaskGroup() as tasks:  # waits to the end of those that are cancelled
        for name in names:
            tasks.create_task(engine.pull(f"{registry.address}/{name}:1"))


def apps(first: int, end: int) -> list[str]:
    return [f"app{number}" for number in range(first, end)]


async def test_totals_are_true_when_two_jobs_share_a_store_that_has_a_part(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        await pull(engine, registry, "app0")
    one, two = Witness(), Witness()
    async with Engine(tmp_path, observer=one) as first, Engine(tmp_path, observer=two) as second:
        await asyncio.gather(
            pull(first, registry, *apps(0, 20)),
            first.pull_platforms(f"{registry.address}/several:1", ["all"]),
            pull(second, registry, *apps(10, MANY)),
        )
    for witness in (one, two):
        witness.demand_complete()
        assert str(BASE.descriptor.digest) not in witness.lacked
        assert witness.state.extent()[0] < 20 * 40_000
    assert any(isinstance(event, BlobWaiting) for event in (*one.events, *two.events))


async def test_what_an_earlier_pull_left_is_here_and_was_not_received(registry: Registry, tmp_path: Path) -> None:
    first, begun = Witness(), asyncio.Event()

    def observe(event: Event) -> None:
        first(event)
        if isinstance(event, BlobProgress) and event.offset > 1_000_000:
            begun.set()

    async with Engine(tmp_path, observer=observe) as engine:
        running = asyncio.create_task(pull(engine, registry, *apps(0, MANY)))
        await begun.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert first.wrong == []
    second = Witness()
    async with Engine(tmp_path, observer=second) as engine:
        await pull(engine, registry, *apps(0, MANY))
    second.demand_complete()
    left = [event.offset for event in second.events if isinstance(event, BlobStarted) and event.offset]
    documents = sum(blob.size for blob in second.state.blobs.values() if blob.digest not in second.lacked)
    assert left
    assert second.state.received == sum(second.lacked.values()) + documents - sum(left)


async def test_a_blob_that_is_damaged_in_the_store_is_lacked_from_then_on(registry: Registry, tmp_path: Path) -> None:
    store, tree = tmp_path / "store", tmp_path / "tree"
    async with Engine(store) as engine:
        await pull(engine, registry, "app0")
    blob = store / "blobs" / "sha256" / BASE.descriptor.digest.hex
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"damage")
    witness = Witness()
    async with Engine(store, observer=witness) as engine:
        await engine.pull(f"{registry.address}/app0:1", rootfs=tree)
    witness.demand_complete()
    assert witness.state.extent() == (BASE.descriptor.size, BASE.descriptor.size)
    assert [blob.digest for blob in witness.state.images[f"{registry.address}/app0:1"].own] == [
        str(BASE.descriptor.digest)
    ]


async def test_what_a_failed_image_lacked_alone_leaves_the_total(registry: Registry, tmp_path: Path) -> None:
    witness = Witness()
    async with Engine(tmp_path, observer=witness) as engine:
        with pytest.raises(NotFoundError):
            await engine.pull(f"{registry.address}/broken:1")
        await pull(engine, registry, "app1")
    assert witness.wrong == []
    done, total = witness.state.extent()
    came = {event.blob for event in witness.events if isinstance(event, BlobDone)}
    assert done == total == sum(size for digest, size in witness.lacked.items() if digest in came)
