"""Images of a few layers, and a source that can be held up: for tests of whole pulls."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from fastoci._core import Buffer
from fastoci.image.descriptor import Descriptor
from fastoci.image.reference import Reference
from fastoci.interfaces import BufferSource
from fastoci.jobs.pull import Repository
from fastoci.testing.images import Image
from fastoci.testing.layers import Compression, Entry, Layer, from_seed
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, listing, overlay


def made(seed: int, *, files: int = 8, size: int = 1_000_000, compressibility: float = 0.05) -> list[Entry]:
    return list(from_seed(seed, files=files, size=size, compressibility=compressibility, at=f"made{seed}"))


FIRST, SECOND, THIRD = made(1), made(2, size=300_000), made(3, size=300_000)


def image_of(*layers: list[Entry], compression: Compression = "gzip") -> Image:
    return Image.build([Layer.build(layer, compression) for layer in layers])


def same(root: Path, *layers: list[Entry]) -> bool:
    return differences(overlay(layers), listing(root), owners=os.geteuid() == 0) == []


def serving_apps(images: Sequence[Image]) -> Iterator[Registry]:
    """A registry that has each image as ``app``, its number the tag; for fixtures."""
    with serve(Registry()) as registry:
        for number, image in enumerate(images):
            registry.add_image("app", str(number), image)
        yield registry


def names(registry: Registry, *tags: int | str) -> list[str]:
    """References to what ``serving_apps`` serves."""
    return [f"{registry.address}/app:{tag}" for tag in tags]


class Slow:
    """A registry's repository; ``pause`` is awaited after each buffer of one blob, with the bytes so far."""

    def __init__(self, inner: Repository, blob: Descriptor, pause: Callable[[int], Awaitable[object]]) -> None:
        self._inner = inner
        self._blob = blob
        self._pause = pause

    @property
    def name(self) -> str:
        return self._inner.name

    async def resolve(
        self, reference: Reference, held: tuple[Descriptor, bytes] | None = None
    ) -> tuple[Descriptor, bytes]:
        return await self._inner.resolve(reference)

    async def manifest(self, descriptor: Descriptor) -> bytes:
        return await self._inner.manifest(descriptor)

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        async with aclosing(self._inner.fetch(blob, offset, buffers)) as inner:
            async for buffer in inner:
                offset += len(buffer)
                yield buffer
                if blob.digest == self._blob.digest:
                    await self._pause(offset)
