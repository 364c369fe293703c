"""The library as others use it: images pulled from a real registry on loopback, into a shared store.

Covers: engine_maintenance.py, jobs/image.py, jobs/plan.py, jobs/pull.py, store/index_updates.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

import fastoci
from fastoci.errors import (
    BlobNotFoundError,
    ConnectError,
    DigestMismatchError,
    FormatError,
    NotFoundError,
    PlatformError,
    ReferenceSyntaxError,
    RootfsOccupiedError,
    StoreError,
    UnsupportedError,
)
from fastoci.events import Event, UnpackDone, UnpackSkipped
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.registry.auth.credentials import load
from fastoci.registry.client import Registry as Client
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer, directory, whiteout
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, listing
from support.engine_parts import add_images, shared_images

if TYPE_CHECKING:
    from fastoci.interfaces import BlobSource


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(add_images(Registry(), shared_images())) as registry:
        yield registry


def blob_requests(registry: Registry) -> list[str]:
    return [record.path.rpartition("/")[2] for record in registry.log if "/blobs/" in record.path]


async def test_an_image_is_pulled_verified_and_recorded(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        image = await engine.pull(f"{registry.address}/one")
        assert str(image.reference) == f"{registry.address}/one:latest"
        assert str(image.platform) == "linux/amd64"
        assert [ref.name for ref in await engine.images()] == [str(image.reference)]
        again = await engine.image(f"{registry.address}/one:latest")
        assert again.manifest.raw == image.manifest.raw
        assert again.size == image.size
    for blob in (tmp_path / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert list((tmp_path / "ingest").iterdir()) == []


async def test_a_second_pull_fetches_no_blob(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        await engine.pull(f"{registry.address}/one")
    before = len(registry.log)
    async with fastoci.Engine(tmp_path) as engine:
        await engine.pull(f"{registry.address}/one")
    assert [record.path for record in registry.log[before:]] == ["/v2/one/manifests/latest"]


async def test_images_that_share_layers_fetch_each_blob_once(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        pulls = [engine.pull(f"{registry.address}/{name}") for name in ("one", "two", "three")]
        images = await asyncio.gather(*pulls, engine.pull(f"{registry.address}/one"))
    unique = {str(blob.digest) for image in images for blob in (image.manifest.config, *image.manifest.layers)}
    assert sorted(blob_requests(registry)) == sorted(unique)


@pytest.mark.parametrize("together", [True, False], ids=["while layers arrive", "afterwards"])
async def test_a_rootfs_is_what_the_layers_say(registry: Registry, tmp_path: Path, together: bool) -> None:
    lower = Layer.build(
        [directory("etc"), Entry("etc/gone", "file", b"1"), Entry("etc/stays", "file", b"2"), Entry("run", "file", b"")]
    )
    upper = Layer.build([whiteout("etc/gone"), directory("run", mode=0o700), Entry("run/new", "file", b"3")], "zstd")
    registry.add_image("tree", "latest", Image.build([lower, upper]))
    async with fastoci.Engine(tmp_path / "store") as engine:
        if together:
            await engine.pull(f"{registry.address}/tree", rootfs=tmp_path / "root")
        else:
            await (await engine.pull(f"{registry.address}/tree")).unpack(tmp_path / "root")
    names = {node.path for node in listing(tmp_path / "root")}
    assert names == {"etc", "etc/stays", "run", "run/new"}
    assert (tmp_path / "root" / "run").stat().st_mode & 0o7777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] in (["store", "root"], ["root", "store"])


async def test_a_wrong_diff_id_leaves_no_rootfs(registry: Registry, tmp_path: Path) -> None:
    layer = Layer.build([Entry("a", "file", b"1")])
    image = Image.build([layer])
    config = json.loads(image.config)
    config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    bad = json.dumps(config).encode()
    manifest = json.loads(image.manifest)
    manifest["config"] |= {"digest": f"sha256:{hashlib.sha256(bad).hexdigest()}", "size": len(bad)}
    registry.add_image("good", "latest", image)
    registry.add_blob(manifest["config"]["digest"], bad)
    registry.add_manifest("bad", "latest", image.media_type, json.dumps(manifest).encode())
    async with fastoci.Engine(tmp_path / "store") as engine:
        with pytest.raises(DigestMismatchError) as caught:
            await engine.pull(f"{registry.address}/bad", rootfs=tmp_path / "root")
    assert caught.value.image == f"{registry.address}/bad"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("lost", ["nothing", "reference", "store"])
async def test_a_second_pull_to_a_finished_rootfs_leaves_it_and_brings_the_rest(
    registry: Registry, tmp_path: Path, lost: str
) -> None:
    seen: list[Event] = []
    for number in range(2):
        async with fastoci.Engine(tmp_path / "store", observer=seen.append) as engine:
            image = await engine.pull(f"{registry.address}/one", rootfs=tmp_path / "root")
            assert [ref.name for ref in await engine.images()] == [str(image.reference)]
            await image.unpack(tmp_path / "root")
        if number == 0:
            first = (tmp_path / "root").stat().st_ino
            if lost == "store":
                shutil.rmtree(tmp_path / "store")
            elif lost == "reference":  # as after a kill between the tree's name and the reference's record
                shutil.rmtree(tmp_path / "store" / "refs")
    assert (tmp_path / "root").stat().st_ino == first
    assert [type(event) for event in seen if isinstance(event, UnpackDone | UnpackSkipped)] == [
        UnpackDone,
        *[UnpackSkipped] * 3,
    ]
    assert set(os.listdir(tmp_path)) == {"root", "store"}


async def test_a_rootfs_of_another_image_is_refused_before_a_layer_is_fetched(
    registry: Registry, tmp_path: Path
) -> None:
    registry.add_image("alone", "latest", Image.build([Layer.build([Entry("a", "file", b"1")])]))
    async with fastoci.Engine(tmp_path / "store") as engine:
        image = await engine.pull(f"{registry.address}/one", rootfs=tmp_path / "root")
        before = len(blob_requests(registry))
        with pytest.raises(RootfsOccupiedError, match=str(image.manifest_descriptor.digest)) as caught:
            await engine.pull(f"{registry.address}/alone", rootfs=tmp_path / "root")
        assert caught.value.held == str(image.manifest_descriptor.digest)
        assert len(blob_requests(registry)) == before
        with pytest.raises(RootfsOccupiedError, match="owners"):
            await image.unpack(tmp_path / "root", same_owner=os.geteuid() != 0)


async def test_a_rootfs_is_not_unpacked_over_what_is_there(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine").write_text("")
    async with fastoci.Engine(tmp_path / "store") as engine:
        image = await engine.pull(f"{registry.address}/one")
        with pytest.raises(StoreError, match="not an empty directory"):
            await image.unpack(tmp_path / "root")
        (tmp_path / "root" / "mine").unlink()
        await image.unpack(tmp_path / "root")


async def test_the_platform_is_chosen_from_an_index(registry: Registry, tmp_path: Path) -> None:
    by_platform = {
        text: Image.build([Layer.build([Entry(text.replace("/", "-"), "file", b"")])], platform=Platform.parse(text))
        for text in ("linux/arm64", "linux/amd64", "linux/arm/v7")
    }
    registry.add_image("multi", "latest", Index.build(list(by_platform.values())))
    async with fastoci.Engine(tmp_path) as engine:
        for text, image in by_platform.items():
            pulled = await engine.pull(f"{registry.address}/multi", platform=text)
            assert pulled.manifest_descriptor.digest == image.descriptor.digest
            assert str(pulled.platform) == text
        (ref,) = await engine.images()
        assert set(ref.images) == set(by_platform)
        assert (
            str((await engine.image(f"{registry.address}/multi", platform="linux/arm/v7")).platform) == "linux/arm/v7"
        )
        with pytest.raises(PlatformError) as caught:
            await engine.pull(f"{registry.address}/multi", platform="linux/s390x")
    assert set(caught.value.available) == set(by_platform)


async def test_a_lone_manifest_of_another_platform_is_refused_when_one_was_asked_for(
    registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(PlatformError, match="linux/amd64 only"):
            await engine.pull(f"{registry.address}/one", platform="linux/arm64")


async def test_an_artifact_is_pulled_and_only_refused_when_it_should_be_unpacked(
    registry: Registry, tmp_path: Path
) -> None:
    image = Image.build([Layer.build([Entry("a", "file", b"1")])])
    manifest = json.loads(image.manifest)
    manifest["config"]["mediaType"] = "application/vnd.example.thing"
    manifest["layers"][0]["mediaType"] = "text/plain"
    registry.add_image("image", "latest", image)
    registry.add_manifest("thing", "latest", image.media_type, json.dumps(manifest).encode())
    async with fastoci.Engine(tmp_path / "store") as engine:
        artifact = await engine.pull(f"{registry.address}/thing")
        assert artifact.config is None
        with pytest.raises(UnsupportedError, match="not a container image"):
            await artifact.unpack(tmp_path / "root")


async def test_blobs_are_fetched_for_pullers_with_manifests_of_their_own(registry: Registry, tmp_path: Path) -> None:
    layers = [layer.descriptor for layer in shared_images()["one"].layers]
    reference = Reference.parse(f"{registry.address}/one")
    async with Client(credentials=load(environ={})) as client, fastoci.Engine(tmp_path) as engine:
        source = client.repository(reference)
        await engine.fetch([*layers, *layers], source)
        await engine.fetch(layers, source)
    assert sorted(blob_requests(registry)) == sorted(str(layer.digest) for layer in layers)


async def test_a_digest_pins_the_image(registry: Registry, tmp_path: Path) -> None:
    digest = shared_images()["one"].descriptor.digest
    async with fastoci.Engine(tmp_path) as engine:
        image = await engine.pull(f"{registry.address}/one@{digest}")
        assert image.descriptor.digest == digest
        other = "sha256:" + "1" * 64
        registry.add_manifest("one", other, image.manifest.media_type, image.manifest.raw)
        with pytest.raises(DigestMismatchError):
            await engine.pull(f"{registry.address}/one@{other}")


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("{address}/absent", NotFoundError),
        ("{address}/one:absent", NotFoundError),
        ("127.0.0.1:1/one", ConnectError),
        ("Not a reference", ReferenceSyntaxError),
    ],
)
async def test_what_cannot_be_had_is_a_typed_error(
    registry: Registry, tmp_path: Path, reference: str, error: type[Exception]
) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(error):
            await engine.pull(reference.format(address=registry.address))
        with pytest.raises((BlobNotFoundError, ReferenceSyntaxError)):
            await engine.image(reference.format(address=registry.address))


async def test_one_missing_blob_fails_the_pull_and_keeps_the_others(registry: Registry, tmp_path: Path) -> None:
    images = shared_images()
    lost = images["one"].layers[0].descriptor
    registry.remove_blob(str(lost.digest))
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(NotFoundError) as caught:
            await engine.pull(f"{registry.address}/one")
        assert caught.value.blob == str(lost.digest)
        assert await engine.images() == ()
        registry.add_image("one", "latest", images["one"])
        await engine.pull(f"{registry.address}/one")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"schemaVersion"', '"schemaVersion": 2, "schemaVersion"', 1),
        lambda text: text.replace('"size": ', '"size": -', 1).replace('"size":', '"size":-', 1),
        lambda text: text[:-1],
    ],
    ids=["duplicate keys", "negative size", "cut"],
)
async def test_a_bad_manifest_is_refused(registry: Registry, tmp_path: Path, change: object) -> None:
    image = shared_images()["one"]
    bad = change(image.manifest.decode())  # type: ignore[operator]
    assert bad != image.manifest.decode()
    registry.add_manifest("bad", "latest", image.media_type, bad.encode())
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(FormatError):
            await engine.pull(f"{registry.address}/bad")
    assert list((tmp_path / "blobs" / "sha256").iterdir()) == []


async def test_unpacking_an_image_counts_as_its_use_and_looking_at_it_does_not(
    registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path / "store") as engine:
        image = await engine.pull(f"{registry.address}/one")
        (ref,) = (tmp_path / "store" / "refs").glob("*/" + "?" * 64)
        os.utime(ref, (1_000_000, 1_000_000))
        await engine.images()
        image = await engine.image(f"{registry.address}/one")
        assert ref.stat().st_mtime == 1_000_000
        await image.unpack(tmp_path / "root")
        assert ref.stat().st_mtime > 1_000_000


async def test_an_exported_layout_holds_the_image(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "store") as engine:
        for name in ("one", "two"):
            await (await engine.pull(f"{registry.address}/{name}")).export(tmp_path / "layout")
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
    assert names == [f"{registry.address}/one:latest", f"{registry.address}/two:latest"]
    for blob in (tmp_path / "layout" / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_a_program_without_a_loop_pulls_in_one_call(registry: Registry, tmp_path: Path) -> None:
    store = fastoci.pull(f"{registry.address}/one", store=tmp_path / "store", rootfs=tmp_path / "root")
    assert store == tmp_path / "store"
    assert (tmp_path / "root" / "layer0").is_dir()


async def test_layer_files_are_applied_in_order(tmp_path: Path) -> None:
    one = Layer.build([Entry("a", "file", b"1"), Entry("b", "file", b"2")])
    two = Layer.build([whiteout("a")], "none")
    for name, layer in (("one", one), ("two", two)):
        assert isinstance(layer.content, bytes)
        (tmp_path / name).write_bytes(layer.content)
    await fastoci.apply(tmp_path / "root", [tmp_path / "one", tmp_path / "two"])
    assert [node.path for node in listing(tmp_path / "root")] == ["b"]
    assert differences(listing(tmp_path / "root"), listing(tmp_path / "root")) == []


_CALLS: dict[str, Callable[[fastoci.Engine], Awaitable[object]]] = {
    "pull": lambda engine: engine.pull("h/app"),
    "pull_platforms": lambda engine: engine.pull_platforms("h/app", ["all"]),
    "plan_prefetch": lambda engine: engine.plan_prefetch([]),
    "prefetch": lambda engine: engine.prefetch([]),
    "copy": lambda engine: engine.copy("oci:/nowhere", "oci:/nowhere"),
    "copy_all": lambda engine: engine.copy_all(["oci:/nowhere"], "oci:/nowhere"),
    "fetch": lambda engine: engine.fetch([], cast("BlobSource", None)),
    "images": lambda engine: engine.images(),
    "image": lambda engine: engine.image("h/app"),
    "usage": lambda engine: engine.usage(),
    "verify": lambda engine: engine.verify(),
    "repair": lambda engine: engine.repair(),
    "remove": lambda engine: engine.remove("h/app"),
    "pin": lambda engine: engine.pin("h/app"),
    "plan_gc": lambda engine: engine.plan_gc(),
    "gc": lambda engine: engine.gc(),
    "podman_images": lambda engine: engine.podman_images(),
    "hide_from_podman": lambda engine: engine.hide_from_podman("a"),
    "export": lambda engine: engine.export("layout"),
    "publish": lambda engine: engine.publish("h/app", "h/fast"),
    "pack": lambda engine: engine.pack(".", "h/app"),
    "hold": lambda engine: engine.hold([]).__aenter__(),
    "record": lambda engine: engine.record("h/app", b"{}"),
    "resolve": lambda engine: engine.resolve("h/app"),
    "inspect": lambda engine: engine.inspect("h/app"),
    "attachments": lambda engine: engine.attachments("h/app"),
    "compare": lambda engine: engine.compare("h/app", "h/other"),
    "comparing": lambda engine: engine.comparing("h/app", "h/other").__aenter__(),
    "platforms": lambda engine: engine.platforms("h/app"),
    "tags": lambda engine: engine.tags("h/app"),
    "push": lambda engine: engine.push("h/app"),
    "tag": lambda engine: engine.tag("h/app", "h/app:2"),
    "delete": lambda engine: engine.delete("h/app:1"),
    "open": lambda engine: engine.open(fastoci.Digest.of(b"")),
    "path": lambda engine: engine.path(fastoci.Digest.of(b"")),
    "read": lambda engine: engine.read(fastoci.Digest.of(b"")),
}


def test_every_method_of_an_engine_is_in_the_table_of_calls() -> None:
    assert _CALLS.keys() == {name for name in dir(fastoci.Engine) if not name.startswith("_")}


@pytest.mark.parametrize("name", _CALLS)
async def test_an_engine_that_is_not_open_says_so(tmp_path: Path, name: str) -> None:
    engine = fastoci.Engine(tmp_path / "store")
    with pytest.raises(RuntimeError, match="not open: use it inside `async with"):
        await _CALLS[name](engine)
    assert not (tmp_path / "store").exists()
    async with engine:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        await _CALLS[name](engine)


async def test_an_engine_is_entered_once_at_a_time_and_again_later(registry: Registry, tmp_path: Path) -> None:
    engine = fastoci.Engine(tmp_path)
    for _ in range(2):
        async with engine:
            with pytest.raises(RuntimeError, match="open already"):
                await engine.__aenter__()
            await engine.pull(f"{registry.address}/one")


async def test_a_file_that_is_not_a_reference_is_told_and_the_images_are_listed(
    registry: Registry, tmp_path: Path
) -> None:
    events: list[fastoci.events.Event] = []
    async with fastoci.Engine(tmp_path, observer=events.append) as engine:
        await engine.pull(f"{registry.address}/one")
        (tmp_path / "refs" / "zz").mkdir()
        (tmp_path / "refs" / "zz" / ("1" * 64)).write_text("{}")
        assert [image.name for image in await engine.images()] == [f"{registry.address}/one:latest"]
    (warning,) = [event.message for event in events if isinstance(event, fastoci.events.Warned)]
    assert f"refs/zz/{'1' * 64}" in warning


@pytest.mark.attack
def test_registry_options_hide_the_password_and_hold_paths_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = fastoci.RegistryOptions(creds=("me", "hunter2"), authfile="auth.json", credential_providers=("c", "d"))
    assert "hunter2" not in repr(options)
    assert options.authfile == tmp_path / "auth.json"
    assert options.credential_providers == (tmp_path / "c", tmp_path / "d")


def test_a_pull_in_one_call_asks_as_the_options_say(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "hosts" / "gone.invalid").mkdir(parents=True)
    text = f'[host."http://{registry.address}"]\n  capabilities = ["pull", "resolve"]\n'
    (tmp_path / "hosts" / "gone.invalid" / "hosts.toml").write_text(text)
    options = fastoci.RegistryOptions(hosts_dir=tmp_path / "hosts")
    fastoci.pull("gone.invalid/one", store=tmp_path / "store", registry=options)


async def test_the_log_has_the_life_of_an_image_on_every_floor(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference = f"{registry.address}/one:latest"
    options = fastoci.RegistryOptions(creds=("me", "pa55word"))
    with caplog.at_level(logging.DEBUG, "fastoci"):
        async with fastoci.Engine(tmp_path / "store", registry=options) as engine:
            await asyncio.gather(*(engine.pull(reference, rootfs=tmp_path / name) for name in ("a", "b")))
            await engine.gc()
    said = "\n".join(f"{record.name}: {record.getMessage()}" for record in caplog.records)
    assert ": open, on a file system of type 0x" in said
    assert " of 4 blobs are missing" in said
    assert f" {reference} joins the flight for {reference}" in said
    assert "fastoci.transfer.unpacker: sha256:" in said
    assert f"fastoci.registry.http.transport: GET http://{registry.address}/v2/one/manifests/latest: 200" in said
    assert ": gc would delete 0 items and keep " in said
    assert "pa55word" not in said
