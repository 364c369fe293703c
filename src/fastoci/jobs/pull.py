"""One image of a job: plan what its name led to, fetch what is missing, unpack if asked, record the reference.

Spec: distribution-spec v1.1 (pull), image-spec v1.1 manifest.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from fastoci import files, path_walk
from fastoci.aio import all_or_first
from fastoci.errors import (
    BlobNotFoundError,
    FastociError,
    FormatError,
    IntegrityError,
    PlatformError,
    StoreError,
    UnsupportedError,
)
from fastoci.events import FetchDuplicated, ImageDone, ImageFailed, ImagePlanned, ImageStarted, Observer, Warned
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.index import select
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.image_interfaces import ImageSource
from fastoci.interfaces import BlobSource, BlobStore, StoreSession, StoreWriter
from fastoci.jobs.destination import NOWHERE, Keeping
from fastoci.jobs.layers import Arriving, Layering, layers_of
from fastoci.jobs.outputs import Making, Outputs
from fastoci.jobs.plan import PullPlan, Resolved, Wanted, estimate_unpacked, stored_together
from fastoci.jobs.resolve import read_config, resolve_all
from fastoci.jobs.running import RunningJobs
from fastoci.jobs.stored import Mending, Stored
from fastoci.jobs.trust import Trust
from fastoci.layouts.oci_layout import OciLayout
from fastoci.limits import Limits
from fastoci.transfer.scheduler import BytesSource, Scheduler
from fastoci.transfer.streaming import Streams
from fastoci.transfer.tee import Tee
from fastoci.unpack.marker import Contents

_LOG: Final = logging.getLogger(__name__)
_CONFIG_FETCHES: Final = 10  # of one pull, when others take it for damaged


class Repository(ImageSource, BlobSource, Protocol):
    """A place that has both the manifests of an image and its blobs."""


class PullContext(msgspec.Struct, frozen=True):
    """What all images of an engine share."""

    store: BlobStore
    scheduler: Scheduler
    stored: Stored
    streams: Streams
    layering: Layering
    limits: Limits
    observer: Observer
    store_path: Path
    running: RunningJobs
    trust: Trust

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

    def layout(self, directory: Path, *, shared: Path | None = None) -> OciLayout:
        """An OCI layout to bring images to; ``shared`` is where its blobs go, instead of into itself."""
        return OciLayout(directory, self.stored.run_hashing, self.streams, shared=shared)

    async def pull(
        self,
        reference: Reference,
        source: Repository,
        *,
        image: str,
        wanted: Wanted,
        outputs: Outputs,
    ) -> list[tuple[Resolved, ImageConfig | None]]:
        """Bring one image into the store for each platform, and make of its layers what is asked for.

        The name is recorded when all of them are here.

        Args:
            image: the reference as it was asked for, in events and errors.
        Raises:
            FastociError: with ``image`` set; what was finished stays.
        """
        self.observer(ImageStarted(image))
        try:
            await self.trust.admit(reference)
            known = await self.store.recorded([str(reference)])
            found = await resolve_all(reference, source, wanted, self.store, self.limits, known=known)
            trusted = await self.trust.check(reference, [each for each, _ in found], source)
            found = [(each, for_) for each, (_, for_) in zip(trusted, found, strict=True)]
            async with AsyncExitStack() as kept:
                found = [(await self.whole(each, source, image=image, kept=kept), for_) for each, for_ in found]
                pulled = await self._bring(found, source, image=image, outputs=outputs)
        except FastociError as error:
            error.image = error.image or image
            self.observer(image_failed(image, error))
            raise
        except asyncio.CancelledError:
            self.observer(ImageFailed(image, "cancelled", "cancelled", None))
            raise
        self.observer(ImageDone(image, str(found[0][0].top.digest)))
        return pulled

    async def whole(self, resolved: Resolved, source: BlobSource, *, image: str, kept: AsyncExitStack) -> Resolved:
        """An image as the store has it: one of Docker's schema 1 is brought, and becomes another.

        Args:
            kept: is open for as long as gc is to leave that one.
        Raises:
            FastociError: it cannot be brought, or its layers are none.
        """
        if not resolved.is_outline:
            return resolved

        def announce(missing: Sequence[Descriptor]) -> None:
            self.announce(PullPlan(resolved, tuple(missing)), image)

        top, made = await self.as_schema2(resolved.manifest, source, image=image, kept=kept, announce=announce)
        return Resolved(resolved.reference, ((top, made.raw),), made, None)

    async def as_schema2(
        self,
        outline: Manifest,
        source: BlobSource,
        *,
        image: str,
        kept: AsyncExitStack,
        announce: Callable[[Sequence[Descriptor]], None],
    ) -> tuple[Descriptor, Manifest]:
        """What an image of Docker's schema 1 becomes: all of it is in the store. As ``Schema1Bringing.run``."""
        from fastoci.jobs.schema1 import Schema1Bringing  # which most pulls do not need

        bringing = Schema1Bringing(self.layering, self.scheduler, self.keep_document)
        return await bringing.run(outline, source, image=image, kept=kept, announce=announce)

    async def _bring(
        self, found: Sequence[tuple[Resolved, Wanted]], source: Repository, *, image: str, outputs: Outputs
    ) -> list[tuple[Resolved, ImageConfig | None]]:
        """Bring what a name led to, and record it."""
        images = [each for each, _ in found]
        making = await self.making(outputs, images[0].descriptor, image)
        needed = await self._needed(images, outputs)
        async with self.store.session(needed) as session:
            plans = [_plan(*each, session) for each in found]
            for plan in plans:
                self.announce(plan, image)
            missing = {blob.digest for blob in session.missing}
            root, unpacked = await self.space(making, images, missing)
            async with session.reserve(root=root, unpacked=unpacked) as writer:
                configs = await self._execute_all(writer, plans, source, image=image, making=making)
                await outputs.into.record(image, images, Keeping())
        return list(zip(images, configs, strict=True))

    async def _needed(self, images: Sequence[Resolved], outputs: Outputs) -> list[Descriptor]:
        """What must be in the store: not the blobs that layer files stand for, where these are to be enough."""
        outputs.into.check(images)
        await outputs.into.claim([layer for image in images for layer in image.manifest.layers])
        alone = outputs.layers.only and outputs.into is NOWHERE
        spared = await self.layering.spared(images) if alone else ()
        blobs = (blob for image in images for blob in (*image.documents, *image.blobs))
        return [blob for blob in blobs if blob.digest not in spared]

    async def space(
        self, making: Making, images: Sequence[Resolved], missing: Collection[Digest]
    ) -> tuple[Path | None, int]:
        """Whose disk is filled with files, and with how many bytes.

        Args:
            missing: what is to be fetched; of other layers, there are snapshots as a rule.
        """
        if making.tree is not None:
            return making.tree[0], sum(image.unpacked_estimate for image in images)
        if making.reads:
            return self.store_path, await self.layering.estimate(images, making.layers.form)
        layers = {layer.digest: layer for image in images for layer in image.manifest.layers}
        coming = [layer for digest, layer in layers.items() if digest in missing]
        if making.into.unpacks_at is not None and coming:
            return making.into.unpacks_at, estimate_unpacked(coming)
        return None, 0

    async def making(self, outputs: Outputs, manifest: Descriptor, image: str) -> Making:
        """What of the outputs is to be made: a finished tree of this image is left as it is."""
        if outputs.rootfs is None:
            return Making(outputs.layers, into=outputs.into)
        tree = outputs.rootfs, contents(manifest, outputs.same_owner)
        holds = await self.layering.unpacker.holds(*tree, image=image)
        return Making(outputs.layers, None if holds else tree, outputs.into)

    def announce(self, plan: PullPlan, image: str) -> None:
        """Tell what is planned."""
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
        making: Making,
    ) -> list[ImageConfig | None]:
        """Do what is planned, all at once, and record the name."""
        async with AsyncExitStack() as kept:
            execute = partial(self._execute, writer, source=source, image=image, making=making, kept=kept)
            running = [asyncio.create_task(execute(plan)) for plan in plans]
            await all_or_first(running)
            configs = [task.result() for task in running]
            stored = stored_together(plans, configs)
            await writer.record(replace(stored, layers_only=making.layers.only))
        return configs

    async def _execute(
        self,
        writer: StoreWriter,
        plan: PullPlan,
        *,
        source: Repository,
        image: str,
        making: Making,
        kept: AsyncExitStack,
    ) -> ImageConfig | None:
        resolved = plan.resolved
        tees = await self._tees(plan, making)
        fetches = self._start(writer, plan, source, image=image, tees=tees, making=making)

        async def ready(blob: Descriptor) -> None:
            if blob.digest in fetches:
                await asyncio.shield(fetches[blob.digest])

        def close_tees() -> None:
            for tee in tees.values():
                self.layering.reader.close_tee(tee)

        async def follow() -> ImageConfig | None:
            await ready(resolved.manifest.config)
            config = await self.checked_config(writer, plan, source, image=image, strict=making.reads)
            arriving = Arriving(Mending(image, source), ready, tees)
            if making.reads:
                await self.make(resolved, config, making, arriving, kept)
                arriving = Arriving(arriving.mending, ready)
            if config is not None:
                await making.into.unpack(resolved, config, arriving)
            close_tees()  # what is left unread, because all that it is for was there, does not stop its fetch
            return config

        following = asyncio.create_task(follow())
        try:
            await all_or_first([following, *fetches.values()])
        finally:
            close_tees()
        for descriptor, raw in resolved.chain:
            await self.keep_document(writer, descriptor, raw, image)
        return following.result()

    async def _tees(self, plan: PullPlan, making: Making) -> dict[Digest, Tee]:
        """Tees on missing layers, to use them while they arrive: as many as there are slots; for a tree, the first."""
        tees: dict[Digest, Tee] = {}
        for layer in plan.resolved.manifest.layers[: making.tees]:
            if layer in plan.missing and layer.digest not in tees:
                tee = await self.layering.reader.tee()
                if tee is None:
                    break
                tees[layer.digest] = tee
        return tees

    def _start(
        self,
        writer: StoreWriter,
        plan: PullPlan,
        source: BlobSource,
        *,
        image: str,
        tees: Mapping[Digest, Tee],
        making: Making,
    ) -> dict[Digest, asyncio.Task[None]]:
        """Fetch all that is missing, what has a tee through it."""

        async def fetch(blob: Descriptor) -> None:
            tee = tees.get(blob.digest)
            cached = making.tees != 0 and tee is None
            head = await self.scheduler.fetch(writer, blob, source, image=image, tee=tee, cached=cached)
            await self.layering.notice_lie(blob, head, image)
            making.into.arrived(blob, plan.resolved.reference)

        return {blob.digest: asyncio.create_task(fetch(blob)) for blob in plan.missing}

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
        """The config from the store, where it may be damaged: then it is fetched again.

        Who read the damaged bytes late has the new ones count as absent, so what is absent is fetched more than once.
        """
        config, fetches = manifest.config, 0
        while True:
            try:
                return await read_config(self.store, manifest, self.limits)
            except (IntegrityError, BlobNotFoundError) as error:
                if fetches == (1 if isinstance(error, IntegrityError) else _CONFIG_FETCHES):
                    raise
                self.observer(Warned(image, f"{error.message}: it is fetched again"))
            self.observer(FetchDuplicated(image, str(config.digest), "", 0, config.size, "damaged in the store"))
            await self.scheduler.fetch(writer, config, source, image=image)
            fetches += 1

    async def keep_document(
        self, writer: StoreWriter, descriptor: Descriptor, raw: bytes, image: str, *, absent: bool = False
    ) -> None:
        """Have a document in the store, whatever is there under its name.

        Args:
            absent: the session missed it: nothing can be there but what came since, which was verified.
        """
        if not absent and not await self.store.missing([descriptor]):
            with suppress(StoreError):
                if await self.store.read(descriptor) == raw:
                    return
            await self.store.mark_corrupt(descriptor.digest)
        await self.scheduler.fetch(writer, descriptor, BytesSource(raw), image=image)

    async def make(
        self, resolved: Resolved, config: ImageConfig | None, making: Making, arriving: Arriving, kept: AsyncExitStack
    ) -> None:
        """Make of an image's layers what is asked for.

        Args:
            kept: holds what the store keeps, until the image has its name.
        Raises:
            UnsupportedError: no container image, or a layer of a type that cannot be unpacked.
            UnpackError, FormatError, IntegrityError, StoreError: as ``Layering`` says.
        """
        if config is None:
            config = await read_config(self.store, resolved.manifest, self.limits)  # raises what is wrong with it
        pairs = layers_of(resolved.manifest, config)
        if making.layers.form != "none":
            form, verity = making.layers.form, making.layers.verity
            await kept.enter_async_context(self.layering.keep(pairs, form))
            await self.layering.make(pairs, resolved.descriptor, form, arriving, verity=verity)
            arriving = Arriving(arriving.mending, arriving.ready)
        if making.tree is not None:
            await self.layering.tree(pairs, *making.tree, arriving)

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


def contents(manifest: Descriptor, same_owner: bool | None) -> Contents:
    """Which tree an image gives.

    Args:
        same_owner: files are given to the owners that layers name; None: as root they are, and without root as far as
            this user has ids for that.
    """
    return Contents(manifest.digest, os.geteuid() == 0 if same_owner is None else same_owner, same_owner is None)


def _plan(resolved: Resolved, wanted: Wanted, session: StoreSession) -> PullPlan:
    blobs = {blob.digest for blob in resolved.blobs}.difference(blob.digest for blob in resolved.documents)
    return PullPlan(resolved, tuple(blob for blob in session.missing if blob.digest in blobs), wanted)
