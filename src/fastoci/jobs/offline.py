"""A pull that asks no registry: what the store has of an image, checked, and unpacked if asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from fastoci.errors import BlobNotFoundError, FastociError, IntegrityError, PlatformError
from fastoci.events import ImageDone, ImagePlanned, ImageStarted
from fastoci.image.stored_image import StoredImage
from fastoci.jobs.destination import Destination
from fastoci.jobs.image import Image, choose, hand_over, load_image
from fastoci.jobs.outputs import Outputs
from fastoci.jobs.plan import Wanted
from fastoci.jobs.pull import PullContext, image_failed
from fastoci.jobs.trust import Open


class StoredPull(msgspec.Struct, frozen=True):
    """A pull from the store alone. Of all platforms it gives those that the store has."""

    context: PullContext
    reference: str
    wanted: Wanted
    outputs: Outputs = Outputs()

    def going(self, into: Destination) -> StoredPull:
        """The same, with images that go elsewhere, too."""
        outputs = msgspec.structs.replace(self.outputs, into=into)
        return msgspec.structs.replace(self, outputs=outputs)

    async def run(self, found: Callable[[], Awaitable[StoredImage]], *, ask: Open | None) -> list[Image] | None:
        """Give the images as a pull does; None when the store does not have them whole, and a registry may be asked.

        Which platforms all are, only the registry's index says: all are never there whole.

        Args:
            found: finds what the reference means.
            ask: opens the repository of a reference, for signatures; None when no registry may be asked.
        Raises:
            BlobNotFoundError: the store does not have it, or lost a part of it.
            PlatformError: it was not pulled for one of the platforms.
            FastociError: the reference does not parse, or the image cannot be unpacked.
        """
        observer, reference = self.context.observer, self.reference
        if self.wanted == () and ask is not None:
            return None
        observer(ImageStarted(reference))
        try:
            images = await self._load(await found(), ask)
            await self._make(images)
            await hand_over(images, self.outputs.into, reference)
        except FastociError as error:
            if ask is not None and isinstance(error, BlobNotFoundError | IntegrityError | PlatformError):
                return None
            error.image = error.image or reference
            observer(image_failed(reference, error))
            raise
        observer(ImageDone(reference, str(images[0].descriptor.digest)))
        return images

    async def _make(self, images: list[Image]) -> None:
        if self.outputs.layers.form != "none":
            for image in images:
                await image.make_layers(self.outputs.layers)
        if self.outputs.rootfs is not None:
            await images[0].unpack(self.outputs.rootfs, same_owner=self.outputs.same_owner)

    async def _load(self, ref: StoredImage, ask: Open | None) -> list[Image]:
        manifests = [choose(ref, platform) for platform in ((None,) if self.wanted is None else self.wanted)]
        images = []
        for manifest in dict.fromkeys(manifests or ref.images.values()):
            image = await load_image(self.context, ref, manifest, asked=self.reference)
            await self.context.trust.check_stored(ref, manifest, ask)
            await self.outputs.into.claim(image.manifest.layers)
            await image.check()
            self.context.observer(_planned(image, self.reference))
            images.append(image)
        return images


def _planned(image: Image, reference: str) -> ImagePlanned:
    blobs = {blob.digest: blob.size for blob in (image.manifest.config, *image.manifest.layers)}
    return ImagePlanned(
        reference,
        digest=str(image.manifest_descriptor.digest),
        platform=str(image.platform or ""),
        blobs=len(blobs),
        size=sum(blobs.values()),
        missing={},
    )
