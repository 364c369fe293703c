"""What a prefetch is about to do, as a frozen value, and what became of each image of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from fastoci.errors import FastociError, StoreError
from fastoci.events import ImageRecorded
from fastoci.image.descriptor import Descriptor
from fastoci.jobs.plan import Resolved, estimate_unpacked
from fastoci.lists.request import PrefetchRequest
from fastoci.store.gc.collect import GcItem

Outcome = Literal["present", "fetched", "failed", "skipped"]


class PlannedImage(msgspec.Struct, frozen=True):
    """One image of a job, and the manifests that its name led to, one for each platform."""

    request: PrefetchRequest
    resolved: tuple[Resolved, ...]
    missing: int  # bytes of it that the store lacks, also when other images lack them, too


class RefusedImage(msgspec.Struct, frozen=True):
    """One image of a job that cannot come: nothing is fetched for it."""

    request: PrefetchRequest
    error: FastociError


class Pruned(msgspec.Struct, frozen=True):
    """What a list gave up: images that it brought and does not want any more.

    Args:
        removed: names that are gone, or would be.
        unpinned: names that stay, and that gc may let go from now on.
        withheld: why nothing was pruned, although it was asked for.
        deleted: by gc after that.
        error: what ended it before all was done.
        in_containerd: names that are gone there.
    """

    removed: tuple[str, ...] = ()
    unpinned: tuple[str, ...] = ()
    withheld: str = ""
    deleted: tuple[GcItem, ...] = ()
    error: FastociError | None = None
    in_containerd: tuple[str, ...] = ()


class Evicted(msgspec.Struct, frozen=True):
    """What made way, so that as much as asked for stays free.

    Args:
        items: blobs that no image needed, and images that were used least recently.
        error: why the job does not fit; then nothing went.
    """

    items: tuple[GcItem, ...] = ()
    error: StoreError | None = None

    @property
    def images(self) -> tuple[str, ...]:
        """The names that are gone, or would be."""
        return tuple(item.name for item in self.items if item.kind == "ref")


class PrefetchPlan(msgspec.Struct, frozen=True):
    """One graph of unique blobs over all images of a job. Sizes are bytes.

    Args:
        images: those that can come, in the order asked for.
        refused: those whose name leads nowhere.
        missing: what the store lacks, each digest once, in the order in which it is fetched.
        blobs, size: of all unique blobs and documents that the images need.
        shared_size: bytes that are needed by more than one image, counted each time but the first.
        by_registry: bytes to fetch, by the registry that is asked first.
        requests: that the job sends at least, with those that were sent to plan it.
        free_size, free_inodes: of the store's file system, now; None where that has no end.
        needed_inodes: that the job takes.
        pruned: what would go after it.
        evicted: what would go before it.
    """

    images: tuple[PlannedImage, ...]
    refused: tuple[RefusedImage, ...]
    missing: tuple[Descriptor, ...]
    blobs: int
    size: int
    shared_size: int
    by_registry: Mapping[str, int]
    requests: int
    free_size: int | None
    free_inodes: int | None
    needed_inodes: int
    pruned: Pruned = Pruned()
    evicted: Evicted = Evicted()

    @property
    def unpacking(self) -> tuple[Path | None, int]:
        """The first directory that gets files, and the bytes of all files by estimate."""
        images = [image for image in self.images if image.request.rootfs]
        layers = [each.manifest.layers for image in images for each in image.resolved]
        root = Path(images[0].request.rootfs) if images else None
        return root, sum(map(estimate_unpacked, layers))

    @property
    def missing_size(self) -> int:
        """Bytes that are fetched."""
        return sum(blob.size for blob in self.missing)


class ImageOutcome(msgspec.Struct, frozen=True):
    """What became of one image.

    Args:
        outcome: ``present`` before the job, ``fetched`` by it, ``failed``, or ``skipped`` after another had failed.
        digest: what the name led to; empty when it led nowhere.
        size: bytes of its config and layers; ``fetched`` those that came for it and for no image before it.
        seconds: from the beginning of the job until the image was there, or failed.
        error: why it failed.
        recorded: how it came into containerd, when that was asked for.
    """

    request: PrefetchRequest
    outcome: Outcome
    digest: str = ""
    size: int = 0
    fetched: int = 0
    seconds: float = 0.0
    error: FastociError | None = None
    recorded: ImageRecorded | None = None


class BlobOutcome(msgspec.Struct, frozen=True):
    """What became of one blob that was missing.

    Args:
        size: bytes.
        registry: of the image that it was fetched for; empty when it did not come.
        began, ended: seconds from the beginning of the job.
        error: why it did not come; empty when it came.
    """

    digest: str
    size: int
    registry: str
    began: float
    ended: float
    error: str = ""


class PrefetchResult(msgspec.Struct, frozen=True):
    """What became of a job.

    Args:
        images: each once, in the order asked for; those whose name led nowhere are last.
        blobs: those that were missing, in the order of their end.
        began_at: RFC 3339, UTC.
        seconds: that the job took.
    """

    images: tuple[ImageOutcome, ...]
    blobs: tuple[BlobOutcome, ...]
    plan: PrefetchPlan
    began_at: str
    seconds: float
    pruned: Pruned = Pruned()
    evicted: Evicted = Evicted()

    @property
    def failed(self) -> tuple[ImageOutcome, ...]:
        """The images that did not come."""
        return tuple(image for image in self.images if image.outcome in ("failed", "skipped"))
