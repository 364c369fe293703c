"""A pull that asks no registry: what the store has of an image, checked, and unpacked if asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from fastoci.errors import BlobNotFoundError, FastociError, IntegrityError, PlatformError
from fastoci.events import ImageDone, ImageFailed, ImagePlanned, ImageStarted
from fastoci.image.platform import Platform
from fastoci.image.stored_image import StoredImage
from fastoci.jobs.image import Image, load_image
from fastoci.jobs.pull import PullContext


class StoredPull(msgspec.Struct, frozen=True):
    """A pull from the store alone. ``platform`` is as the user asked; None for this machine's."""

    context: PullContext
    reference: str
    platform: Platform | None
    rootfs: Path | None
    same_owner: bool | None

    async def run(self, found: Callable[[], Awaitable[StoredImage]], *, strict: bool) -> Image | None:
        """Give the image as a pull does; None when the store does not have it whole, unless ``strict``.

        Args:
            found: finds what the reference means.
        Raises:
            BlobNotFoundError: the store does not have it, or lost a part of it.
            PlatformError: it was not pulled for ``platform``.
            FastociError: the reference does not parse, or the image cannot be unpacked.
        """
        observer, reference = self.context.observer, self.reference
        observer(ImageStarted(reference))
        try:
            image = await load_image(self.context, await found(), self.platform, asked=reference)
            await image.check()
            observer(_planned(image, reference))
            if self.rootfs is not None:
                await image.unpack(self.rootfs, same_owner=self.same_owner)
        except FastociError as error:
            if not strict and isinstance(error, BlobNotFoundError | IntegrityError | PlatformError):
                return None
            error.image = error.image or reference
            observer(ImageFailed(reference, str(error), type(error).__name__, error.exit_code))
            raise
        observer(ImageDone(reference, str(image.descriptor.digest)))
        return image


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
