"""An engine for another puller: blobs by digest, names of one's own, and what is said to a program that errs.

Covers: arguments.py, jobs/record.py, shortcuts.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import fastoci
from fastoci.errors import BlobNotFoundError, DigestMismatchError, FormatError, UnsupportedError
from fastoci.image import mediatype
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer, from_seed
from fastoci.testing.registry import Registry

ABSENT = fastoci.Digest.of(b"absent")


def image() -> Image:
    return Image.build([Layer.build(from_seed(n, files=3, size=5000, at=f"l{n}"), "gzip") for n in range(2)])


class FromImage:
    """A ``BlobSource`` over an image in memory."""

    name = "memory"

    def __init__(self, image: Image) -> None:
        self.blobs = {descriptor.digest: content for descriptor, content in image.blobs()}

    async def fetch(
        self, blob: fastoci.Descriptor, offset: int, buffers: fastoci.BufferSource
    ) -> AsyncGenerator[fastoci.Buffer, None]:
        data = self.blobs[blob.digest]
        assert isinstance(data, bytes)
        while offset < len(data):
            buffer = await buffers.take()
            offset += buffer.append(data, offset)
            yield buffer


async def test_another_puller_holds_fetches_and_records_an_image(tmp_path: Path) -> None:
    built = image()
    async with fastoci.Engine(tmp_path / "store") as engine:
        blobs = [descriptor for descriptor, _ in built.blobs()]
        async with engine.hold([blob.digest for blob in blobs]):
            await engine.fetch(blobs, FromImage(built))
            assert await engine.gc() == ()
            named = await engine.record("registry.example/app:1", built.manifest)
        assert str(named.platform) == "linux/amd64"
        assert await engine.gc() == ()
        assert [each.name for each in await engine.images()] == ["registry.example/app:1"]
        await (await engine.image("registry.example/app:1")).unpack(tmp_path / "root")
        assert (tmp_path / "root" / "l0").is_dir()


async def test_blobs_that_are_not_held_are_garbage(tmp_path: Path) -> None:
    built = image()
    async with fastoci.Engine(tmp_path) as engine:
        blobs = [descriptor for descriptor, _ in built.blobs()]
        await engine.fetch(blobs, FromImage(built))
        assert {item.name for item in await engine.gc()} == {str(blob.digest) for blob in blobs}
        with pytest.raises(BlobNotFoundError, match=r"registry\.example/app:1 needs 3 blobs"):
            await engine.record("registry.example/app:1", built.manifest)
        assert await engine.images() == ()


async def test_only_a_manifest_gets_a_name(tmp_path: Path) -> None:
    index = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(UnsupportedError, match="not of an index"):
            await engine.record("registry.example/app:1", index)
        with pytest.raises(FormatError):
            await engine.record("registry.example/app:1", b"{}", media_type=mediatype.OCI_MANIFEST)


async def test_a_blob_is_opened_found_and_read_by_its_digest_alone(tmp_path: Path) -> None:
    built = image()
    config = fastoci.Descriptor.of(built.config, built.config_type)
    async with fastoci.Engine(tmp_path) as engine:
        await engine.fetch([config], FromImage(built))
        data = built.config
        assert await engine.read(config.digest) == data
        assert (await engine.path(config.digest)).read_bytes() == data
        fd = await engine.open(config.digest)
        try:
            assert os.read(fd, 1 << 20) == data
        finally:
            os.close(fd)
        for ask in (engine.read, engine.path, engine.open):
            with pytest.raises(BlobNotFoundError):
                await ask(ABSENT)
            with pytest.raises(TypeError, match=r"Digest\.parse"):
                await ask(str(config.digest))  # type: ignore[arg-type]


async def test_a_blob_of_an_additional_store_is_found_too(tmp_path: Path) -> None:
    built = image()
    layer = built.layers[0].descriptor
    async with fastoci.Engine(tmp_path / "other") as engine:
        await engine.fetch([layer], FromImage(built))
    async with fastoci.Engine(tmp_path / "own", additional=[tmp_path / "other"]) as engine:
        assert await engine.path(layer.digest) == tmp_path / "other" / "blobs" / "sha256" / layer.digest.hex


async def test_a_damaged_blob_is_not_read(tmp_path: Path) -> None:
    built = image()
    config = fastoci.Descriptor.of(built.config, built.config_type)
    async with fastoci.Engine(tmp_path) as engine:
        await engine.fetch([config], FromImage(built))
        path = await engine.path(config.digest)
        path.chmod(0o644)
        path.write_bytes(b"x" * config.size)
        with pytest.raises(DigestMismatchError):
            await engine.read(config.digest)


async def test_a_name_is_resolved_without_a_blob(tmp_path: Path) -> None:
    built = image()
    async with Registry() as registry, fastoci.Engine(tmp_path) as engine:
        registry.add_image("app", "1", built)
        resolved = await engine.resolve(f"{registry.address}/app:1")
        assert resolved.manifest.raw == built.manifest
        assert await engine.images() == ()
        assert not [record for record in registry.log if "/blobs/" in record.path]


def test_a_descriptor_takes_no_text_for_a_digest() -> None:
    with pytest.raises(TypeError, match=r"digest: expected Digest, got str 'sha256:.*Digest\.parse"):
        fastoci.Descriptor("", str(ABSENT), 1)  # type: ignore[arg-type]


async def test_an_image_after_its_engine_says_so(tmp_path: Path) -> None:
    async with Registry() as registry:
        registry.add_image("app", "1", image())
        async with fastoci.Engine(tmp_path / "store") as engine:
            pulled = await engine.pull(f"{registry.address}/app:1")
            assert repr(pulled).startswith(f"<fastoci.Image {registry.address}/app:1 sha256:")
    with pytest.raises(RuntimeError, match="the engine was left"):
        await pulled.unpack(tmp_path / "root")
    assert not (tmp_path / "root").exists()


async def test_an_observer_that_raises_stops_nothing_and_is_said_at_the_end(tmp_path: Path) -> None:
    def observe(event: fastoci.events.Event) -> None:
        calls.append(event)
        raise ValueError("a fault of mine")

    calls: list[fastoci.events.Event] = []
    async with Registry() as registry:
        registry.add_image("app", "1", image())
        with pytest.raises(RuntimeError, match="the observer raised ValueError: a fault of mine") as raised:
            async with fastoci.Engine(tmp_path, observer=observe) as engine:
                await engine.pull(f"{registry.address}/app:1")
                assert len(await engine.images()) == 1
    assert isinstance(raised.value.__cause__, ValueError)
    assert len(calls) == 1


def test_an_engine_says_what_it_is(tmp_path: Path) -> None:
    assert repr(fastoci.Engine(tmp_path)) == f"<fastoci.Engine of {tmp_path}, not open>"


@pytest.mark.parametrize(
    "wrong", [None, 5, b"app:1", Path("app"), fastoci.Reference.parse("app:1")], ids=lambda each: type(each).__name__
)
async def test_what_is_no_text_is_no_reference_and_no_platform(wrong: Any, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        for ask in (engine.pull, engine.resolve, engine.tags, engine.image, engine.remove, engine.pin):
            with pytest.raises(TypeError, match="reference: expected str, got"):
                await ask(wrong)
        with pytest.raises(TypeError, match="reference: expected str, got"):
            await engine.record(wrong, b"{}")
        if wrong is not None:
            with pytest.raises(TypeError, match="platform: expected str, got"):
                await engine.pull("127.0.0.1:1/app", platform=wrong)


async def test_one_text_is_no_list(tmp_path: Path) -> None:
    one: Any = "127.0.0.1:1/app"
    with pytest.raises(TypeError, match="expected a list of str or PathLike, got str"):
        fastoci.Engine(tmp_path, additional=one)
    async with fastoci.Engine(tmp_path) as engine:
        for ask in (engine.images, engine.verify, engine.repair):
            with pytest.raises(TypeError, match="expected a list of str, got str"):
                await ask(one)
        with pytest.raises(TypeError, match="expected a list of str, got str"):
            await engine.export(tmp_path / "layout", one)
        with pytest.raises(TypeError, match="expected a list of Digest, got str"):
            async with engine.hold(one):
                pass
        with pytest.raises(TypeError, match="expected a list of Descriptor, with str"):
            await engine.fetch([one], FromImage(image()))
    assert not (tmp_path / "layout").exists()


async def test_a_pull_by_digest_of_what_is_there_asks_nobody(tmp_path: Path) -> None:
    built = image()
    async with Registry() as registry:
        registry.add_image("app", "1", built)
        name = f"{registry.address}/app@{built.descriptor.digest}"
        async with fastoci.Engine(tmp_path, registry=fastoci.RegistryOptions(tls_verify=False)) as engine:
            await engine.pull(f"{registry.address}/app:1")
            await engine.pull(name)
            asked = len(registry.log)
            pulled = await engine.pull(name)
            assert len(registry.log) == asked
            assert pulled.manifest_descriptor.digest == built.descriptor.digest
            assert name in {each.name for each in await engine.images()}
            path = await engine.path(built.layers[0].descriptor.digest)
            path.unlink()
            await engine.pull(name)
            assert path.exists(), "what is gone is fetched"


async def test_an_argument_that_means_nothing_is_refused(tmp_path: Path) -> None:
    wrong: Any = "sometimes"
    for name in ("limits", "observer"):
        with pytest.raises(TypeError, match=name):
            fastoci.Engine(tmp_path, **{name: wrong})
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(ValueError, match="policy: 'sometimes' is none of always, missing, never"):
            await engine.pull("127.0.0.1:1/app", policy=wrong)
        with pytest.raises(ValueError, match="rate: 0 is less than 1"):
            await engine.verify(rate=0)
        with pytest.raises(TypeError, match="plan: expected GcPlan, got Retention"):
            await engine.gc(fastoci.Retention())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="retention: expected Retention, got str"):
            await engine.plan_gc(wrong)
        with pytest.raises(TypeError, match="manifest: expected bytes, got str"):
            await engine.record("app", wrong)
        with pytest.raises(TypeError, match=r"source\.fetch: NoneType None cannot be called"):
            await engine.fetch([], wrong)
    with pytest.raises(ValueError, match="size: -1"):
        fastoci.Descriptor("", ABSENT, -1)
    with pytest.raises(TypeError, match="workers"):
        fastoci.Limits(workers=1.5)  # type: ignore[arg-type]


async def test_a_source_whose_fetch_is_no_generator_is_named(tmp_path: Path) -> None:
    class Source:
        name = "mine"

        def fetch(self, *_: object) -> list[bytes]:
            return [b"x"]

    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(TypeError, match="fetch of mine gives list, and is to be an async generator"):
            await engine.fetch([fastoci.Descriptor("", ABSENT, 1)], Source())  # type: ignore[arg-type]


async def test_a_name_with_a_digest_is_not_given_to_another_manifest(tmp_path: Path) -> None:
    built = image()
    async with fastoci.Engine(tmp_path / "store") as engine:
        blobs = [descriptor for descriptor, _ in built.blobs()]
        async with engine.hold([blob.digest for blob in blobs]):
            await engine.fetch(blobs, FromImage(built))
            with pytest.raises(DigestMismatchError, match=f"is {built.descriptor.digest}"):
                await engine.record(f"app@{ABSENT}", built.manifest)
            assert await engine.images() == ()
            await engine.record(f"app@{built.descriptor.digest}", built.manifest)
        assert len(await engine.images()) == 1


async def test_an_engine_says_that_it_is_of_another_loop(tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(RuntimeError, match="open on another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(engine.images()))
        assert await engine.images() == ()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_inside_a_source_leaves_the_loop_once_and_no_task_behind(
    kind: type[BaseException], tmp_path: Path
) -> None:
    class Source(FromImage):
        async def fetch(self, *_: object) -> AsyncGenerator[fastoci.Buffer, None]:
            raise kind
            yield

    ended: list[str] = []

    async def pull() -> None:
        built = image()
        async with fastoci.Engine(tmp_path) as engine:
            try:
                await engine.fetch([built.layers[0].descriptor], Source(built))
            finally:
                ended.append("fetch")

    with pytest.raises(kind):
        asyncio.run(pull())
    assert ended == ["fetch"]


class Joined(logging.Handler):
    """Is told, by the log, when a second task waits for a flight."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "joins the flight" in record.getMessage():
            self.event.set()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_inside_a_source_leaves_the_loop_once_for_all_who_wait(
    kind: type[BaseException], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built, begun, joined = image(), asyncio.Event(), Joined()
    blob = built.layers[0].descriptor

    class Source(FromImage):
        name = "mine"

        async def fetch(self, *_: object) -> AsyncGenerator[fastoci.Buffer, None]:
            begun.set()
            await joined.event.wait()
            raise kind
            yield

    async def pull() -> list[BaseException | None]:
        async with fastoci.Engine(tmp_path) as engine:
            first = asyncio.create_task(engine.fetch([blob], Source(built)))
            await begun.wait()
            second = asyncio.create_task(engine.fetch([blob], FromImage(built)))
            await asyncio.wait([first, second])
            assert (await engine.path(blob.digest)).stat().st_size == blob.size
            return [first.exception(), second.exception()]

    caplog.set_level(logging.DEBUG, "fastoci.transfer.scheduler")
    logger = logging.getLogger("fastoci.transfer.scheduler")
    logger.addHandler(joined)
    with closing(asyncio.new_event_loop()) as loop:
        try:
            task, left = loop.create_task(pull()), list[BaseException]()
            while not task.done():
                try:
                    loop.run_until_complete(task)
                except (KeyboardInterrupt, SystemExit) as error:
                    left.append(error)
        finally:
            logger.removeHandler(joined)
    assert [type(error) for error in left] == [kind]
    ended, arrived = task.result()
    assert isinstance(ended, RuntimeError)
    assert str(ended) == f"the fetch of {blob.digest} was interrupted"
    assert arrived is None
