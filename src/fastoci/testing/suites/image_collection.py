"""What every ``ImageCollection`` holds to: it says which images it has, and gives their documents as they were."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

from fastoci.errors import FastociError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image_interfaces import ImageCollection
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer, from_seed
from fastoci.testing.suites.filling import NOWHERE, finish, raises

ONE: Final = Image.build([Layer.build(from_seed(1, files=2, size=100))])
TWO: Final = Image.build([*ONE.layers, Layer.build(from_seed(2, files=1, size=100))])
NAME: Final = "registry.test/app:1"


class ImageCollectionSuite:
    """Subclass it and define ``open``. ``one``: it holds one image, which has no name."""

    one = False

    def open(self, images: Mapping[str, Image]) -> AbstractAsyncContextManager[ImageCollection]:
        """Open a place that has these images by name; one may have none."""
        raise NotImplementedError

    def test_the_images_are_there_in_their_order_with_their_documents(self) -> None:
        async def run() -> None:
            images = {"": ONE} if self.one else {NAME: ONE, "registry.test/other:2": TWO}
            async with self.open(images) as collection:
                for _ in range(2):
                    found = await collection.names()
                    assert [image.name for image in found] == list(images)
                    for image, expected in zip(found, images.values(), strict=True):
                        assert (image.top.digest, image.top.size) == (
                            expected.descriptor.digest,
                            len(expected.manifest),
                        )
                        assert image.top.media_type == expected.media_type
                        assert await collection.manifest(image.top) == expected.manifest

        finish(run())

    def test_an_image_may_have_no_name(self) -> None:
        async def run() -> None:
            async with self.open({"": ONE}) as collection:
                (image,) = await collection.names()
                assert (image.name, image.top.digest) == ("", ONE.descriptor.digest)

        finish(run())

    def test_a_document_is_what_its_descriptor_says_or_an_error(self) -> None:
        async def run() -> None:
            async with self.open({"": ONE}) as collection:
                await collection.names()
                digest, size = ONE.descriptor.digest, ONE.descriptor.size
                lies = ((digest, size - 1), (digest, size + 1), (NOWHERE, size), (Digest.of(b"other"), 5))
                for wrong in lies:
                    with raises(FastociError, f"a manifest of {size} bytes as {wrong}"):
                        await collection.manifest(Descriptor(mediatype.OCI_MANIFEST, *wrong))
                assert await collection.manifest(ONE.descriptor) == ONE.manifest

        finish(run())
