"""The first layer is unpacked while it arrives; and whatever comes between, the tree and the errors are the same.

Covers: transfer/layer_source.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from fastoci import _core
from fastoci._core import Buffer
from fastoci.errors import DigestMismatchError, FormatError, NotFoundError, TruncatedError, UnsafePathError
from fastoci.events import BlobDone, BlobStarted, ImagePlanned, UnpackProgress, UnpackStarted
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.interfaces import BufferSource
from fastoci.jobs.outputs import Outputs
from fastoci.limits import Limits
from fastoci.testing.images import Image
from fastoci.testing.layers import Compression, Entry, Layer
from fastoci.testing.registry import Registry, serve
from fastoci.transfer.tee import Tee
from support.engine_parts import EngineParts, open_parts
from support.images import FIRST, SECOND, THIRD, Slow, image_of, made, same


@pytest.fixture
async def pool() -> AsyncIterator[_core.Pool]:
    """A pool that must be whole at the end."""
    made = _core.Pool(8 << 20, poison=True)
    yield made
    assert made.in_use == 0


def filled(pool: _core.Pool, data: bytes) -> Buffer:
    buffer = pool.take()
    assert buffer is not None
    buffer.append(data)
    return buffer


async def steps(count: int = 5) -> None:
    """Let every task that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def read(tee: Tee) -> list[bytes]:
    seen = []
    async for buffer in tee.buffers():
        seen.append(bytes(buffer))
        buffer.release()
    return seen


async def test_the_reader_has_every_buffer_in_order_and_then_the_end(pool: _core.Pool) -> None:
    tee = Tee()
    reader = asyncio.create_task(read(tee))
    for number in range(20):
        await tee.feed(filled(pool, b"%d" % number))
    tee.end()
    assert await reader == [b"%d" % number for number in range(20)]


async def test_the_flight_waits_while_the_reader_is_behind(pool: _core.Pool) -> None:
    tee = Tee()
    await tee.feed(filled(pool, b"a"))
    flight = asyncio.create_task(tee.feed(filled(pool, b"b")))
    await steps()
    assert not flight.done()
    buffers = tee.buffers()
    (await anext(buffers)).release()
    await flight
    tee.close()


async def test_the_reader_is_told_whether_the_blob_comes_this_way(pool: _core.Pool) -> None:
    used, unused = Tee(), Tee()
    answers = [asyncio.create_task(tee.begins()) for tee in (used, unused)]
    await steps()
    assert not any(answer.done() for answer in answers)
    await used.feed(filled(pool, b"a"))
    unused.end()
    assert await asyncio.gather(*answers) == [True, False]
    used.end()
    assert await used.begins()
    assert await read(used) == [b"a"]


async def test_a_spoiled_tee_gives_nothing_more_and_is_not_begun(pool: _core.Pool) -> None:
    begun, late = Tee(), Tee()
    buffers = begun.buffers()
    for tee in (begun, late):
        await tee.feed(filled(pool, b"wrong"))
    (await anext(buffers)).release()
    await begun.feed(filled(pool, b"wrong, too"))
    for tee in (begun, late):
        tee.spoil()
    assert [bytes(buffer) async for buffer in buffers] == []
    assert not await late.begins()
    for tee in (begun, late):
        tee.close()


async def test_a_reader_that_wants_no_more_lets_the_flight_go_on(pool: _core.Pool) -> None:
    tee = Tee()
    await tee.feed(filled(pool, b"a"))
    flight = asyncio.create_task(tee.feed(filled(pool, b"b")))
    await steps()
    tee.close()
    await flight
    assert pool.in_use == 0
    await tee.feed(filled(pool, b"c"))
    assert pool.in_use == 0
    tee.close()


async def test_a_cancelled_flight_leaves_its_buffer_to_the_reader(pool: _core.Pool) -> None:
    tee = Tee()
    await tee.feed(filled(pool, b"a"))
    flight = asyncio.create_task(tee.feed(filled(pool, b"b")))
    await steps()
    flight.cancel()
    await asyncio.wait([flight])
    tee.end()
    assert await read(tee) == [b"a", b"b"]


async def test_a_cancelled_reader_leaves_the_buffers_to_close(pool: _core.Pool) -> None:
    tee = Tee()
    reader = asyncio.create_task(read(tee))
    await steps()
    await tee.feed(filled(pool, b"a"))
    reader.cancel()
    await asyncio.wait([reader])
    tee.close()


# Whole pulls.


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        yield registry


async def pull(
    parts: EngineParts,
    registry: Registry,
    blob: Descriptor,
    pause: Callable[[int], Awaitable[object]],
    rootfs: Path | None,
) -> None:
    """Pull ``image:latest``, with ``pause`` after each buffer of ``blob``."""
    reference = Reference.parse(f"{registry.address}/image")
    source = Slow(parts.client.repository(reference), blob, pause)
    await parts.job.pull(reference, source, image="image", wanted=None, outputs=Outputs(rootfs))


def index(parts: EngineParts, kind: type, blob: Descriptor | None = None) -> int:
    """Where the first event of this kind is, of this blob if one is given."""
    return next(
        number
        for number, event in enumerate(parts.events)
        if isinstance(event, kind) and (blob is None or getattr(event, "blob", None) == str(blob.digest))
    )


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_the_first_layer_becomes_files_before_it_is_whole(
    registry: Registry, tmp_path: Path, compression: Compression
) -> None:
    image = image_of(FIRST, SECOND, compression=compression)
    registry.add_image("image", "latest", image)
    blob = image.layers[0].descriptor
    async with open_parts(tmp_path / "store") as parts:

        async def pause(offset: int) -> None:
            """The rest comes only when what came has become files."""
            if offset == 2 << 20:
                await parts.events.until(lambda: any(isinstance(event, UnpackProgress) for event in parts.events))

        await asyncio.wait_for(pull(parts, registry, blob, pause, tmp_path / "root"), 30)
        assert index(parts, UnpackProgress) < index(parts, BlobDone, blob)
        assert await parts.store.read(blob) == image.layers[0].content
    assert same(tmp_path / "root", FIRST, SECOND)


async def never(offset: int) -> None:
    """No pause."""


async def test_a_first_layer_that_is_there_is_read_back(registry: Registry, tmp_path: Path) -> None:
    image = image_of(FIRST, SECOND)
    registry.add_image("image", "latest", image)
    first = image.layers[0].descriptor
    async with open_parts(tmp_path / "store") as parts:
        reference = Reference.parse(f"{registry.address}/image")
        await parts.fetch(first, parts.client.repository(reference))
        await pull(parts, registry, first, never, tmp_path / "root")
    assert same(tmp_path / "root", FIRST, SECOND)


async def test_a_first_layer_that_is_resumed_is_read_back(registry: Registry, tmp_path: Path) -> None:
    image = image_of(FIRST)
    registry.add_image("image", "latest", image)
    first = image.layers[0].descriptor
    async with open_parts(tmp_path / "store") as parts:
        half, go_on = asyncio.Event(), asyncio.Event()

        async def pause(offset: int) -> None:
            if offset == 4 << 20:
                half.set()
                await go_on.wait()

        task = asyncio.create_task(pull(parts, registry, first, pause, None))
        await half.wait()
        task.cancel()
        await asyncio.wait([task])
        parts.events.clear()
        await pull(parts, registry, first, never, tmp_path / "root")
        started = parts.events[index(parts, BlobStarted, first)]
        assert isinstance(started, BlobStarted)
        assert started.offset > 0
        assert index(parts, UnpackProgress) > index(parts, BlobDone, first)
    assert same(tmp_path / "root", FIRST)


async def test_a_first_layer_in_another_pulls_flight_is_read_back(registry: Registry, tmp_path: Path) -> None:
    image = image_of(FIRST)
    registry.add_image("image", "latest", image)
    first = image.layers[0].descriptor
    async with open_parts(tmp_path / "store") as parts:
        half, go_on = asyncio.Event(), asyncio.Event()

        async def pause(offset: int) -> None:
            half.set()
            await go_on.wait()

        other = asyncio.create_task(pull(parts, registry, first, pause, None))
        await half.wait()
        task = asyncio.create_task(pull(parts, registry, first, never, tmp_path / "root"))
        await parts.events.until(lambda: any(isinstance(event, UnpackStarted) for event in parts.events))
        go_on.set()
        await asyncio.gather(other, task)
        assert index(parts, UnpackProgress) > index(parts, BlobDone, first)
    assert same(tmp_path / "root", FIRST)


async def test_a_teed_flight_goes_on_for_another_pull_when_its_own_is_cancelled(
    registry: Registry, tmp_path: Path
) -> None:
    image = image_of(FIRST)
    registry.add_image("image", "latest", image)
    first = image.layers[0].descriptor
    async with open_parts(tmp_path / "store") as parts:
        half, go_on = asyncio.Event(), asyncio.Event()

        async def pause(offset: int) -> None:
            half.set()
            await go_on.wait()

        teed = asyncio.create_task(pull(parts, registry, first, pause, tmp_path / "one"))
        await half.wait()
        other = asyncio.create_task(pull(parts, registry, first, never, tmp_path / "two"))
        await parts.events.until(lambda: sum(isinstance(event, UnpackStarted) for event in parts.events) == 2)
        teed.cancel()
        await asyncio.wait([teed])
        go_on.set()
        await asyncio.wait_for(other, 30)
        started = [event.blob for event in parts.events if isinstance(event, BlobStarted)]
        assert started.count(str(first.digest)) == 1
    assert teed.cancelled()
    assert [path.name for path in tmp_path.iterdir() if path.name != "store"] == ["two"]
    assert same(tmp_path / "two", FIRST)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_wrong_bytes_are_called_so_whatever_they_look_like_as_a_layer(
    registry: Registry, tmp_path: Path, compression: Compression
) -> None:
    image = image_of(FIRST, SECOND, compression=compression)
    registry.add_image("image", "latest", image)
    layer = image.layers[0]
    assert isinstance(layer.content, bytes)
    wrong = bytearray(layer.content)
    wrong[3 << 20] ^= 0xFF
    registry.add_blob(str(layer.descriptor.digest), bytes(wrong))
    async with open_parts(tmp_path / "store") as parts:
        with pytest.raises(DigestMismatchError) as caught:
            await pull(parts, registry, layer.descriptor, never, tmp_path / "root")
        assert caught.value.subject == str(layer.descriptor.digest)
        assert not parts.store.holds(layer.descriptor)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


async def test_a_body_that_is_cut_is_called_so(registry: Registry, tmp_path: Path) -> None:
    image = image_of(FIRST, SECOND)
    registry.add_image("image", "latest", image)
    first = image.layers[0].descriptor
    async with open_parts(tmp_path / "store") as parts:

        async def pause(offset: int) -> None:
            if offset == 3 << 20:
                raise TruncatedError("cut", url="test", received=offset)

        with pytest.raises(TruncatedError, match="cut"):
            await pull(parts, registry, first, pause, tmp_path / "root")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def damaged(layer: Layer) -> Layer:
    """The same with a byte changed in the middle, under the digest of what it is then."""
    assert isinstance(layer.content, bytes)
    data = bytearray(layer.content)
    data[len(data) // 2] ^= 0xFF
    content = bytes(data)
    return replace(layer, content=content, descriptor=structs.replace(layer.descriptor, digest=Digest.of(content)))


async def test_a_layer_that_is_damaged_as_promised_stays_in_the_store(registry: Registry, tmp_path: Path) -> None:
    layer = damaged(Layer.build(FIRST))
    registry.add_image("image", "latest", Image.build([layer, Layer.build(SECOND)]))
    async with open_parts(tmp_path / "store") as parts:
        with pytest.raises(FormatError, match=str(layer.diff_id)):
            await pull(parts, registry, layer.descriptor, never, tmp_path / "root")
        assert parts.store.holds(layer.descriptor)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


async def test_a_layer_that_cannot_be_unpacked_is_still_fetched_to_its_end(registry: Registry, tmp_path: Path) -> None:
    layer = Layer.build([Entry("../outside"), *FIRST])
    registry.add_image("image", "latest", Image.build([layer]))
    async with open_parts(tmp_path / "store") as parts:
        with pytest.raises(UnsafePathError):
            await pull(parts, registry, layer.descriptor, never, tmp_path / "root")
        assert parts.store.holds(layer.descriptor)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


async def test_a_cancelled_pull_leaves_no_tree_and_the_next_one_makes_it(registry: Registry, tmp_path: Path) -> None:
    image = image_of(FIRST, SECOND)
    registry.add_image("image", "latest", image)
    first = image.layers[0].descriptor
    async with open_parts(tmp_path / "store") as parts:
        for stop in range(1, 7):
            there = asyncio.Event()

            async def pause(offset: int, stop: int = stop, there: asyncio.Event = there) -> None:
                if offset >= stop << 20:
                    there.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(pull(parts, registry, first, pause, tmp_path / "root"))
            await there.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert parts.pool.in_use == 0
            assert [path.name for path in tmp_path.iterdir()] == ["store"]
        await pull(parts, registry, first, never, tmp_path / "root")
    assert same(tmp_path / "root", FIRST, SECOND)


# The budget.


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("memory", [16 << 20, 4 << 20])
async def test_a_tree_that_is_made_more_slowly_than_its_layer_comes_stays_in_the_budget(
    registry: Registry, tmp_path: Path, memory: int, compression: Compression
) -> None:
    large = made(4, files=40, size=1_000_000, compressibility=0.9)
    registry.add_image("image", "latest", image_of(large, SECOND, compression=compression))
    async with open_parts(tmp_path / "store", Limits(memory=memory)) as parts:
        await asyncio.wait_for(parts.pull(registry.address, "image", tmp_path / "root"), 30)
    assert same(tmp_path / "root", large, SECOND)


async def test_two_pulls_of_an_image_at_once_make_two_trees(registry: Registry, tmp_path: Path) -> None:
    registry.add_image("image", "latest", image_of(FIRST, SECOND, THIRD))
    async with open_parts(tmp_path / "store", Limits(memory=16 << 20)) as parts:
        pulls = (parts.pull(registry.address, "image", tmp_path / name) for name in ("one", "two"))
        await asyncio.wait_for(asyncio.gather(*pulls), 30)
    assert same(tmp_path / "one", FIRST, SECOND, THIRD)
    assert same(tmp_path / "two", FIRST, SECOND, THIRD)


async def test_a_config_that_must_be_asked_for_again_is_not_blocked_by_the_layer(
    registry: Registry, tmp_path: Path
) -> None:
    """The tee of the layer is not read before the config is there."""
    image = image_of(FIRST)
    registry.add_image("image", "latest", image)
    asked, refuse = asyncio.Event(), asyncio.Event()

    class Refusing:
        name = "another place"

        async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
            asked.set()
            await refuse.wait()
            raise NotFoundError("no such blob", url="test", status=404)
            yield

    async with open_parts(tmp_path / "store", Limits(connections=1)) as parts:
        config = Descriptor.of(image.config, image.config_type)
        other = asyncio.create_task(parts.fetch(config, Refusing()))
        await asked.wait()
        task = asyncio.create_task(parts.pull(registry.address, "image", tmp_path / "root"))
        await parts.events.until(lambda: any(isinstance(event, ImagePlanned) for event in parts.events))
        await steps()
        refuse.set()
        await asyncio.wait_for(task, 30)
        with pytest.raises(NotFoundError):
            await other
    assert same(tmp_path / "root", FIRST)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("memory", [4 << 20, 16 << 20])
async def test_more_trees_at_once_than_turns_are_all_made(
    registry: Registry, tmp_path: Path, workers: int, memory: int
) -> None:
    trees = {f"image{number}": [made(number, size=400_000), SECOND, THIRD] for number in range(10, 14)}
    for name, layers in trees.items():
        registry.add_image(name, "latest", image_of(*layers))
    limits = Limits(memory=memory, workers=workers, connections=2)
    async with open_parts(tmp_path / "store", limits) as parts:
        pulls = (parts.pull(registry.address, name, tmp_path / name) for name in trees)
        await asyncio.wait_for(asyncio.gather(*pulls), 30)
    for name, layers in trees.items():
        assert same(tmp_path / name, *layers)
