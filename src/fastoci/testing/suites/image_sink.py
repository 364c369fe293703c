"""What every ``ImageSink`` holds to: whole images, verified, and names that come last."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fastoci.errors import BlobNotFoundError, IntegrityError, StoreBusyError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import ImageSink, WholeImage
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer, from_seed
from fastoci.testing.memory_store import MemoryStore
from fastoci.testing.suites.filling import finish, put, raises

NAME: Final = "registry.test/app:1"


class ImageSinkSuite:
    """Subclass it and define ``open``, ``names`` and ``read``."""

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
            await self.open(tmp_path / "sink").put([whole(image)], store)
            self.demand(tmp_path / "sink", {NAME: image})

        finish(run())

    def test_others_stay_and_one_of_the_same_name_is_replaced(self, tmp_path: Path) -> None:
        async def run() -> None:
            one, two, three, store = image_of(1), image_of(2), image_of(3), MemoryStore()
            await fill(store, one, two, three)
            sink = self.open(tmp_path / "sink")
            await sink.put([whole(one), whole(two, "registry.test/other:1")], store)
            self.demand(tmp_path / "sink", {NAME: one, "registry.test/other:1": two})
            await sink.put([whole(three)], store)
            await sink.put([], store)
            self.demand(tmp_path / "sink", {NAME: three, "registry.test/other:1": two})

        finish(run())

    def test_an_image_that_lacks_a_blob_gets_no_name_and_changes_nothing(self, tmp_path: Path) -> None:
        async def run() -> None:
            one, two, store = image_of(1), image_of(2), MemoryStore()
            await fill(store, one, two)
            sink = self.open(tmp_path / "sink")
            await sink.put([whole(one)], store)
            await store.mark_corrupt(two.layers[-1].descriptor.digest)
            for images in ([whole(two)], [whole(two, "registry.test/other:1")], [whole(one, "a:1"), whole(two)]):
                with raises(BlobNotFoundError, "an image without one of its blobs"):
                    await sink.put(images, store)
                self.demand(tmp_path / "sink", {NAME: one})

        finish(run())

    def test_a_blob_that_is_damaged_in_the_store_is_never_handed_on(self, tmp_path: Path) -> None:
        async def run() -> None:
            one, two, store = image_of(1), image_of(2), MemoryStore()
            await fill(store, one, two)
            sink = self.open(tmp_path / "sink")
            await sink.put([whole(one)], store)
            layer = two.layers[-1].descriptor
            store.content.blobs[layer.digest] = bytes(layer.size)
            with raises(IntegrityError, "a damaged blob"):
                await sink.put([whole(two)], store)
            self.demand(tmp_path / "sink", {NAME: one})
            assert self.read(tmp_path / "sink", layer) is None, "damaged bytes have the name of the right ones"
            await fill(store, one)
            store.content.blobs[layer.digest] = content_of(two, layer)
            await sink.put([whole(two)], store)
            self.demand(tmp_path / "sink", {NAME: two})

        finish(run())

    def test_puts_at_the_same_time_lose_nothing(self, tmp_path: Path) -> None:
        async def run() -> None:
            images = {f"registry.test/app:{seed}": image_of(seed) for seed in range(4)}
            store = MemoryStore()
            await fill(store, *images.values())
            puts = [self.open(tmp_path / "sink").put([whole(image, name)], store) for name, image in images.items()]
            results = await asyncio.gather(*puts, return_exceptions=True)
            there = {}
            for (name, image), result in zip(images.items(), results, strict=True):
                assert result is None or isinstance(result, StoreBusyError), result
                if result is None:
                    there[name] = image
            assert there, "nobody got through"
            self.demand(tmp_path / "sink", there)

        finish(run())

    def demand(self, directory: Path, images: Mapping[str, Image]) -> None:
        """Fail unless just these images are there, whole."""
        found = {name: blob.digest for name, blob in self.names(directory).items()}
        assert found == {name: image.descriptor.digest for name, image in images.items()}
        for image in images.values():
            for blob, data in contents(image):
                assert self.read(directory, blob) == data, f"{blob.digest} is not whole"


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
