"""Space is reserved before anything is fetched; a disk that gets full all the same keeps what was finished.

Covers: store/free_space.py.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import StoreFullError
from fastoci.limits import Limits
from fastoci.store.reservations import Reservations
from fastoci.testing.layers import Entry
from fastoci.testing.registry import Registry, serve
from fastoci.transfer.scheduler import BytesSource
from support.engine_parts import EngineParts, open_parts
from support.images import image_of
from support.layer_files import put

MB = 1_000_000


def noise(seed: int, size: int) -> list[Entry]:
    return [Entry(f"noise{seed}", data=random.Random(seed).randbytes(size))]


LARGE = image_of(noise(1, 9 * MB), noise(2, 3 * MB))
SMALL = image_of(noise(3, MB))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("large", "latest", LARGE)
        registry.add_image("small", "latest", SMALL)
        yield registry


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``disk("size=8m")``: a file system in memory with these options."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("needs root to mount")
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


def gets(registry: Registry) -> list[str]:
    return [record.path for record in registry.log if "/blobs/" in record.path]


async def test_an_image_that_does_not_fit_is_refused_with_numbers_before_a_byte_is_fetched(
    registry: Registry, disk: Callable[[str], Path]
) -> None:
    place = disk("size=8m")
    async with fastoci.Engine(place / "store") as engine:
        with pytest.raises(StoreFullError) as caught:
            await engine.pull(f"{registry.address}/large")
        assert gets(registry) == []
        size, inodes = caught.value.requirements
        blobs = sum(blob.size for blob, _ in [*LARGE.documents(), *LARGE.blobs()])
        assert (size.what, size.needed, size.path) == ("bytes", blobs, str(place / "store"))
        assert 0 < size.free < 8 << 20
        assert inodes.needed < inodes.free
        assert f"{blobs} bytes needed, {size.free} free" in str(caught.value)
        await engine.pull(f"{registry.address}/small")


async def test_inodes_count_too(registry: Registry, disk: Callable[[str], Path]) -> None:
    async with fastoci.Engine(disk("size=64m,nr_inodes=16") / "store") as engine:
        with pytest.raises(StoreFullError, match="inodes needed"):
            await engine.pull(f"{registry.address}/large")
    assert gets(registry) == []


async def test_the_space_for_files_counts_where_they_go(registry: Registry, disk: Callable[[str], Path]) -> None:
    small = disk("size=16m")
    async with fastoci.Engine(disk("size=64m") / "store") as engine:
        with pytest.raises(StoreFullError) as caught:
            await engine.pull(f"{registry.address}/large", rootfs=small / "rootfs")
        assert caught.value.requirements[-1].needed == 2 * sum(layer.descriptor.size for layer in LARGE.layers)
        assert caught.value.path == str(small / "rootfs")
    assert gets(registry) == [] and not (small / "rootfs").exists()


async def test_the_limit_of_the_store_holds_and_counts_what_is_there(registry: Registry, tmp_path: Path) -> None:
    limits = Limits(store_size=13 * MB)
    async with fastoci.Engine(tmp_path / "store", limits=limits) as engine:
        await engine.pull(f"{registry.address}/small")
        with pytest.raises(StoreFullError, match="within the limit of 13000000"):
            await engine.pull(f"{registry.address}/large")
        await engine.pull(f"{registry.address}/small")  # nothing to fetch needs no space
    async with fastoci.Engine(tmp_path / "store", limits=Limits(store_size=14 * MB)) as engine:
        await engine.pull(f"{registry.address}/large")


async def test_images_that_are_fetched_at_the_same_time_share_the_space(tmp_path: Path) -> None:
    blobs = [blob for blob, _ in LARGE.blobs()]
    size = sum(blob.size for blob in blobs)
    async with open_parts(tmp_path / "store") as parts:
        reservations = _limited(parts, size + 1000)
        async with reservations.reserve(blobs), reservations.reserve(blobs):  # the same again takes nothing more
            with pytest.raises(StoreFullError):
                async with reservations.reserve([blob for blob, _ in SMALL.blobs()]):
                    pass
            for blob, content in LARGE.blobs():
                await parts.fetch(blob, BytesSource(content if isinstance(content, bytes) else content.read_bytes()))
        with pytest.raises(KeyError):
            async with reservations.reserve([]):
                raise KeyError
        with pytest.raises(StoreFullError):  # what was fetched is there now
            async with reservations.reserve([blob for blob, _ in SMALL.blobs()]):
                pass


async def test_an_image_that_was_given_up_leaves_its_space_to_others(tmp_path: Path) -> None:
    blobs = [blob for blob, _ in LARGE.blobs()]
    async with open_parts(tmp_path / "store") as parts:
        reservations = _limited(parts, sum(blob.size for blob in blobs) + 1000)
        with pytest.raises(KeyError):
            async with reservations.reserve(blobs):
                raise KeyError
        async with reservations.reserve([blob for blob, _ in SMALL.blobs()]):
            pass


async def test_what_replaces_corrupt_blobs_counts_once_within_the_limit(registry: Registry, tmp_path: Path) -> None:
    blob = LARGE.layers[0].descriptor
    async with fastoci.Engine(tmp_path / "store", limits=Limits(store_size=13 * MB)) as engine:
        await engine.pull(f"{registry.address}/large")
        path = tmp_path / "store" / "blobs" / "sha256" / blob.digest.hex
        path.chmod(0o600)
        path.write_bytes(bytes(blob.size))
        assert (await engine.repair()).repaired == (str(blob.digest),)


async def test_unpacked_layers_count_within_the_limit(registry: Registry, tmp_path: Path) -> None:
    async with open_parts(tmp_path / "store") as parts:
        store = parts.store
        reservations = _limited(parts, 4 * MB)
        async with reservations.reserve([], root=store.path, unpacked=3 * MB):
            await put(store.layers, random.Random(1).randbytes(3 * MB))
        for root, unpacked in ((store.path, MB), (tmp_path / "tree", MB)):
            blobs = [blob for blob, _ in SMALL.blobs()]
            with pytest.raises(StoreFullError, match="within the limit"):
                async with reservations.reserve(blobs, root=root, unpacked=unpacked):
                    pass
        async with reservations.reserve([], root=tmp_path / "tree", unpacked=5 * MB):
            pass


def _limited(parts: EngineParts, limit: int) -> Reservations:
    return Reservations(parts.store.blobs, Limits(store_size=limit), parts.store.size)


async def test_what_a_killed_pull_left_is_not_wanted_twice(registry: Registry, disk: Callable[[str], Path]) -> None:
    place = disk("size=16m")
    blob = LARGE.layers[0].descriptor
    async with open_parts(place / "store") as parts:
        partial = Path(parts.store.paths.ingest(blob.digest))
        partial.mkdir()
        (partial / "data").write_bytes(bytes(8 * MB))
        room = os.statvfs(place)
        assert blob.size > room.f_bavail * room.f_frsize
        async with parts.store.session([blob]) as session, session.reserve():
            pass


async def test_a_disk_that_gets_full_keeps_what_was_finished_and_goes_on_when_there_is_space(
    registry: Registry, disk: Callable[[str], Path]
) -> None:
    place = disk("size=16m")
    filler = place / "filler"
    first, second = (layer.descriptor for layer in LARGE.layers)
    async with fastoci.Engine(place / "store") as engine:

        def fill(*_: object) -> None:
            room = os.statvfs(place)
            filler.write_bytes(bytes(room.f_bavail * room.f_frsize - 5 * MB))

        check = Reservations._check
        with pytest.MonkeyPatch.context() as patched:  # somebody else fills the disk behind our back
            patched.setattr(Reservations, "_check", lambda *all: (check(*all), fill())[0])  # type: ignore[func-returns-value]
            with pytest.raises(StoreFullError) as caught:
                await engine.pull(f"{registry.address}/large")
        assert "bytes wanted" in str(caught.value) and "inodes free" in str(caught.value)
        filler.unlink()
        before = len(gets(registry))
        await engine.pull(f"{registry.address}/large")
        assert not (await engine.verify()).bad
    assert len(gets(registry)) > before
    for blob in (first, second):
        assert (place / "store" / "blobs" / "sha256" / blob.digest.hex).stat().st_size == blob.size
