"""What a job reads is damaged, and another process mends it before the job looks what was wrong: the job works anew.

Covers: jobs/stored.py, jobs/browse.py.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fastoci import Layers
from fastoci.errors import BlobNotFoundError, DigestMismatchError, FormatError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layer_file import TAR_OFFSET
from fastoci.image.reference import Reference
from fastoci.image_interfaces import Way, WholeImage
from fastoci.interfaces import BlobSource
from fastoci.jobs.browse import Browsing
from fastoci.jobs.layers import Arriving, Pairs
from fastoci.jobs.outputs import Outputs
from fastoci.jobs.stored import Mending
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry, serve
from fastoci.transfer.tee import Tee
from support.engine_parts import EngineParts, open_parts
from support.images import made

IMAGE = Image.build([Layer.build(made(number, files=2, size=20_000)) for number in (1, 2)])
PAIRS: Pairs = [(layer.descriptor, layer.diff_id) for layer in IMAGE.layers]
BLOB, DIFF_ID = PAIRS[1]


@dataclass
class Reading:
    """A job that reads a layer; ``meanwhile`` is what another process does after each attempt that found it damaged.

    The last one is done again and again.
    """

    parts: EngineParts
    right: bytes
    meanwhile: Sequence[Callable[[], None]]
    attempts: list[bool] = field(default_factory=list)

    async def run(self, mending: Mending) -> None:
        async def work(tees: Mapping[Digest, Tee]) -> None:
            layer = self.parts.job.layering.open(BLOB, DIFF_ID, mending=mending)
            try:
                self.attempts.append(os.pread(layer.fd, 1 << 20, 0) == self.right)
            finally:
                os.close(layer.fd)
            if not self.attempts[-1]:
                self.meanwhile[min(len(self.attempts), len(self.meanwhile)) - 1]()
                raise FormatError("what was read makes no sense")

        await self.parts.job.layering.until_right(work, PAIRS, Arriving(mending))


@asynccontextmanager
async def pulled(store: Path, layers: Layers | None = None) -> AsyncIterator[tuple[EngineParts, Registry, Mending]]:
    """The parts over a store that has the image, its registry, and who mends it from there."""
    registry = Registry()
    registry.add_image("app", "latest", IMAGE)
    with serve(registry):
        async with open_parts(store) as parts:
            reference = Reference.parse(f"{registry.address}/app")
            source = parts.client.repository(reference)
            outputs = Outputs() if layers is None else Outputs(layers=layers)
            await parts.job.pull(reference, source, image="app", wanted=None, outputs=outputs)
            registry.log.clear()
            yield parts, registry, Mending("app", source)


def path_of(store: Path) -> Path:
    return store / "blobs" / "sha256" / BLOB.digest.hex


def replace(path: Path, data: bytes) -> None:
    """As another process does it: by a rename."""
    path.with_name(f".{path.name}").write_bytes(data)
    path.with_name(f".{path.name}").replace(path)


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def nothing() -> None:
    """Nobody else is at work."""


async def test_a_blob_that_another_process_replaced_is_read_anew(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    async with pulled(tmp_path) as (parts, registry, mending):
        right = path.read_bytes()
        replace(path, flipped(right))
        reading = Reading(parts, right, [lambda: replace(path, right)])
        await reading.run(mending)
    assert reading.attempts == [False, True]
    assert registry.log == []


async def test_a_blob_that_was_read_and_is_gone_is_fetched(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    async with pulled(tmp_path) as (parts, _, mending):
        right = path.read_bytes()
        replace(path, flipped(right))
        reading = Reading(parts, right, [path.unlink])
        await reading.run(mending)
    assert reading.attempts == [False, True]
    assert path.read_bytes() == right


async def test_a_blob_that_is_replaced_again_and_again_ends_the_job_with_what_was_wrong(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    async with pulled(tmp_path) as (parts, _, mending):
        right = path.read_bytes()
        reading = Reading(parts, b"never this", [lambda: replace(path, right)])
        with pytest.raises(FormatError, match="makes no sense"):
            await reading.run(mending)
    assert len(reading.attempts) == 4


async def test_a_blob_that_nobody_replaced_is_read_once(tmp_path: Path) -> None:
    async with pulled(tmp_path) as (parts, _, mending):
        reading = Reading(parts, b"never this", [nothing])
        with pytest.raises(FormatError, match="makes no sense"):
            await reading.run(mending)
    assert reading.attempts == [False]


@pytest.mark.parametrize("gone", [False, True])
async def test_a_layer_file_that_another_process_replaced_or_deleted_is_not_what_counts(
    tmp_path: Path, gone: bool
) -> None:
    async with pulled(tmp_path, Layers("erofs")) as (parts, registry, mending):
        [path] = (tmp_path / "layers").rglob(f"{DIFF_ID.hex}.erofs")
        right = path.read_bytes()
        replace(path, flipped(right))
        expected = path_of(tmp_path).read_bytes() if gone else right
        reading = Reading(parts, expected, [path.unlink if gone else lambda: replace(path, right)])
        await reading.run(mending)
    assert reading.attempts == [False, True]
    assert registry.log == []


class Sink:
    """Finds a blob damaged, or absent, that is right when it is looked at again."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error = error
        self.times = times
        self.puts = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Sink]:
        self.puts += 1
        yield self

    at_once = 1

    async def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        return [] if self.puts > self.times else list(blobs)

    async def put_blob(self, blob: Descriptor, source: BlobSource) -> Way:
        raise self.error

    async def put_document(self, descriptor: Descriptor, data: bytes) -> None:
        raise self.error

    async def name(self, image: WholeImage) -> None:
        """It keeps nothing."""


DAMAGED = DigestMismatchError("damaged", subject=str(BLOB.digest), expected="", actual="")
ABSENT = BlobNotFoundError("absent", path="", subject=str(BLOB.digest))


@pytest.mark.parametrize("error", [DAMAGED, ABSENT], ids=["damaged", "absent"])
async def test_a_blob_that_another_process_replaced_is_put_anew_a_few_times(tmp_path: Path, error: Exception) -> None:
    image = WholeImage("app", IMAGE.descriptor, [blob for blob, _ in PAIRS])
    async with pulled(tmp_path) as (parts, registry, mending):
        sink = Sink(error, times=3)
        await parts.job.stored.put(sink, [image], mending)
        assert sink.puts == 4
        sink = Sink(error, times=100)
        with pytest.raises(type(error)):
            await parts.job.stored.put(sink, [image], Mending("app", None))
        assert sink.puts == 4
    assert registry.log == []


class Replacing(dict[Digest, tuple[int, int, int]]):
    """Which files were opened; after the first of one layer, another process replaces it."""

    def __init__(self, diff_id: Digest, replace: Callable[[], None]) -> None:
        self._diff_id, self._replace = diff_id, replace
        self.times = 0

    def setdefault(self, key: Digest, default: tuple[int, int, int] = (0, 0, 0)) -> tuple[int, int, int]:
        self.times += key == self._diff_id
        if key == self._diff_id and self.times == 1:
            self._replace()
        return super().setdefault(key, default)


@asynccontextmanager
async def replaced(store: Path) -> AsyncIterator[tuple[EngineParts, Mending]]:
    """The parts over a store without merged metadata, with a layer file that is damaged until somebody opens it."""
    async with pulled(store, Layers("erofs")) as (parts, registry, mending):
        path = parts.job.layering.layers.path(DIFF_ID)
        right = path.read_bytes()
        (store / "images" / f"{IMAGE.descriptor.digest.hex}.json").unlink()
        replace(path, right[: TAR_OFFSET + 100] + b"x" + right[TAR_OFFSET + 101 :])
        opened = Replacing(DIFF_ID, lambda: replace(path, right))
        mending.opened_layers = opened
        yield parts, mending
        assert opened.times == 2
        assert path.read_bytes() == right, "nobody deletes what another process made"
        assert registry.log == []


async def test_a_layer_file_that_is_replaced_while_its_files_are_listed_is_read_anew(tmp_path: Path) -> None:
    async with replaced(tmp_path) as (parts, mending):
        browsing = Browsing(parts.job.layering, PAIRS, IMAGE.descriptor.digest, Arriving(mending))
        with await browsing.files() as files:
            assert len(list(files.walk("/"))) > 2


async def test_a_layer_file_that_is_replaced_while_it_is_merged_is_read_anew(tmp_path: Path) -> None:
    async with replaced(tmp_path) as (parts, mending):
        layering = parts.job.layering
        await layering.make(PAIRS, IMAGE.descriptor, "erofs", Arriving(mending))
        assert layering.layers.find_merged(IMAGE.descriptor.digest) is not None
