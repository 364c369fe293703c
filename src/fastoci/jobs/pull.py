"""One image of a job: plan what its name led to, fetch what is missing, unpack if asked, record the reference.

Spec: distribution-spec v1.1 (pull), image-spec v1.1 manifest.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import msgspec

from fastoci import files, path_walk
from fastoci.aio import all_or_first
from fastoci.errors import (
    BlobNotFoundError,
    FastociError,
    FormatError,
    IntegrityError,
    PlatformError,
    StoreError,
    UnpackError,
    UnsupportedError,
)
from fastoci.events import FetchDuplicated, ImageDone, ImageFailed, ImagePlanned, ImageStarted, Observer, Warned
from fastoci.image import config as config_document
from fastoci.image import mediatype
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.index import select
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import BlobSource, BlobStore, ImageSource, StoreSession, StoreWriter
from fastoci.jobs.plan import PullPlan, Resolved, Wanted, estimate_unpacked
from fastoci.jobs.resolve import read_document, resolve_all
from fastoci.jobs.running import RunningJobs
from fastoci.jobs.stored import Mending, Stored
from fastoci.limits import Limits
from fastoci.transfer.layer_reading import LayerReader
from fastoci.transfer.scheduler import BytesSource, Scheduler
from fastoci.transfer.tee import SpoiledError, Tee
from fastoci.transfer.unpacker import Unpacker
from fastoci.unpack.marker import Contents

_LOG: Final = logging.getLogger(__name__)


class Repository(ImageSource, BlobSource, Protocol):
    """A place that has both the manifests of an image and its blobs."""


class PullContext(msgspec.Struct, frozen=True):
    """What all images of an engine share."""

    store: BlobStore
    scheduler: Scheduler
    stored: Stored
    reader: LayerReader
    unpacker: Unpacker
    limits: Limits
    observer: Observer
    store_path: Path
    running: RunningJobs

    def target(self, path: str | os.PathLike[str]) -> Path:
        """Where files are to be made, from the root.

        Raises:
            StoreError: in the store, where they would be taken for its own; or somebody moves what leads there.
        """
        target = path_walk.absolute(path)
        with files.translated("see where this leads", str(target)):
            within = path_walk.is_within(target, self.store_path)
        if within:
            raise StoreError(f"{target} is in the store {self.store_path}: choose another place", path=str(target))
        return target

    async def pull(
        self,
        reference: Reference,
        source: Repository,
        *,
        image: str,
        wanted: Wanted,
        rootfs: Path | None,
        same_owner: bool | None = None,
    ) -> list[tuple[Resolved, ImageConfig | None]]:
        """Bring one image into the store for each platform, and onto disk when ``rootfs`` is given.

        The name is recorded when all of them are here.

        Args:
            image: the reference as it was asked for, in events and errors.
            rootfs: where a finished tree of the image may be already; of one platform only.
            same_owner: as ``contents``.
        Raises:
            FastociError: with ``image`` set; what was finished stays.
        """
        self.observer(ImageStarted(image))
        try:
            known = await self.store.recorded([str(reference)])
            found = await resolve_all(reference, source, wanted, self.store, self.limits, known=known)
            tree = None if rootfs is None else (rootfs, contents(found[0][0].descriptor, same_owner))
            if tree is not None and await self.unpacker.holds(*tree, image=image):
                rootfs = tree = None
            needed = [blob for resolved, _ in found for blob in (*resolved.documents, *resolved.blobs)]
            async with self.store.session(needed) as session:
                plans = [_plan(*each, session) for each in found]
                for plan in plans:
                    self._announce(plan, image)
                unpacked = sum(estimate_unpacked(resolved.manifest.layers) for resolved, _ in found)
                async with session.reserve(root=rootfs, unpacked=unpacked) as writer:
                    configs = await self._execute_all(writer, plans, source, image=image, rootfs=tree)
        except FastociError as error:
            error.image = error.image or image
            self.observer(image_failed(image, error))
            raise
        except asyncio.CancelledError:
            self.observer(ImageFailed(image, "cancelled", "cancelled", None))
            raise
        self.observer(ImageDone(image, str(found[0][0].top.digest)))
        return [(plan.resolved, config) for plan, config in zip(plans, configs, strict=True)]

    def _announce(self, plan: PullPlan, image: str) -> None:
        resolved = plan.resolved
        _LOG.debug(
            "%s is %s: %d of %d blobs are missing",
            *(image, resolved.descriptor.digest, len(plan.missing), len(resolved.blobs)),
        )
        self.observer(
            ImagePlanned(
                image,
                digest=str(resolved.descriptor.digest),
                platform=str(resolved.platform) if resolved.platform else "",
                blobs=len(resolved.blobs),
                size=plan.size,
                missing={str(blob.digest): blob.size for blob in plan.missing},
            )
        )

    async def _execute_all(
        self,
        writer: StoreWriter,
        plans: Sequence[PullPlan],
        source: Repository,
        *,
        image: str,
        rootfs: tuple[Path, Contents] | None,
    ) -> list[ImageConfig | None]:
        """Do what is planned, all at once, and record the name."""
        running = [
            asyncio.create_task(self._execute(writer, plan, source, image=image, rootfs=rootfs)) for plan in plans
        ]
        await all_or_first(running)
        configs = [task.result() for task in running]
        stored = [stored_image(plan.resolved, config) for plan, config in zip(plans, configs, strict=True)]
        images = {name: manifest for each in stored for name, manifest in each.images.items()}
        await writer.record(replace(stored[0], images=images))
        return configs

    async def _execute(
        self,
        writer: StoreWriter,
        plan: PullPlan,
        source: Repository,
        *,
        image: str,
        rootfs: tuple[Path, Contents] | None,
    ) -> ImageConfig | None:
        resolved = plan.resolved
        first = resolved.manifest.layers[:1]
        tee = await self.reader.tee() if rootfs is not None and first and first[0] in plan.missing else None
        fetches = self._start(writer, plan, source, image=image, tee=tee, cached=rootfs is not None)

        async def ready(blob: Descriptor) -> None:
            if blob.digest in fetches:
                await asyncio.shield(fetches[blob.digest])

        async def follow() -> ImageConfig | None:
            await ready(resolved.manifest.config)
            config = await self.checked_config(writer, plan, source, image=image, strict=rootfs is not None)
            if rootfs is not None:
                mending = Mending(image, source)
                await self.unpack(resolved, config, *rootfs, mending=mending, ready=ready, tee=tee)
            return config

        following = asyncio.create_task(follow())
        try:
            await all_or_first([following, *fetches.values()])
        finally:
            if tee is not None:
                self.reader.close_tee(tee)
        for descriptor, raw in resolved.chain:
            await self.keep_document(writer, descriptor, raw, image)
        return following.result()

    def _start(
        self, writer: StoreWriter, plan: PullPlan, source: BlobSource, *, image: str, tee: Tee | None, cached: bool
    ) -> dict[Digest, asyncio.Task[None]]:
        """Fetch all that is missing, the first layer through the tee if there is one."""
        teed = plan.resolved.manifest.layers[0].digest if tee is not None else None
        return {
            blob.digest: asyncio.create_task(
                self.scheduler.fetch(
                    writer,
                    blob,
                    source,
                    image=image,
                    tee=tee if blob.digest == teed else None,
                    cached=cached and blob.digest != teed,
                )
            )
            for blob in plan.missing
        }

    async def checked_config(
        self, writer: StoreWriter, plan: PullPlan, source: BlobSource, *, image: str, strict: bool
    ) -> ImageConfig | None:
        """The config of an image whose blobs are here; None for an artifact, and for a malformed one unless ``strict``.

        Raises:
            PlatformError: it is not for a platform that was asked for.
            FormatError, UnsupportedError: it is malformed.
        """
        try:
            config = await self._config(writer, plan.resolved.manifest, source, image)
        except (FormatError, UnsupportedError) as error:
            if strict:
                raise
            self.observer(Warned(image, f"{error.message}: the image cannot be unpacked"))
            return None
        self._check_platform(plan, config, image)
        return config

    async def _config(
        self, writer: StoreWriter, manifest: Manifest, source: BlobSource, image: str
    ) -> ImageConfig | None:
        """The config from the store, where it may be damaged: then it is fetched again."""
        try:
            return await read_config(self.store, manifest, self.limits)
        except (IntegrityError, BlobNotFoundError) as error:  # absent: another job found it damaged
            self.observer(Warned(image, f"{error.message}: it is fetched again"))
        config = manifest.config
        self.observer(FetchDuplicated(image, str(config.digest), "", 0, config.size, "damaged in the store"))
        await self.scheduler.fetch(writer, config, source, image=image)
        return await read_config(self.store, manifest, self.limits)

    async def keep_document(self, writer: StoreWriter, descriptor: Descriptor, raw: bytes, image: str) -> None:
        """Have a document in the store, whatever is there under its name."""
        if not await self.store.missing([descriptor]):
            with suppress(StoreError):
                if await self.store.read(descriptor) == raw:
                    return
            await self.store.mark_corrupt(descriptor.digest)
        await self.scheduler.fetch(writer, descriptor, BytesSource(raw), image=image)

    async def unpack(
        self,
        resolved: Resolved,
        config: ImageConfig | None,
        root: Path,
        tree: Contents,
        *,
        mending: Mending,
        ready: Ready | None = None,
        tee: Tee | None = None,
    ) -> None:
        """Make a rootfs out of the layers.

        When one of them turns out to be other bytes than its digest says, as it came or in the store, it is fetched
        again, and the tree is made anew.

        Raises:
            UnsupportedError: no container image, or a layer of a type that cannot be unpacked.
            UnpackError, FormatError, IntegrityError, StoreError: nothing is left under ``root``.
        """
        if config is None:
            config = await read_config(self.store, resolved.manifest, self.limits)  # raises what is wrong with it
        pairs = _layers(resolved.manifest, config)
        layers = list(dict.fromkeys(layer for layer, _ in pairs))
        while True:
            reason: FastociError | None = None
            try:
                return await self.unpacker.rootfs(
                    root, tree, pairs, self.store, image=mending.image, ready=ready or _at_once, tee=tee
                )
            except SpoiledError:
                text = f"layer {layers[0].digest} came with wrong bytes, and then with the right ones: unpacking anew"
                self.observer(Warned(mending.image, text))
            except (FormatError, UnsupportedError, UnpackError, IntegrityError, BlobNotFoundError) as error:
                reason = error
            if tee is not None:
                self.reader.close_tee(tee)  # what still comes does not wait for a reader
                tee = None
            if reason is not None:
                await self.stored.mend(layers, reason, mending)

    def _check_platform(self, plan: PullPlan, config: ImageConfig | None, image: str) -> None:
        """Where no index says what a manifest is for, its config does: hold it against what was asked for."""
        resolved, wanted = plan.resolved, plan.wanted
        if config is None or resolved.platform is not None or not config.os:
            return
        alone = replace(resolved.descriptor, platform=config.platform)
        for platform in (Platform.host(),) if wanted is None else wanted:
            if select([alone], platform) is not None:
                continue
            if wanted is not None or len(resolved.chain) > 1:
                raise PlatformError(f"the image is for {config.platform} only", available=(str(config.platform),))
            self.observer(Warned(image, f"the image is for {config.platform}, this machine is {platform}"))


def image_failed(name: str, error: FastociError) -> ImageFailed:
    """What observers are told of an image that cannot come."""
    return ImageFailed(name, str(error), type(error).__name__, error.exit_code)


class Ready(Protocol):
    """Returns when a blob is in the store, or raises why it will not be."""

    def __call__(self, blob: Descriptor, /) -> Awaitable[None]: ...


async def _at_once(blob: Descriptor) -> None:
    """The blob is there already."""


async def read_config(store: BlobStore, manifest: Manifest, limits: Limits) -> ImageConfig | None:
    """The config from the store; None when the manifest is an artifact and no image.

    Raises:
        FormatError: too large, or no config.
    """
    descriptor = manifest.config
    if not manifest.is_image:
        return None
    return config_document.parse(await read_document(store, descriptor, limits, what="config"))


def _layers(manifest: Manifest, config: ImageConfig | None) -> list[tuple[Descriptor, Digest]]:
    """The layers to unpack, with their diff_ids.

    Raises:
        UnsupportedError: no container image, or a layer of a type that cannot be unpacked.
        FormatError: the config has another number of layers.
    """
    if config is None:
        raise UnsupportedError(f"{manifest.config.media_type} is not a container image: nothing to unpack")
    for layer in manifest.layers:
        if layer.media_type not in mediatype.LAYERS:
            raise UnsupportedError(f"layer {layer.digest} is a {layer.media_type}, which cannot be unpacked")
    config.check_layers(len(manifest.layers))
    return list(zip(manifest.layers, config.diff_ids, strict=True))


def contents(manifest: Descriptor, same_owner: bool | None) -> Contents:
    """Which tree an image gives.

    Args:
        same_owner: files are given to the owners that layers name; None: as root they are.
    """
    return Contents(manifest.digest, os.geteuid() == 0 if same_owner is None else same_owner)


def _plan(resolved: Resolved, wanted: Wanted, session: StoreSession) -> PullPlan:
    blobs = {blob.digest for blob in resolved.blobs}.difference(blob.digest for blob in resolved.documents)
    return PullPlan(resolved, tuple(blob for blob in session.missing if blob.digest in blobs), wanted)


def stored_image(resolved: Resolved, config: ImageConfig | None) -> StoredImage:
    platform = resolved.platform or (config.platform if config and config.os else None)
    return StoredImage(
        name=str(resolved.reference),
        descriptor=replace(resolved.top, platform=None),
        images={str(platform) if platform else "unknown": replace(resolved.descriptor, platform=platform)},
        pulled_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
