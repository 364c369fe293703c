"""What every ``ImageSink`` and its ``ImageWriter`` hold to: whole images, verified, and names that come last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Final

from fastoci._core import Buffer
from fastoci.errors import BlobNotFoundError, IntegrityError, StoreBusyError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image_interfaces import ImageSink, WholeImage
from fastoci.interfaces import BlobStore, BufferSource
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer, from_seed
from fastoci.testing.memory_store import MemoryStore
from fastoci.testing.suites.filling import finish, put, raises

NAME: Final = "registry.test/app:1"


class ImageSinkSuite:
    """Subclass it and define ``open``, ``names`` and ``read``.

    ``anew``: the place is written anew as a whole. ``one``: it holds one image, under any name.
    """

    anew = one = False

    def open(self, directory: Path) -> ImageSink:
        """A sink that keeps its images in a directory."""
        raise NotImplementedError

    def names(self, directory: Path) -> Mapping[str, Descriptor]:
        """The images that are in it, as whoever looks from outside sees them: what each name stands for."""
        raise NotImplementedError

    def read(self, directory: Path, blob: Descriptor) -> bytes | None:
        """A blob of one of its images, as whoever looks from outside sees it; None when it is not there."""
        raise NotImplementedError

    def test_an_image_is_there_whole_under_its_name(self, tmp_path: Path) -> None:
        async def run() -> None:
            image, store = image_of(1), MemoryStore()
            await fill(store, image)
            await bring(self.open(tmp_path / "sink"), [whole(image)], store)
            self.demand(tmp_path / "sink", {NAME: image})

        finish(run())

    def test_others_stay_and_one_of_the_same_name_is_replaced(self, tmp_path: Path) -> None:
        async def run() -> None:
            one, two, three, store = image_of(1), image_of(2), image_of(3), MemoryStore()
            others = {} if self.one else {"registry.test/other:1": two}
            await fill(store, one, two, three)
            sink = self.open(tmp_path / "sink")
            await bring(sink, [whole(one), *(whole(other, name) for name, other in others.items())], store)
            self.demand(tmp_path / "sink", {NAME: one, **others})
            await bring(sink, [whole(three)], store)
            if not self.anew:
                await bring(sink, [], store)
            self.demand(tmp_path / "sink", {NAME: three, **({} if self.anew else others)})

        finish(run())

    def test_an_image_that_lacks_a_blob_gets_no_name_and_changes_nothing(self, tmp_path: Path) -> None:
        async def run(directory: Path, *, linked: bool) -> None:
            one, two, store = image_of(1), image_of(2), MemoryStore()
            await fill(store, one, two)
            sink = self.open(directory)
            await bring(sink, [whole(one)], store, linked=linked)
            await store.mark_corrupt(two.layers[-1].descriptor.digest)
            for images in ([whole(two)], [whole(two, "registry.test/other:1")], [whole(one, "a:1"), whole(two)]):
                with raises(BlobNotFoundError, "an image without one of its blobs"):
                    await bring(sink, images, store, linked=linked)
                self.demand(directory, {NAME: one})

        finish(run(tmp_path / "linked", linked=True))
        finish(run(tmp_path / "sent", linked=False))

    def test_a_blob_that_is_damaged_in_the_source_is_never_handed_on(self, tmp_path: Path) -> None:
        async def run(directory: Path, *, linked: bool) -> None:
            one, two, store = image_of(1), image_of(2), MemoryStore()
            await fill(store, one, two)
            sink = self.open(directory)
            await bring(sink, [whole(one)], store, linked=linked)
            layer = two.layers[-1].descriptor
            store.content.blobs[layer.digest] = bytes(layer.size)
            with raises(IntegrityError, "a damaged blob"):
                await bring(sink, [whole(two)], store, linked=linked)
            self.demand(directory, {NAME: one})
            assert self.read(directory, layer) is None, "damaged bytes have the name of the right ones"
            store.content.blobs[layer.digest] = content_of(two, layer)
            await bring(sink, [whole(two)], store, linked=linked)
            self.demand(directory, {NAME: two})

        finish(run(tmp_path / "linked", linked=True))
        finish(run(tmp_path / "sent", linked=False))

    def test_what_was_brought_is_missing_no_more_and_what_was_not_has_no_name(self, tmp_path: Path) -> None:
        async def run() -> None:
            one, two, store = image_of(1), image_of(2), MemoryStore()
            await fill(store, one, two)
            sink = self.open(tmp_path / "sink")
            await bring(sink, [whole(one)], store)
            parts = one.blobs() if self.one else contents(one)
            own = set() if self.anew else {blob.digest for blob, _ in parts}
            wanted = [blob for blob, _ in contents(two)]
            with raises(_EndedError, "a writer that is ended by an error"):
                async with sink.begin() as writer:
                    missing = await writer.missing([*wanted, *wanted])
                    assert missing == [blob for blob in wanted if blob.digest not in own]
                    for blob in missing:
                        await writer.put_blob(blob, StoreSource(store))
                    assert not await writer.missing(wanted)
                    await writer.name(whole(two))
                    raise _EndedError
            self.demand(tmp_path / "sink", {NAME: one})

        finish(run())

    def test_puts_at_the_same_time_lose_nothing(self, tmp_path: Path) -> None:
        async def run() -> None:
            images = {f"registry.test/app:{seed}": image_of(seed) for seed in range(4)}
            store = MemoryStore()
            await fill(store, *images.values())
            sinks = [(self.open(tmp_path / "sink"), [whole(image, name)]) for name, image in images.items()]
            puts = [bring(sink, given, store) for sink, given in sinks]
            results = await asyncio.gather(*puts, return_exceptions=True)
            there = {}
            for (name, image), result in zip(images.items(), results, strict=True):
                assert result is None or isinstance(result, StoreBusyError), result
                if result is None:
                    there[name] = image
            assert there, "nobody got through"
            self.demand(tmp_path / "sink", self._last(there, tmp_path / "sink") if self.anew or self.one else there)

        finish(run())

    def _last(self, images: Mapping[str, Image], directory: Path) -> Mapping[str, Image]:
        """The image of several that is in a place for one."""
        (name, top), *more = self.names(directory).items()
        assert not more, "the images of several are in a place for one"
        return {name: next(image for image in images.values() if image.descriptor.digest == top.digest)}

    def demand(self, directory: Path, images: Mapping[str, Image]) -> None:
        """Fail unless just these images are there, whole."""
        found = {name: blob.digest for name, blob in self.names(directory).items()}
        assert found == {name: image.descriptor.digest for name, image in images.items()}
        for image in images.values():
            for blob, data in contents(image):
                assert self.read(directory, blob) == data, f"{blob.digest} is not whole"


class _EndedError(Exception):
    """Of who brings images."""


class StoreSource:
    """A ``BlobSource`` over a store: its blobs by their bytes."""

    name = "store"

    def __init__(self, store: BlobStore) -> None:
        self.store = store

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes from ``offset`` on."""
        data = await self.store.read(blob)
        while offset < len(data):
            buffer = await buffers.take()
            offset += buffer.append(data, offset)
            yield buffer


class StoreFiles(StoreSource):
    """A ``LinkableSource``, too."""

    def open_linkable(self, blob: Descriptor) -> int:
        """The blob's file."""
        return self.store.open(blob)


async def bring(sink: ImageSink, images: Sequence[WholeImage], store: BlobStore, *, linked: bool = False) -> None:
    """Bring images out of a store into a sink, as many blobs at once as it takes."""
    blobs = list({blob.digest: blob for image in images for blob in image.blobs}.values())
    source = StoreFiles(store) if linked else StoreSource(store)
    async with sink.begin() as writer:
        missing = await writer.missing(blobs)
        documents = [blob for blob in missing if blob.media_type in mediatype.MANIFESTS]
        rest = [blob for blob in missing if blob not in documents]
        for start in range(0, len(rest), writer.at_once):
            some = [writer.put_blob(blob, source) for blob in rest[start : start + writer.at_once]]
            for outcome in await asyncio.gather(*some, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        for document in documents:
            if linked:
                await writer.put_blob(document, source)
            else:
                await writer.put_document(document, await store.read(document))
        for image in images:
            await writer.name(image)


def image_of(seed: int) -> Image:
    """An image of two layers, of which every image has the first."""
    layers = [Layer.build(from_seed(each, files=2, size=2000)) for each in (0, 100 + seed)]
    return Image.build(layers)


def contents(image: Image) -> Sequence[tuple[Descriptor, bytes]]:
    """All blobs of an image, the manifest first."""
    found = [*image.documents(), *image.blobs()]
    return [
        (Descriptor(blob.media_type, blob.digest, blob.size), data if isinstance(data, bytes) else data.read_bytes())
        for blob, data in found
    ]


def content_of(image: Image, blob: Descriptor) -> bytes:
    """One of them."""
    return next(data for other, data in contents(image) if other.digest == blob.digest)


def whole(image: Image, name: str = NAME) -> WholeImage:
    """The image on its way into a sink."""
    return WholeImage(name, image.descriptor, [blob for blob, _ in contents(image)])


async def fill(store: MemoryStore, *images: Image) -> None:
    """Have the images' blobs in the store."""
    for image in images:
        await put(store, contents(image))
