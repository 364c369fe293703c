"""Layers compressed anew while they arrive: the same tar, the same bytes on any number of threads, or an error."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import zstandard

from fastoci import _core
from fastoci._core import Buffer
from fastoci.errors import DigestMismatchError, FastociError, FormatError, SizeMismatchError, TransportError
from fastoci.image import mediatype
from fastoci.image.convert import Recipe
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BufferSource
from fastoci.limits import Limits
from fastoci.stream.compress import compressor
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_reading import LayerReader
from fastoci.transfer.packer import PackedLayer, Packer
from fastoci.transfer.recompress import Recompressor
from fastoci.transfer.workers import WorkerPool

TAR = b"".join(bytes([number % 251]) * 4001 for number in range(800))  # a little more than three blocks
ZSTD = zstandard.ZstdCompressor()
FORMS = {
    "gzip": gzip.compress(TAR),
    "two members of gzip": gzip.compress(TAR[:12345]) + gzip.compress(TAR[12345:]),
    "zstd": ZSTD.compress(TAR),
    "frames of zstd with one that is skipped": ZSTD.compress(TAR[:12345])
    + b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    + ZSTD.compress(TAR[12345:]),
    "a plain tar": TAR,
}


class Pieces:
    """A ``BlobSource`` of bytes, in buffers of ``size`` bytes; ``error`` comes at their end."""

    name = "pieces"

    def __init__(self, data: bytes, *, size: int = 100_000, error: FastociError | None = None) -> None:
        self._data = data
        self._size = size
        self._error = error

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        for at in range(offset, len(self._data), self._size):
            buffer = await buffers.take()
            buffer.append(self._data[at : at + self._size])
            yield buffer
        if self._error is not None:
            raise self._error


class Scene:
    """What compresses anew, with a memory and threads of its own."""

    def __init__(self, *, workers: int = 2, memory: int = 64 << 20) -> None:
        limits = Limits(workers=workers, memory=memory)
        self.pool = _core.Pool(memory)
        self.workers = WorkerPool(workers)
        buffers = Buffers(self.pool)
        reader = LayerReader(self.workers, buffers, limits)
        self.recompressor = Recompressor(self.workers, buffers, reader, Packer(self.workers, buffers, reader, limits))

    async def run(self, source: Pieces, recipe: str, path: Path, blob: Descriptor | None = None) -> PackedLayer:
        """Compress one layer anew into a file."""
        blob = blob or Descriptor.of(source._data, mediatype.OCI_LAYER_GZIP)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            async with self.recompressor.open(blob, source) as layer:
                return await layer.pack(compressor(Recipe.parse(recipe)), fd)
        finally:
            os.close(fd)
            assert (self.pool.in_use, self.pool.aside) == (0, 0)
            self.workers.close()


def tar_of(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()


@pytest.mark.parametrize("recipe", ["gzip", "gzip:0", "zstd", "zstd:12"])
@pytest.mark.parametrize("form", FORMS)
async def test_the_tar_stays_whatever_it_came_in(form: str, recipe: str, tmp_path: Path) -> None:
    made = await Scene().run(Pieces(FORMS[form]), recipe, tmp_path / "made")
    data = (tmp_path / "made").read_bytes()
    assert tar_of(data) == TAR
    assert made.blob == Descriptor.of(data, getattr(mediatype, f"OCI_LAYER_{recipe[:4].upper()}"))
    assert (made.diff_id, made.tar_size) == (Digest.of(TAR), len(TAR))


async def test_the_bytes_are_the_same_on_any_number_of_threads_and_in_any_pieces(tmp_path: Path) -> None:
    made = set()
    for workers, size, memory in ((1, 1 << 20, 64), (2, 777, 64), (5, 300_000, 64), (1, 1 << 20, 4)):
        scene = Scene(workers=workers, memory=memory << 20)
        made.add((await scene.run(Pieces(FORMS["gzip"], size=size), "zstd", tmp_path / "made")).blob)
    assert len(made) == 1


@pytest.mark.attack
@pytest.mark.parametrize("at", [20, len(FORMS["gzip"]) // 2, len(FORMS["gzip"]) - 3])
async def test_wrong_bytes_are_found_wrong_and_not_damaged(at: int, tmp_path: Path) -> None:
    data = FORMS["gzip"]
    wrong = data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]
    with pytest.raises(DigestMismatchError):
        await Scene().run(Pieces(wrong), "zstd", tmp_path / "made", Descriptor.of(data, ""))


@pytest.mark.attack
async def test_too_few_or_too_many_bytes_are_refused(tmp_path: Path) -> None:
    for data in (TAR[:-1], TAR + b"1"):
        with pytest.raises(SizeMismatchError):
            await Scene().run(Pieces(data), "zstd", tmp_path / "made", Descriptor.of(TAR, ""))


@pytest.mark.attack
async def test_a_layer_that_is_damaged_as_it_was_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        await Scene().run(Pieces(FORMS["gzip"][:-9]), "zstd", tmp_path / "made")


@pytest.mark.attack
async def test_a_layer_that_inflates_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastoci.transfer.recompress.tar_limit", lambda read: 2 << 20)
    with pytest.raises(FastociError, match="bytes of tar"):
        await Scene().run(Pieces(FORMS["gzip"]), "zstd", tmp_path / "made")


async def test_what_cannot_be_had_is_that_error(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="gone"):
        await Scene().run(Pieces(FORMS["gzip"][:9000], error=TransportError("gone", url="")), "zstd", tmp_path / "made")


async def test_many_layers_share_a_small_memory(tmp_path: Path) -> None:
    scene = Scene(memory=8 << 20)
    close, scene.workers.close = scene.workers.close, lambda: None  # type: ignore[method-assign]

    async def one(number: int) -> bytes:
        fd = os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT)
        async with scene.recompressor.open(Descriptor.of(FORMS["gzip"], ""), Pieces(FORMS["gzip"])) as layer:
            await layer.pack(compressor(Recipe("zstd")), fd)
        os.close(fd)
        return (tmp_path / str(number)).read_bytes()

    made = await asyncio.gather(*map(one, range(6)))
    assert len(set(made)) == 1
    close()


async def test_a_task_that_is_cancelled_gives_everything_back(tmp_path: Path) -> None:
    scene = Scene()
    began = asyncio.Event()

    class Endless(Pieces):
        async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
            async for buffer in super().fetch(blob, offset, buffers):
                yield buffer
            began.set()
            await asyncio.Event().wait()

    blob = Descriptor("", Digest.of(b""), 1 << 40)
    running = asyncio.create_task(scene.run(Endless(FORMS["gzip"][:200_000]), "zstd", tmp_path / "made", blob))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    "text", ["", "gzip:4", "gzip:", "zstd:0", "zstd:20", "zstd:-1", "zstd:\u0663", "xz", "zstd:3:4"]
)
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"gzip|zstd"):
        Recipe.parse(text)


def test_a_recipe_has_a_compression_and_perhaps_a_level() -> None:
    assert [Recipe.parse(text) for text in ("gzip", "zstd:19")] == [Recipe("gzip"), Recipe("zstd", 19)]
