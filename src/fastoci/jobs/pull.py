"""One image of a job: plan what its name led to, fetch what is missing, unpack if asked, record the reference.

Spec: distribution-spec v1.1 (pull), image-spec v1.1 manifest.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from fastoci.aio import all_or_first
from fastoci.errors import (
    FastociError,
    FormatError,
    IntegrityError,
    PlatformError,
    StoreError,
    UnpackError,
    UnsupportedError,
)
from fastoci.events import ImageDone, ImageFailed, ImagePlanned, ImageStarted, Observer, Warned
from fastoci.image import config as config_document
from fastoci.image import mediatype
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.index import select
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.interfaces import BlobSource, ImageSource
from fastoci.jobs.plan import PullPlan, Resolved
from fastoci.jobs.preflight import Preflight
from fastoci.jobs.resolve import read_document, resolve
from fastoci.jobs.stored import Mending, Stored
from fastoci.limits import Limits
from fastoci.store.refs import Ref
from fastoci.store.store import Store
from fastoci.transfer.scheduler import BytesSource, Scheduler
from fastoci.transfer.tee import SpoiledError, Tee
from fastoci.transfer.unpacker import Unpacker

_CONFIGS = frozenset({mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG})


class Repository(ImageSource, BlobSource, Protocol):
    """A place that has both the manifests of an image and its blobs."""


@dataclass(frozen=True, slots=True)
class PullContext:
    """What all images of an engine share."""

    store: Store
    scheduler: Scheduler
    stored: Stored
    unpacker: Unpacker
    preflight: Preflight
    limits: Limits
    observer: Observer

    async def pull(
        self, reference: Reference, source: Repository, *, image: str, platform: Platform | None, rootfs: Path | None
    ) -> tuple[Resolved, ImageConfig | None]:
        """Bring one image into the store, and onto disk when ``rootfs`` is given.

        Args:
            image: the reference as it was asked for, in events and errors.
            platform: as the user asked; None for this machine's.
        Raises:
            FastociError: with ``image`` set; what was finished stays.
        """
        self.observer(ImageStarted(image))
        try:
            resolved = await resolve(reference, source, platform, self.store, self.limits)
            documents = [descriptor for descriptor, _ in resolved.chain]
            async with self.store.lease([*documents, *resolved.blobs]):  # before the look at what is there
                plan = PullPlan(resolved, tuple(await self.store.missing(resolved.blobs)))
                self._mark_pending(plan, image)
                await self.store.mark_pending(plan.missing)
                room = self.preflight.room(
                    plan.missing, documents=len(documents), layers=resolved.manifest.layers, root=rootfs
                )
                async with room:
                    config = await self._execute(plan, source, image, platform, rootfs)
        except FastociError as error:
            error.image = error.image or image
            self.observer(ImageFailed(image, str(error)))
            raise
        except asyncio.CancelledError:
            self.observer(ImageFailed(image, "cancelled"))
            raise
        self.observer(ImageDone(image, str(resolved.top.digest)))
        return resolved, config

    def _mark_pending(self, plan: PullPlan, image: str) -> None:
        resolved = plan.resolved
        self.observer(
            ImagePlanned(
                image,
                digest=str(resolved.descriptor.digest),
                platform=str(resolved.platform) if resolved.platform else "",
                blobs=len(resolved.blobs),
                size=plan.size,
                missing_blobs=len(plan.missing),
                missing_size=plan.missing_size,
            )
        )

    async def _execute(
        self, plan: PullPlan, source: Repository, image: str, platform: Platform | None, rootfs: Path | None
    ) -> ImageConfig | None:
        resolved = plan.resolved
        first = resolved.manifest.layers[:1]
        tee = await self.unpacker.tee() if rootfs is not None and first and first[0] in plan.missing else None
        fetches = {
            blob.digest: asyncio.create_task(
                self.scheduler.fetch(
                    blob,
                    source,
                    image=image,
                    tee=tee if blob in first else None,
                    cached=rootfs is not None and not (tee and blob in first),
                )
            )
            for blob in plan.missing
        }

        async def ready(blob: Descriptor) -> None:
            if blob.digest in fetches:
                await asyncio.shield(fetches[blob.digest])

        async def follow() -> ImageConfig | None:
            await ready(resolved.manifest.config)
            config = await self._config(resolved.manifest, source, image)
            self._check_platform(resolved, config, platform, image)
            if rootfs is not None:
                mending = Mending(image, source)
                await self.unpack(resolved, config, rootfs, mending=mending, ready=ready, tee=tee)
            return config

        following = asyncio.create_task(follow())
        try:
            await all_or_first([following, *fetches.values()])
        finally:
            if tee is not None:
                self.unpacker.close_tee(tee)
        for descriptor, raw in resolved.chain:
            await self._keep(descriptor, raw, image)
        config = following.result()
        await self.store.record(_ref(resolved, config))
        return config

    async def _config(self, manifest: Manifest, source: BlobSource, image: str) -> ImageConfig | None:
        """The config from the store, where it may be damaged: then it is fetched again."""
        try:
            return await read_config(self.store, manifest, self.limits)
        except IntegrityError as error:
            self.observer(Warned(image, f"{error.message}: it is fetched again"))
        await self.scheduler.fetch(manifest.config, source, image=image)
        return await read_config(self.store, manifest, self.limits)

    async def _keep(self, descriptor: Descriptor, raw: bytes, image: str) -> None:
        """Have a document in the store, whatever is there under its name."""
        if not await self.store.missing([descriptor]):
            with suppress(StoreError):
                if await self.store.read(descriptor) == raw:
                    return
            self.store.treat_as_absent(descriptor.digest)
        await self.scheduler.fetch(descriptor, BytesSource(raw), image=image)

    async def unpack(
        self,
        resolved: Resolved,
        config: ImageConfig | None,
        root: Path,
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
        layers = resolved.manifest.layers
        if config is None:
            raise UnsupportedError(f"{resolved.manifest.config.media_type} is no container image: nothing to unpack")
        config.check_layers(len(layers))
        for layer in layers:
            if layer.media_type not in mediatype.LAYERS:
                raise UnsupportedError(f"layer {layer.digest} is a {layer.media_type}, which cannot be unpacked")
        pairs = list(zip(layers, config.diff_ids, strict=True))
        while True:
            try:
                await self.unpacker.rootfs(
                    root, pairs, self.store, image=mending.image, ready=ready or _at_once, tee=tee
                )
                return
            except SpoiledError:
                text = f"layer {layers[0].digest} came with wrong bytes, and then with the right ones: unpacking anew"
                self.observer(Warned(mending.image, text))
            except (FormatError, UnsupportedError, UnpackError, IntegrityError) as error:
                await self.stored.mend(list(dict.fromkeys(layers)), error, mending)
            if tee is not None:
                self.unpacker.close_tee(tee)  # what still comes does not wait for a reader
                tee = None

    def _check_platform(
        self, resolved: Resolved, config: ImageConfig | None, wanted: Platform | None, image: str
    ) -> None:
        """A lone manifest has a platform only in its config: hold it against what was asked for."""
        if config is None or resolved.platform is not None or not config.os:
            return
        alone = replace(resolved.descriptor, platform=config.platform)
        if select([alone], wanted or Platform.host()) is not None:
            return
        if wanted is not None:
            raise PlatformError(f"the image is for {config.platform} only", available=(str(config.platform),))
        self.observer(Warned(image, f"the image is for {config.platform}, this machine is {Platform.host()}"))


class Ready(Protocol):
    """Returns when a blob is in the store, or raises why it will not be."""

    def __call__(self, blob: Descriptor, /) -> Awaitable[None]: ...


async def _at_once(blob: Descriptor) -> None:
    """The blob is there already."""


async def read_config(store: Store, manifest: Manifest, limits: Limits) -> ImageConfig | None:
    """The config from the store; None when the manifest is an artifact and no image.

    Raises:
        FormatError: too large, or no config.
    """
    descriptor = manifest.config
    if descriptor.media_type not in _CONFIGS:
        return None
    return config_document.parse(await read_document(store, descriptor, limits, what="config"))


def _ref(resolved: Resolved, config: ImageConfig | None) -> Ref:
    platform = resolved.platform or (config.platform if config and config.os else None)
    return Ref(
        name=str(resolved.reference),
        descriptor=replace(resolved.top, platform=None),
        images={str(platform) if platform else "unknown": replace(resolved.descriptor, platform=platform)},
        pulled_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
