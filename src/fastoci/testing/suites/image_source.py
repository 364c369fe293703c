"""What every ``ImageSource`` holds to: a name leads to one document, and its bytes are what the digest says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

from fastoci.errors import FastociError, NotFoundError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.image_interfaces import ImageSource
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Layer, from_seed
from fastoci.testing.suites.filling import NOWHERE, finish, raises

IMAGE: Final = Image.build([Layer.build(from_seed(1, files=2, size=100))])
INDEX: Final = Index.build([IMAGE])


class ImageSourceSuite:
    """Subclass it and define ``open``."""

    def open(self, images: Mapping[str, Image | Index]) -> AbstractAsyncContextManager[tuple[ImageSource, str]]:
        """Open a source that has these images by tag; it, and the name of the repository they are tags of."""
        raise NotImplementedError

    def test_a_tag_leads_to_the_document_and_its_digest(self) -> None:
        async def run() -> None:
            async with self.open({"image": IMAGE, "index": INDEX}) as (source, repository):
                images: list[tuple[str, Image | Index]] = [("image", IMAGE), ("index", INDEX)]
                for tag, image in images:
                    descriptor, data = await source.resolve(Reference.parse(f"{repository}:{tag}"))
                    expected, document = list(image.documents())[-1]
                    assert data == document
                    assert (descriptor.media_type, descriptor.digest) == (expected.media_type, expected.digest)
                    assert (descriptor.size, Digest.of(data)) == (len(data), descriptor.digest)

        finish(run())

    def test_a_digest_leads_to_itself(self) -> None:
        async def run() -> None:
            async with self.open({"image": IMAGE}) as (source, repository):
                descriptor, data = await source.resolve(Reference.parse(f"{repository}@{IMAGE.descriptor.digest}"))
                assert (descriptor.digest, data) == (IMAGE.descriptor.digest, IMAGE.manifest)

        finish(run())

    def test_what_is_not_there_is_not_found(self) -> None:
        async def run() -> None:
            async with self.open({"image": IMAGE}) as (source, repository):
                for name in (f"{repository}:other", f"{repository}@{NOWHERE}"):
                    with raises(NotFoundError, f"{name} is nowhere"):
                        await source.resolve(Reference.parse(name))
                with raises(NotFoundError, "a manifest that is nowhere"):
                    await source.manifest(Descriptor(mediatype.OCI_MANIFEST, NOWHERE, 100))

        finish(run())

    def test_what_is_held_comes_back_while_the_name_means_it_and_not_after(self) -> None:
        async def run() -> None:
            other = Image.build([Layer.build(from_seed(2, files=1, size=50))])
            async with self.open({"image": IMAGE}) as (source, repository):
                reference = Reference.parse(f"{repository}:image")
                found = await source.resolve(reference)
                assert await source.resolve(reference, found) == found
                old = (Descriptor(other.media_type, Digest.of(other.manifest), len(other.manifest)), other.manifest)
                descriptor, data = await source.resolve(reference, old)
                assert (descriptor.digest, data) == (IMAGE.descriptor.digest, IMAGE.manifest)

        finish(run())

    def test_a_manifest_of_an_index_is_what_its_descriptor_says(self) -> None:
        async def run() -> None:
            async with self.open({"index": INDEX}) as (source, _):
                assert await source.manifest(IMAGE.descriptor) == IMAGE.manifest
                size = IMAGE.descriptor.size
                for wrong in (size - 1, size + 1):
                    lie = Descriptor(IMAGE.media_type, IMAGE.descriptor.digest, wrong)
                    with raises(FastociError, f"a manifest of {size} bytes that should have {wrong}"):
                        await source.manifest(lie)

        finish(run())
