"""Wrong bytes of the right size: in the store, in an additional store, and on their way. What is right takes their
place in the same run, and where there is nothing right, the error says whose fault it is.

Covers: jobs/stored.py.
"""

from __future__ import annotations

import asyncio
import gzip
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
import uvloop

import fastoci
from fastoci.errors import BlobNotFoundError, DigestMismatchError, FastociError, FormatError, IntegrityError
from fastoci.events import Event, FetchDuplicated, Warned
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.image.reference import Reference
from fastoci.image_interfaces import WholeImage
from fastoci.interfaces import BlobStore
from fastoci.jobs import pull
from fastoci.jobs.outputs import Outputs
from fastoci.jobs.resolve import read_config
from fastoci.jobs.stored import Mending
from fastoci.limits import Limits
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from support.engine_parts import open_parts
from support.images import image_of, made, same

pytestmark = pytest.mark.attack
uvloop.new_event_loop().close()  # opens a pipe for the life of the process, which is no test's leak

LAYERS = (made(1, files=4, size=600_000), made(2, files=3, size=100_000), made(3, files=3, size=100_000))
IMAGE = image_of(*LAYERS)
INDEX = Index.build([IMAGE])
OTHER = image_of([Entry("other", data=b"other" * 1000)])
LAYER, CONFIG, MANIFEST = IMAGE.layers[1].descriptor.digest, Digest.of(IMAGE.config), Digest.of(IMAGE.manifest)

Loop = Callable[[Coroutine[object, object, object]], object]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Loop:
    loop: Loop = request.param
    return loop


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", INDEX)
        yield registry


def flipped(data: bytes, at: float = 0.5) -> bytes:
    changed = bytearray(data)
    changed[int(len(data) * at)] ^= 1
    return bytes(changed)


def padded(data: bytes, size: int) -> bytes:
    """A gzip member of exactly so many bytes: its name field is as long as it takes."""
    plain = gzip.compress(data, 9, mtime=0)
    assert size > len(plain)
    return plain[:3] + b"\x08" + plain[4:10] + b"n" * (size - len(plain) - 1) + b"\0" + plain[10:]


def content(layer: Layer) -> bytes:
    assert isinstance(layer.content, bytes)
    return layer.content


def file(store: Path, digest: Digest) -> Path:
    return store / "blobs" / digest.algorithm / digest.hex


def damage(store: Path, digest: Digest, at: float = 0.5) -> None:
    path = file(store, digest)
    data = path.read_bytes()
    path.unlink()  # not through a hard link that a layout has
    path.write_bytes(flipped(data, at))


def whole(store: Path, image: Image = IMAGE) -> bool:
    """Whether the store has all of the image, and nothing wrong under any name."""
    there = {path.name for path in (store / "blobs" / "sha256").iterdir()}
    needed = {str(blob.digest) for blob, _ in image.blobs()} | {str(Digest.of(image.manifest))}
    return {digest.removeprefix("sha256:") for digest in needed} <= there and sound(store)


def sound(layout: Path) -> bool:
    return all(Digest.of(path.read_bytes()).hex == path.name for path in (layout / "blobs" / "sha256").iterdir())


async def pulled(store: Path, reference: str, rootfs: Path | None = None) -> None:
    async with fastoci.Engine(store) as engine:
        await engine.pull(reference, rootfs=rootfs)


# In the store.


@pytest.mark.parametrize("at", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_layer_that_is_damaged_in_the_store_is_fetched_again_while_it_is_unpacked(
    registry: Registry, tmp_path: Path, run: Loop, number: int, at: float
) -> None:
    reference, store = f"{registry.address}/app:1", tmp_path / "store"
    run(pulled(store, reference))
    damage(store, IMAGE.layers[number].descriptor.digest, at)
    events: list[Event] = []

    async def unpack() -> None:
        async with fastoci.Engine(store, observer=events.append) as engine:
            await engine.pull(reference, rootfs=tmp_path / "root")

    registry.log.clear()
    run(unpack())
    assert same(tmp_path / "root", *LAYERS)
    assert whole(store)
    blobs = [record.path for record in registry.log if "/blobs/" in record.path]
    assert blobs == [f"/v2/app/blobs/{IMAGE.layers[number].descriptor.digest}"]
    assert [event.message for event in events if isinstance(event, Warned)]
    again = [(event.blob, event.reason) for event in events if isinstance(event, FetchDuplicated)]
    assert again == [(str(IMAGE.layers[number].descriptor.digest), "damaged in the store")]


def test_all_layers_that_are_damaged_are_fetched_again_at_once(registry: Registry, tmp_path: Path, run: Loop) -> None:
    reference, store = f"{registry.address}/app:1", tmp_path / "store"
    run(pulled(store, reference))
    for layer in IMAGE.layers:
        damage(store, layer.descriptor.digest)
    run(pulled(store, reference, tmp_path / "root"))
    assert same(tmp_path / "root", *LAYERS) and whole(store)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("times", range(3))
def test_images_that_share_a_damaged_layer_all_come_and_it_is_fetched_once(
    registry: Registry, tmp_path: Path, run: Loop, number: int, times: int
) -> None:
    store, layer = tmp_path / "store", IMAGE.layers[number].descriptor.digest
    own = [[Entry(f"own{each}", data=bytes([each]) * 1000)] for each in range(8)]
    for each, entries in enumerate(own):
        registry.add_image("shared", str(each), image_of(*LAYERS, entries))
    run(pulled(store, f"{registry.address}/app:1"))
    damage(store, layer, 0.1 + 0.4 * times)
    registry.log.clear()

    async def unpack() -> None:
        async with fastoci.Engine(store) as engine:
            await asyncio.gather(
                *(
                    engine.pull(f"{registry.address}/shared:{each}", rootfs=tmp_path / str(each))
                    for each in range(len(own))
                )
            )

    run(unpack())
    assert all(same(tmp_path / str(each), *LAYERS, entries) for each, entries in enumerate(own))
    assert asked(registry, layer) == 1
    assert sound(store)


def test_images_that_share_a_damaged_config_all_come(registry: Registry, tmp_path: Path, run: Loop) -> None:
    store, names = tmp_path / "store", [f"{registry.address}/app:{each}" for each in range(8)]
    for name in names:
        registry.add_image("app", name.rpartition(":")[2], INDEX)
    run(pulled(store, names[1]))
    damage(store, CONFIG)

    async def unpack() -> None:
        async with fastoci.Engine(store) as engine:
            await asyncio.gather(*(engine.pull(name, rootfs=tmp_path / name[-1]) for name in names))

    run(unpack())
    assert all(same(tmp_path / name[-1], *LAYERS) for name in names)
    assert sound(store)


@pytest.mark.parametrize("late", [0, 1, 3])
def test_a_damaged_config_comes_though_others_say_later_that_it_is_damaged(
    registry: Registry, tmp_path: Path, run: Loop, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    reference, store = f"{registry.address}/app:1", tmp_path / "store"
    run(pulled(store, reference))
    damage(store, CONFIG)
    turns = iter(range(late + 1))

    async def read(store: BlobStore, manifest: Manifest, limits: Limits) -> ImageConfig | None:
        if next(turns, 0):  # another job had read the old bytes
            await store.mark_corrupt(manifest.config.digest)
        return await read_config(store, manifest, limits)

    monkeypatch.setattr(pull, "read_config", read)
    run(pulled(store, reference, tmp_path / "root"))
    assert same(tmp_path / "root", *LAYERS)
    assert sound(store)
    assert asked(registry, CONFIG) == 2 + late


@pytest.mark.parametrize("digest", [LAYER, CONFIG], ids=["layer", "config"])
def test_what_is_damaged_in_an_additional_store_is_fetched_into_ones_own(
    registry: Registry, tmp_path: Path, run: Loop, digest: Digest
) -> None:
    reference, base, store = f"{registry.address}/app:1", tmp_path / "base", tmp_path / "store"
    run(pulled(base, reference))
    damage(base, digest)

    async def unpack() -> None:
        async with fastoci.Engine(store, additional=[base]) as engine:
            await engine.pull(reference, rootfs=tmp_path / "root")

    run(unpack())
    assert same(tmp_path / "root", *LAYERS)
    assert Digest.of(file(store, digest).read_bytes()) == digest
    assert sound(store)


@pytest.mark.parametrize("digest", [CONFIG, MANIFEST, None], ids=["config", "manifest", "index"])
@pytest.mark.parametrize("at", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("known", [True, False])
def test_a_document_that_is_damaged_in_the_store_is_fetched_again_by_a_pull(
    registry: Registry, tmp_path: Path, digest: Digest | None, at: float, known: bool
) -> None:
    reference, store = f"{registry.address}/app:1", tmp_path / "store"
    asyncio.run(pulled(store, reference))
    if not known:
        registry.add_image("again", "1", INDEX)
        reference = f"{registry.address}/again:1"
    damage(store, digest or INDEX.descriptor.digest, at)
    asyncio.run(pulled(store, reference, tmp_path / "root"))
    assert same(tmp_path / "root", *LAYERS) and whole(store)


@pytest.mark.parametrize("digest", [CONFIG, MANIFEST], ids=["config", "manifest"])
async def test_a_damaged_document_is_not_shown(registry: Registry, tmp_path: Path, digest: Digest) -> None:
    reference, store = f"{registry.address}/app:1", tmp_path / "store"
    await pulled(store, reference)
    damage(store, digest, 0.999)
    async with fastoci.Engine(store) as engine:
        with pytest.raises(DigestMismatchError, match="damaged in the store") as caught:
            await engine.image(reference)
    assert caught.value.subject == str(digest)


@pytest.mark.parametrize("verb", ["unpack", "export"])
async def test_without_a_registry_a_damaged_layer_is_an_integrity_error_whatever_it_looks_like(
    registry: Registry, tmp_path: Path, verb: str
) -> None:
    reference, store = f"{registry.address}/app:1", tmp_path / "store"
    await pulled(store, reference)
    damage(store, LAYER)
    async with fastoci.Engine(store) as engine:
        image = await engine.image(reference)
        with pytest.raises(IntegrityError) as caught:
            await (image.unpack(tmp_path / "to") if verb == "unpack" else image.export(tmp_path / "to"))
    assert caught.value.subject == str(LAYER)
    assert isinstance(caught.value.__cause__, FormatError | IntegrityError)
    assert not (tmp_path / "to").exists() or sound(tmp_path / "to")
    async with fastoci.Engine(store) as engine:
        with pytest.raises(BlobNotFoundError, match="damaged"):
            await (await engine.image(reference)).unpack(tmp_path / "root")


async def test_a_layer_that_is_malformed_as_promised_stays_what_it_is(registry: Registry, tmp_path: Path) -> None:
    broken = flipped(content(IMAGE.layers[1]))
    descriptor = fastoci.Descriptor.of(broken, IMAGE.layers[1].descriptor.media_type)
    layer = replace(IMAGE.layers[1], content=broken, descriptor=descriptor)
    image = Image.build([IMAGE.layers[0], layer])
    registry.add_image("broken", "1", image)
    store, reference = tmp_path / "store", f"{registry.address}/broken:1"
    await pulled(store, reference)
    registry.log.clear()
    with pytest.raises((FormatError, DigestMismatchError), match=str(layer.diff_id)):
        await pulled(store, reference, tmp_path / "root")
    assert not [record for record in registry.log if "/blobs/" in record.path]
    assert whole(store, image)


# On its way out.


@pytest.mark.parametrize(
    "digest", [IMAGE.layers[0].descriptor.digest, LAYER, CONFIG], ids=["first", "second", "config"]
)
def test_a_damaged_blob_is_fetched_again_before_it_is_exported(
    registry: Registry, tmp_path: Path, run: Loop, digest: Digest
) -> None:
    reference, store = f"{registry.address}/app:1", tmp_path / "store"
    run(pulled(store, reference))
    damage(store, digest)

    async def export() -> None:
        async with fastoci.Engine(store) as engine:
            await (await engine.pull(reference)).export(tmp_path / "layout")

    run(export())
    assert whole(tmp_path / "layout") and whole(store)


async def test_a_manifest_that_is_damaged_after_the_pull_is_exported_as_it_was(
    registry: Registry, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    async with fastoci.Engine(store) as engine:
        image = await engine.pull(f"{registry.address}/app:1")
        damage(store, MANIFEST)
        await image.export(tmp_path / "layout")
    assert whole(tmp_path / "layout") and whole(store)


async def test_wrong_bytes_in_a_layout_that_is_extended_are_replaced(registry: Registry, tmp_path: Path) -> None:
    store, layout = tmp_path / "store", tmp_path / "layout"
    async with fastoci.Engine(store) as engine:
        image = await engine.pull(f"{registry.address}/app:1")
        await image.export(layout)
        damage(layout, LAYER)
        await image.export(layout)
    assert whole(layout) and whole(store)


@pytest.mark.parametrize("digest", [LAYER, CONFIG, MANIFEST], ids=["layer", "config", "manifest"])
async def test_a_view_never_names_what_is_damaged(registry: Registry, tmp_path: Path, digest: Digest) -> None:
    reference, store = f"{registry.address}/app:1", tmp_path / "store"
    await pulled(store, reference)
    damage(store, digest, 0.6)
    async with fastoci.Engine(store) as engine:
        with pytest.raises(IntegrityError) as caught:
            await engine.export(tmp_path / "layout", [reference])
        assert caught.value.subject == str(digest)
        assert sound(tmp_path / "layout") and not (tmp_path / "layout" / "index.json").exists()
        await engine.repair([reference])
        assert await engine.export(tmp_path / "layout", [reference]) == 1
    assert sound(tmp_path / "layout")


async def test_an_export_that_is_cancelled_at_any_instant_leaves_nothing_wrong_and_gives_its_memory_back(
    registry: Registry, tmp_path: Path
) -> None:
    layout, reference = tmp_path / "layout", Reference.parse(f"{registry.address}/app:1")
    blobs = [IMAGE.descriptor, *(Descriptor(blob.media_type, blob.digest, blob.size) for blob, _ in IMAGE.blobs())]
    image = WholeImage("app:1", IMAGE.descriptor, blobs)
    async with open_parts(tmp_path / "store") as parts:
        repository = parts.client.repository(reference)
        sink = parts.job.layout(layout)
        await parts.job.pull(reference, repository, image="app", wanted=None, outputs=Outputs())
        for instant in range(12):
            export = asyncio.create_task(parts.job.stored.put(sink, [image], Mending("app", None)))
            await asyncio.sleep(0)
            await asyncio.sleep(instant * 0.0005)
            export.cancel()
            await asyncio.wait([export])
            assert parts.pool.in_use == 0
            assert not (layout / "blobs/sha256").exists() or sound(layout)
            assert export.cancelled() or whole(layout)
        await parts.job.stored.put(sink, [image], Mending("app", None))
    assert whole(layout)


# On its way in.


@contextmanager
def mirrored(registry: Registry, tmp_path: Path, *wrong: dict[Digest, bytes]) -> Iterator[list[Registry]]:
    """Mirrors before the registry, each with other bytes of some blobs."""
    with ExitStack() as serving:
        mirrors = [serving.enter_context(serve(Registry())) for _ in wrong]
        text = f'server = "http://{registry.address}"\n'
        for mirror, blobs in zip(mirrors, wrong, strict=True):
            mirror.add_image("app", "1", INDEX)
            for digest, data in blobs.items():
                mirror.add_blob(str(digest), data)
            text += f'[host."http://{mirror.address}"]\ncapabilities = ["pull", "resolve"]\n'
        hosts = tmp_path / "hosts" / registry.address
        hosts.mkdir(parents=True, exist_ok=True)
        (hosts / "hosts.toml").write_text(text)
        yield mirrors


def by_mirrors(tmp_path: Path) -> fastoci.RegistryOptions:
    """What ``mirrored`` wrote."""
    return fastoci.RegistryOptions(hosts_dir=tmp_path / "hosts")


def asked(registry: Registry, digest: Digest) -> int:
    return sum(str(digest) in record.path for record in registry.log)


def _other_tar(data: bytes) -> bytes:
    """Valid gzip of the same size with another, valid tar in it."""
    return padded(gzip.decompress(content(OTHER.layers[0])), len(data))


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": flipped,
    "a flipped bit in the header": lambda data: flipped(data, 0),
    "a flipped bit at the end": lambda data: flipped(data, 0.9999),
    "other content": _other_tar,
    "zeros": lambda data: bytes(len(data)),
    "a member less": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
}


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("kind", WRONG)
def test_what_a_mirror_sends_wrong_is_thrown_away_and_had_from_the_registry_in_the_same_run(
    registry: Registry, tmp_path: Path, run: Loop, kind: str, number: int
) -> None:
    layer = IMAGE.layers[number]
    wrong = {layer.descriptor.digest: WRONG[kind](content(layer))}
    assert len(wrong[layer.descriptor.digest]) == layer.descriptor.size
    with mirrored(registry, tmp_path, wrong) as [mirror]:

        async def unpack() -> None:
            async with fastoci.Engine(
                tmp_path / "store", registry=fastoci.RegistryOptions(hosts_dir=tmp_path / "hosts")
            ) as engine:
                await engine.pull(f"{registry.address}/app:1", rootfs=tmp_path / "root")

        run(unpack())
        assert asked(mirror, layer.descriptor.digest) == asked(registry, layer.descriptor.digest) == 1
    assert same(tmp_path / "root", *LAYERS) and whole(tmp_path / "store")


@pytest.mark.parametrize("number", [0, 1])
async def test_no_number_of_wrong_mirrors_ends_what_the_registry_would_serve(
    registry: Registry, tmp_path: Path, number: int
) -> None:
    digest = IMAGE.layers[number].descriptor.digest
    wrong = {digest: flipped(content(IMAGE.layers[number]))}
    with mirrored(registry, tmp_path, wrong, wrong, wrong) as mirrors:
        async with fastoci.Engine(
            tmp_path / "store", registry=fastoci.RegistryOptions(hosts_dir=tmp_path / "hosts")
        ) as engine:
            await engine.pull(f"{registry.address}/app:1", rootfs=tmp_path / "root")
        assert [asked(each, digest) for each in (*mirrors, registry)] == [1, 1, 1, 1]
    assert same(tmp_path / "root", *LAYERS) and whole(tmp_path / "store")


@pytest.mark.parametrize("number", [0, 1])
async def test_a_mirror_that_sent_wrong_bytes_is_not_asked_first_by_the_next_run(
    registry: Registry, tmp_path: Path, number: int
) -> None:
    """The registry lacks the blob in the first run, so that it fails."""
    layer = IMAGE.layers[number]
    digest = layer.descriptor.digest
    registry.remove_blob(str(digest))
    with mirrored(registry, tmp_path, {digest: flipped(content(layer))}) as [mirror]:

        async def unpack() -> None:
            async with fastoci.Engine(
                tmp_path / "store", registry=fastoci.RegistryOptions(hosts_dir=tmp_path / "hosts")
            ) as engine:
                await engine.pull(f"{registry.address}/app:1", rootfs=tmp_path / "root")

        with pytest.raises(FastociError):
            await unpack()
        before = asked(mirror, digest)
        registry.add_blob(str(digest), content(layer))
        await unpack()
        assert asked(mirror, digest) == before
    assert same(tmp_path / "root", *LAYERS) and whole(tmp_path / "store")
    assert list((tmp_path / "store" / "ingest").iterdir()) == []


async def test_what_was_found_damaged_is_fetched_again_by_the_next_run(registry: Registry, tmp_path: Path) -> None:
    """Also by one that hashes nothing: a pull into the store alone."""
    reference, base, store = f"{registry.address}/app:1", tmp_path / "base", tmp_path / "store"
    await pulled(base, reference)
    other = IMAGE.layers[0].descriptor.digest
    async with fastoci.Engine(store, additional=[base]) as engine:
        await engine.pull(reference)
    damage(base, other)
    async with fastoci.Engine(store, additional=[base]) as engine:
        with pytest.raises(IntegrityError):
            await engine.export(tmp_path / "one", [reference])
    async with fastoci.Engine(base) as engine:
        with pytest.raises(IntegrityError):
            await engine.export(tmp_path / "two", [reference])
    assert not file(store, other).exists()
    await pulled(base, reference)
    assert whole(base) and list((base / "unsynced").rglob("sha256-*")) == []
    async with fastoci.Engine(store, additional=[base]) as engine:
        await engine.pull(reference)
    assert Digest.of(file(store, other).read_bytes()) == other
    assert list((store / "unsynced").rglob("sha256-*")) == []


async def test_what_was_found_damaged_where_no_marker_can_be_made_is_an_error_each_time(
    registry: Registry, tmp_path: Path
) -> None:
    reference, store = f"{registry.address}/app:1", tmp_path / "store"
    await pulled(store, reference)
    damage(store, LAYER)
    (store / "unsynced").mkdir(0o755)
    (store / "unsynced" / "corrupt").write_text("a file where the markers belong")
    for _ in range(2):
        async with fastoci.Engine(store) as engine:
            with pytest.raises(IntegrityError):
                await engine.export(tmp_path / "layout", [reference])


def test_a_registry_that_stays_wrong_is_an_integrity_error_and_leaves_nothing(
    registry: Registry, tmp_path: Path, run: Loop
) -> None:
    layer = IMAGE.layers[0]
    registry.add_blob(str(layer.descriptor.digest), flipped(content(layer)))
    with pytest.raises(DigestMismatchError) as caught:
        run(pulled(tmp_path / "store", f"{registry.address}/app:1", tmp_path / "root"))
    assert caught.value.subject == str(layer.descriptor.digest)
    assert asked(registry, layer.descriptor.digest) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["store"] and sound(tmp_path / "store")


# As a process.


class Cli(Protocol):
    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


def test_the_exit_code_says_that_the_bytes_are_wrong_and_a_repair_brings_the_right_ones(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    reference, store, layout = f"{registry.address}/app:1", tmp_path / "store", tmp_path / "layout"
    options = ("--store", store, "--progress", "none")
    assert cli("pull", reference, *options).returncode == 0
    damage(store, LAYER)
    viewed = cli("view", layout, reference, "--store", store)
    assert viewed.returncode == 6 and str(LAYER) in viewed.stderr and "repair" in viewed.stderr
    assert cli("repair", reference, *options).returncode == 0
    assert cli("view", layout, reference, "--store", store).returncode == 0
    damage(store, CONFIG)
    shown = cli("inspect", reference, "--store", store)
    assert shown.returncode == 6 and str(CONFIG) in shown.stderr
    damage(store, LAYER, 0.1)
    assert cli("pull", reference, "--rootfs", tmp_path / "root", "--oci", tmp_path / "oci", *options).returncode == 0
    assert same(tmp_path / "root", *LAYERS) and whole(tmp_path / "oci") and whole(store)
