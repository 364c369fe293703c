"""Images in containerd's snapshots are what their layers say, never worse than containerd's own unpacking has it.

``FASTOCI_IMAGES=all`` unpacks all edge-case images, not only those about layers on top of one another.
Covers: containerd/places.py, containerd/snapshots.py, jobs/snapshots.py, transfer/snapshot_layers.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import fastoci
from fastoci.containerd import methods
from fastoci.containerd.client import Client
from fastoci.containerd.messages import Mount, MountsResponse, PrepareRequest
from fastoci.containerd.places import demand_same
from fastoci.errors import (
    ContainerdError,
    DigestMismatchError,
    StoreError,
    StoreFullError,
    UnpackError,
    UnsupportedError,
)
from fastoci.events import Event, UnpackProgress, UnpackSkipped, UnpackStarted
from fastoci.image.config import chain_id, chain_ids
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.jobs.containerd import Into, recording
from fastoci.jobs.outputs import Outputs
from fastoci.lists.request import PrefetchRequest
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import Node, differences, listing
from support import disks
from support.containerd import Daemon, daemon, programs
from support.engine_parts import Events, open_parts
from support.expected_trees import expected_tree
from support.images import Slow, made, same
from support.odd_layers import ODD
from support.overlays import mounted, needs_mounts
from support.scratch import opened, scratch

Pause = Callable[[int, Events], Awaitable[None]]
Pull = Callable[[], Awaitable[Any]]

EVERYTHING = os.environ.get("FASTOCI_IMAGES") == "all"
ABOUT_LAYERS = {"hardlink-lower-layer", "implicit-parents", "opaque", "symlink-parent", "typechange", "whiteout-order"}
NO_TREE = ("artifact", "zstd-skippable-first")
SNAPSHOTTERS = ["overlayfs", "native"]
AS_CONTAINERDS = ("a device 0:0", "an entry of the root")  # where containerd's own unpacking says what is right
PROGRAMS = programs()

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containerd, mounts")


@dataclass(frozen=True)
class Running:
    """A containerd of this file's own."""

    daemon: Daemon

    def into(self, snapshotter: str = "", **options: Any) -> Into:
        return Into(address=str(self.daemon.socket), snapshotter=snapshotter, **options)

    @contextmanager
    def shown(self, chain_id: Digest, snapshotter: str, namespace: str = "default") -> Iterator[Path]:
        """The files of a chain of layers, as a container of it has them."""
        with ThreadPoolExecutor(1) as thread:  # of a loop of its own: tests have one
            (mount,) = thread.submit(asyncio.run, self._view(str(chain_id), snapshotter, namespace)).result()
        values = dict(option.partition("=")[::2] for option in mount.options)
        lowers = [Path(path) for path in values.get("lowerdir", mount.source).split(":")]
        with mounted(lowers[::-1], lowers[0].parent.parent.parent / "at") as at:
            yield at

    async def _view(self, chain_id: str, snapshotter: str, namespace: str) -> tuple[Mount, ...]:
        async with Client.open(str(self.daemon.socket), namespace) as client:
            request = PrepareRequest(snapshotter, f"view {secrets.token_hex(4)}", chain_id)
            return (await client.call(methods.SNAPSHOT_VIEW, request, MountsResponse)).mounts

    def left(self, snapshotter: str = "overlayfs") -> list[str]:
        """What is left beside images: leases, and snapshots that have no name."""
        lines = self.daemon.run("leases", "ls").splitlines()
        lines += self.daemon.run("snapshots", "--snapshotter", snapshotter, "ls").splitlines()
        return [line for line in lines if line.startswith(("fastoci-", "extract-"))]

    def walked(self, reference: str, chain_id: Digest) -> list[Node]:
        """What containerd's own unpacking makes of an image."""
        pull = ("images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference)
        said = self.daemon.run(*pull, namespace="walking")
        assert "ctr: " not in said, said
        with self.shown(chain_id, "overlayfs", "walking") as at:
            return listing(at)


@contextmanager
def run(pair: tuple[str, str], home: Path) -> Iterator[Running]:
    with daemon(home, *pair) as started:
        yield Running(started)


@pytest.fixture
def pair(peer: Callable[[str], str]) -> tuple[str, str]:
    return PROGRAMS[0] if PROGRAMS else (peer("containerd"), peer("ctr"))


@pytest.fixture(scope="module", params=range(max(1, len(PROGRAMS))), ids=lambda number: f"containerd{number}")
def running(request: pytest.FixtureRequest, peer: Callable[[str], str]) -> Iterator[Running]:
    needs_mounts()
    pair = PROGRAMS[request.param] if PROGRAMS else (peer("containerd"), peer("ctr"))
    with scratch("snap") as home, run(pair, home) as started:
        yield started


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        yield registry


def image_of(layers: Sequence[Sequence[Entry]]) -> Image:
    return Image.build([Layer.build(layer) for layer in layers])


async def bring(store: Path, references: Iterable[str], into: Into) -> list[Digest]:
    """Pull images into containerd; the ChainIDs of all their layers."""
    chains = []
    async with fastoci.Engine(store) as engine:
        for reference in references:
            image = await engine.pull(reference, into=into)
            assert image.config is not None
            chains.append(chain_id([*image.config.diff_ids]))
    return chains


def chain_of(image: Image) -> Digest:
    return chain_id([layer.diff_id for layer in image.layers])


def without_times(nodes: Sequence[Node]) -> list[Node]:
    """Directories have any time: the native snapshotter's copies lose them, and containerd's own unpacking some."""
    return [replace(node, mtime_ns=None) if node.kind == "directory" else node for node in nodes]


@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
def test_odd_layers_are_what_they_are_in_a_tree(
    running: Running, registry: Registry, tmp_path: Path, snapshotter: str
) -> None:
    names = [f"odd{number}" for number in range(len(ODD))]
    for name, odd in zip(names, ODD.values(), strict=True):
        registry.add_image(name, "latest", image_of(odd.layers))
    references = [f"{registry.address}/{name}:latest" for name in names]
    chains = asyncio.run(bring(tmp_path, references, running.into(snapshotter)))
    for (case, odd), reference, chain in zip(ODD.items(), references, chains, strict=True):
        expected = without_times(odd.tree) if snapshotter == "native" else odd.tree
        with running.shown(chain, snapshotter) as at:
            assert (case, differences(expected, listing(at))) == (case, [])
        if case in AS_CONTAINERDS and snapshotter == "overlayfs":
            assert (case, differences(without_times(odd.tree), running.walked(reference, chain))) == (case, [])
    assert running.left(snapshotter) == []


@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
def test_the_shared_images_are_what_their_listings_say(
    running: Running, registry: Registry, shared: Path, tmp_path: Path, snapshotter: str
) -> None:
    if snapshotter != "overlayfs" and not EVERYTHING:
        pytest.skip("FASTOCI_IMAGES=all: the long form")
    registry.add_layout(shared / "images" / "edge-cases")
    index = json.loads((shared / "images/edge-cases/index.json").read_bytes())
    tags = [row["annotations"]["org.opencontainers.image.ref.name"] for row in index["manifests"]]
    tags = [tag for tag in tags if tag not in NO_TREE and (EVERYTHING or tag in ABOUT_LAYERS)]
    wrong: dict[str, list[str]] = {}
    references = [f"{registry.address}/{tag}:latest" for tag in tags]
    chains = asyncio.run(bring(tmp_path, references, running.into(snapshotter)))
    for tag, chain in zip(tags, chains, strict=True):
        expected = expected_tree(tag, running.daemon.home)
        with running.shown(chain, snapshotter) as at:
            wrong[tag] = differences(without_times(expected) if snapshotter == "native" else expected, listing(at))
    assert {tag: found for tag, found in wrong.items() if found} == {}
    assert running.left(snapshotter) == []


@asynccontextmanager
async def held_up(running: Running, store: Path, blob: Descriptor, reference: str, pause: Pause) -> AsyncIterator[Pull]:
    """A pull into containerd, held up by ``pause`` at each buffer of one blob."""
    async with (
        open_parts(store) as parts,
        recording(running.into(), parts.job, parts.store.borrowing) as into,
    ):
        parsed = Reference.parse(reference)
        source = Slow(parts.client.repository(parsed), blob, lambda offset: pause(offset, parts.events))
        pull = partial(parts.job.pull, parsed, source, image=reference, wanted=None, outputs=Outputs(into=into))
        yield lambda: asyncio.wait_for(pull(), 30)


async def test_layers_become_files_while_they_arrive_and_their_names_wait_for_those_below(
    running: Running, registry: Registry, tmp_path: Path
) -> None:
    """The upper layer is written before the end of the lowest has come."""
    layers = [made(1), made(2)]
    image = image_of(layers)
    registry.add_image("image", "latest", image)
    reference = f"{registry.address}/image:latest"

    async def pause(offset: int, events: Events) -> None:
        if offset == image.layers[0].descriptor.size:
            await events.until(lambda: any(_entries(event) >= len(layers[1]) for event in events))

    async with held_up(running, tmp_path / "store", image.layers[0].descriptor, reference, pause) as pull:
        await pull()
    with running.shown(chain_of(image), "overlayfs") as at:
        assert same(at, *layers)
    assert running.left("overlayfs") == []


async def test_a_containerd_that_is_killed_and_started_meanwhile_gets_the_image(
    running: Running, registry: Registry, tmp_path: Path
) -> None:
    layers = [made(6), [Entry("root/implied")]]
    image = image_of(layers)
    registry.add_image("restarted", "latest", image)
    killed = False

    async def pause(offset: int, events: Events) -> None:
        nonlocal killed
        await events.until(lambda: any(_entries(event) for event in events))
        if not killed:
            killed = True
            running.daemon.stop(signal.SIGKILL)
            running.daemon.start()

    reference = f"{registry.address}/restarted:latest"
    async with held_up(running, tmp_path / "store", image.layers[0].descriptor, reference, pause) as pull:
        await pull()
    assert killed
    with running.shown(chain_of(image), "overlayfs") as at:
        assert same(at, *layers)
    assert running.left("overlayfs") == []


async def test_a_snapshot_that_is_removed_meanwhile_fails_the_image_and_leaves_nothing(
    running: Running, registry: Registry, tmp_path: Path
) -> None:
    image = image_of([made(3)])
    registry.add_image("removed", "latest", image)
    reference = f"{registry.address}/removed:latest"

    async def pause(offset: int, events: Events) -> None:
        await events.until(lambda: any(_entries(event) for event in events))
        for line in running.daemon.run("snapshots", "ls").splitlines():
            if "Active" in line:
                running.daemon.run("snapshots", "rm", line.partition("  ")[0].strip())

    async with held_up(running, tmp_path / "store", image.layers[0].descriptor, reference, pause) as pull:
        with pytest.raises((ContainerdError, StoreError, UnpackError)):
            await pull()
    assert running.left("overlayfs") == []
    assert reference not in running.daemon.run("images", "ls", "-q")


@pytest.mark.parametrize("number", [0, 1])
async def test_a_layer_with_another_diff_id_leaves_only_snapshots_of_whole_layers(
    running: Running, registry: Registry, tmp_path: Path, number: int
) -> None:
    layers = [Layer.build([Entry(f"bad{number}{each}", data=b"x")]) for each in range(3)]
    other = Layer.build([Entry(f"other{number}")]).diff_id
    layers[number] = replace(layers[number], diff_id=other)
    image = Image.build(layers)
    registry.add_image("bad", "latest", image)
    reference = f"{registry.address}/bad:latest"
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(DigestMismatchError, match=str(other)):
            await engine.pull(reference, into=running.into())
    assert running.left("overlayfs") == []
    there = running.daemon.run("snapshots", "ls")
    chains = chain_ids([layer.diff_id for layer in layers])
    assert not any(str(chain) in there for chain in chains[number:])
    assert reference not in running.daemon.run("images", "ls", "-q")


async def test_pulls_side_by_side_make_each_snapshot_once(running: Running, registry: Registry, tmp_path: Path) -> None:
    shared_layers = [made(4, files=2), made(5, files=2), [Entry("made4/x")]]
    images = {name: image_of([*shared_layers, [Entry(name)]]) for name in ("one", "two")}
    for name, image in images.items():
        registry.add_image(name, "latest", image)

    async def pull(number: int) -> None:
        async with fastoci.Engine(tmp_path / f"{number % 2}") as engine:
            await engine.pull(f"{registry.address}/{('one', 'two')[number // 2]}", into=running.into())

    await asyncio.gather(*map(pull, range(4)))
    for name, image in images.items():
        with running.shown(chain_of(image), "overlayfs") as at:
            assert same(at, *shared_layers, [Entry(name)])
    assert running.left("overlayfs") == []


async def test_what_is_in_the_store_already_is_unpacked_too(
    running: Running, registry: Registry, tmp_path: Path
) -> None:
    registry.add_image("stored", "latest", image_of([[Entry("stored", data=b"x")], [Entry("root/y")]]))
    reference = f"{registry.address}/stored:latest"
    events: list[Event] = []
    async with fastoci.Engine(tmp_path, observer=events.append) as engine:
        await engine.pull(reference, into=running.into(unpack=False))
        assert not any(isinstance(event, UnpackStarted) for event in events)
        await engine.prefetch([PrefetchRequest(reference)], into=running.into())
        assert [event.layers for event in events if isinstance(event, UnpackStarted)] == [2]
        await engine.pull(reference, policy="never", into=running.into())
    assert sum(isinstance(event, UnpackSkipped) for event in events) == 1
    assert any(
        line.split()[-1] == "true" for line in running.daemon.run("images", "check").splitlines() if reference in line
    )


async def test_a_snapshotter_that_is_not_there_is_said_before_anything_is_leased(
    running: Running, registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(
            UnsupportedError, match=r"nobody: there is none of this name; it can use .*native, overlayfs"
        ):
            await engine.pull(f"{registry.address}/x", into=running.into("nobody"))
    assert running.left("overlayfs") == []


async def test_a_full_disk_is_said_and_nothing_is_left(
    registry: Registry, tmp_path: Path, pair: tuple[str, str]
) -> None:
    needs_mounts()
    registry.add_image("large", "latest", image_of([[Entry("zeros", data=bytes(40 << 20))]]))
    with scratch("full") as home:
        (home / "root").mkdir()
        with disks.mounted(home / "root", "-t", "tmpfs", "-o", "size=24m", "tmpfs"), run(pair, home) as small:
            async with fastoci.Engine(tmp_path) as engine:
                with pytest.raises(StoreFullError, match="No space left"):
                    await engine.pull(f"{registry.address}/large", into=small.into())
            assert small.left() == []
            assert "large" not in small.daemon.run("images", "ls", "-q")


async def test_a_disk_with_too_little_space_for_snapshots_is_said_before_anything_is_fetched(
    registry: Registry, tmp_path: Path, pair: tuple[str, str]
) -> None:
    needs_mounts()
    registry.add_image("dense", "latest", image_of([made(1, files=4, size=16 << 20, compressibility=0.0)]))
    with scratch("full") as home:
        (home / "root").mkdir()
        with disks.mounted(home / "root", "-t", "tmpfs", "-o", "size=24m", "tmpfs"), run(pair, home) as small:
            async with fastoci.Engine(tmp_path) as engine:
                with pytest.raises(StoreFullError, match=str(home / "root")):
                    await engine.pull(f"{registry.address}/dense", into=small.into())
            assert small.left() == []
        assert not [record for record in registry.log if "/blobs/" in record.path]


def test_a_directory_that_is_another_one_for_containerd_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with opened(tmp_path / "a") as fd:
        demand_same(str(tmp_path / "a"), fd, os.getpid())
        demand_same(str(tmp_path / "b"), fd, 0)
        with pytest.raises(StoreError, match="mounts of its own"):
            demand_same(str(tmp_path / "b"), fd, os.getpid())


def _entries(event: Event) -> int:
    return event.entries if isinstance(event, UnpackProgress) else 0
