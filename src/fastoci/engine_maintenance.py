"""The part of an engine that keeps its store in order: usage, verification, repair, gc, names, layouts of images."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, get_args

from fastoci import path_walk
from fastoci.arguments import at_least, expect, one_of, several
from fastoci.engine_parts import EngineParts
from fastoci.image.platform import Platform
from fastoci.jobs import maintenance
from fastoci.jobs.image import Image, choose, load_image
from fastoci.jobs.running import RunningJobs, job
from fastoci.store.gc.retention import Retention
from fastoci.store.lookup import find_one

if TYPE_CHECKING:
    from fastoci.image.attachments import Attachment
    from fastoci.image.comparison import Comparison
    from fastoci.image.convert import Recompression
    from fastoci.image.inspection import Inspection
    from fastoci.jobs.compare import Comparing
    from fastoci.jobs.podman import PodmanImage
    from fastoci.jobs.publish import Published
    from fastoci.jobs.repair import Repair
    from fastoci.jobs.verify import Verification
    from fastoci.store.gc.collect import GcItem, GcPlan
    from fastoci.store.usage import Usage

StrPath = str | os.PathLike[str]


class Maintenance:
    """What ``Engine`` does with its store alone; its methods are public there."""

    _parts: EngineParts | None

    @property
    def _running(self) -> RunningJobs:
        return self._open.running

    @property
    def _open(self) -> EngineParts:
        if self._parts is None:
            raise RuntimeError("the engine is not open: use it inside `async with Engine(...) as engine:`")
        if self._parts.loop is not asyncio.get_running_loop():
            raise RuntimeError("the engine is open on another event loop: it is used on the one that entered it")
        return self._parts

    @job
    async def usage(self) -> Usage:
        """How much disk is used, and for whom.

        Raises:
            StoreError: the disk refused.
        """
        return await self._open.store.usage()

    @job
    async def verify(self, references: Sequence[str] = (), *, rate: int | None = None) -> Verification:
        """Hash again what images need; or, without any, every blob of the store, from where that was interrupted.

        Args:
            rate: bytes a second that are read at most.
        Raises:
            BlobNotFoundError: the store has no such reference.
            StoreBusyError: another process verifies the store.
        """
        parts = self._open
        at_least(1, 1 if rate is None else rate, "rate")
        if several(references, str):
            return await parts.verifying.needed(await maintenance.named_images(parts.store, references), rate)
        return await parts.verifying.everything(rate)

    @job
    async def repair(self, references: Sequence[str] = ()) -> Repair:
        """Hash again what images need, all by default, and fetch what is bad or missing from where they point to.

        Raises:
            BlobNotFoundError: the store has no such reference.
        """
        from fastoci.jobs.repair import Repairing
        from fastoci.jobs.repair_unpacked import RepairedStore

        parts = self._open
        refs = await maintenance.named_images(parts.store, several(references, str))
        repairing = Repairing(
            parts.store,
            parts.context.scheduler,
            parts.verifying,
            repository=parts.repository,
            unpacked=RepairedStore(parts.store, parts.verifying, parts.context),
            limits=parts.context.limits,
            observer=parts.context.observer,
        )
        return await repairing.repair(refs)

    @job
    async def export(self, directory: str | os.PathLike[str], references: Sequence[str] = ()) -> int:
        """Add images, all by default, to an OCI layout in ``directory``; how many there are.

        Blobs are hard links to the store's where possible. Each is hashed before, and none is fetched.

        Raises:
            BlobNotFoundError: the store has no such reference, or lost a part of it.
            IntegrityError: a blob is damaged in the store.
            StoreError: ``directory`` is not a layout, or cannot be written.
            StoreBusyError: another process extends the layout, and did not end.
        """
        parts, asked = self._open, several(references, str)
        return await maintenance.export(parts.store, parts.context, parts.context.target(directory), asked)

    @job
    async def plan_gc(self, retention: Retention | None = None) -> GcPlan:
        """Find what the store does not need any more: blobs of no image, and the images that ``retention`` lets go.

        What ``fetch`` brought is of no image. Changes nothing; the plan can be printed.

        Raises:
            StoreError: a reference or a document is broken, so that what it needs is unknown.
        """
        return await self._open.store.plan_gc(Retention() if retention is None else retention)

    @job
    async def gc(self, plan: GcPlan | None = None) -> tuple[GcItem, ...]:
        """Delete what a plan says, and is not needed by then either; what was deleted. Safe beside other processes.

        Args:
            plan: however old; a new one by default.
        Raises:
            StoreBusyError: another process collects.
            StoreError: as ``plan_gc``.
        """
        store = self._open.store
        deleted = await store.gc(await self.plan_gc() if plan is None else plan)
        if any(item.kind == "ref" for item in deleted):
            await store.update_index()
        return deleted

    @job
    async def remove(self, reference: str) -> None:
        """Forget an image's name, by its digest all in one repository; the next ``gc`` deletes what only it needs.

        Raises:
            BlobNotFoundError: the store has no such reference.
            AmbiguousReferenceError: the digest has names in several repositories; so by ``pin``.
        """
        await maintenance.remove(self._open.store, reference)

    @job
    async def podman_images(self) -> tuple[PodmanImage, ...]:
        """The images that podman and CRI-O find in the store: those of ``Image.show_to_podman``.

        Raises:
            StoreError, FormatError: the records cannot be read.
        """
        from fastoci.jobs.podman import shown_images  # which most programs do not need

        store = self._open.store.layers.image_store
        return await self._open.context.layering.workers.run(partial(shown_images, store))

    @job
    async def hide_from_podman(self, reference: str) -> None:
        """Let podman and CRI-O find an image no more by a name; the next ``gc`` deletes what only it needs.

        Args:
            reference: or the id of an image.
        Raises:
            BlobNotFoundError: it is not shown.
            StoreBusyError: a container runs from it, as far as this process sees it.
        """
        from fastoci.jobs.podman import hide

        store = self._open.store.layers.image_store
        await self._open.context.layering.workers.run(partial(hide, store, reference))

    @job
    async def pin(self, reference: str, pinned: bool = True) -> None:
        """Protect an image from ``gc``, or let ``gc`` remove it again.

        Raises:
            BlobNotFoundError: the store has no such reference.
        """
        await maintenance.pin(self._open.store, reference, pinned)

    @job
    async def pack(
        self,
        directory: StrPath,
        tag: str,
        *,
        base: str | None = None,
        against: StrPath | None = None,
        upper: bool = False,
        platform: str | None = None,
        compression: Recompression = "gzip",
    ) -> Image:
        """Make an image of a directory: a layer of what is in it, or of what differs from a base. docs/packing.md.

        Times are no later than ``SOURCE_DATE_EPOCH`` of the environment. What is left out is a ``Warned`` event.

        Args:
            tag: the name that the image gets in the store.
            base: an image of the store that it is built on, as ``image`` takes it.
            against: a directory that ``directory`` is compared with, by default the tree of ``base``.
            upper: ``directory`` is an overlay's upper directory over ``base``; it is compared with nothing.
            platform: what the image is for, and which of ``base`` is meant; this machine's by default.
        Raises:
            PackError: the directory cannot become a layer, or changed meanwhile.
            StoreError: something in it may not be read; the disk refused. BlobNotFoundError: the store has no ``base``.
        """
        from fastoci.image.convert import Recompression
        from fastoci.jobs.pack import PackRequest, environment_epoch, tag_of

        parts = self._open
        one_of(get_args(Recompression), compression, "compression")
        if upper and (base is None or against is not None):
            raise ValueError("upper: an upper directory is packed on a base, and compared with nothing")
        request = PackRequest(
            path_walk.absolute(directory),
            tag_of(tag),
            against=None if against is None else path_walk.absolute(against),
            upper=expect(bool, upper, "upper"),
            compression=compression,
            platform=None if platform is None else Platform.parse(platform),
            epoch=environment_epoch(),
        )
        async with parts.updates.after():
            on = None if base is None else await self._base(base, request.platform)
            return await parts.packing().pack(request, on)

    @job
    async def publish(self, reference: str, target: str, *, platform: str | None = None) -> Published:
        """Push an image of the store with merged metadata beside it, under a name: an experiment. docs/publishing.md.

        Args:
            reference, platform: as ``image`` takes them.
            target: a name with a tag, in the store and its registry.
        Raises:
            BlobNotFoundError: the store has no such image, or lacks a blob of it.
            UnsupportedError: it cannot be published so.
            RegistryError, TransportError: the registry does not take it; it is in the store.
            UnpackError, FormatError, IntegrityError, StoreError: its layer files cannot be made.
        """
        from fastoci.jobs.publish import target_of
        from fastoci.jobs.push import mount_path

        parts, wanted, name = self._open, None if platform is None else Platform.parse(platform), target_of(target)
        image = await self._base(reference, wanted)
        near = mount_path(image.reference, name)
        repository = parts.destination_at(await parts.registry(), name, mount_from=near)
        async with parts.updates.after():
            return await parts.publishing().publish(image, name, repository)

    @job
    async def inspect(
        self, name: str, *, platform: str | None = None, entries: bool = False, top_only: bool = False
    ) -> Inspection:
        """Look at what a name leads to, in the store or at any other end. Fetches no layer. docs/inspect.md.

        Args:
            name: an image of the store, as ``image`` takes it, or an end as of ``copy``: ``docker://redis:7``.
            platform: as ``pull`` takes it; "all" are those of the index that are images. Without one, and without an
                image for this machine, there are no ``images``.
            entries: count the entries of layers that are at hand, which are read for that.
            top_only: look at no image, only at the document that the name leads to.
        Raises:
            BlobNotFoundError, NotFoundError: there is no such image. PlatformError: or none for the platform.
            FormatError, UnsupportedError, IntegrityError: a document is not what it should be.
            StoreError, RegistryError, TransportError: it cannot be read.
        """
        from fastoci.ends import Ends
        from fastoci.jobs.inspect import look
        from fastoci.jobs.subjects import spool_of, wanted_of

        wanted = wanted_of(platform)
        context = self._open.context
        with spool_of(context) as spool:
            async with Ends(self._open).subject(name, spool) as subject:
                looked = await look(context, subject, wanted, entries=entries, top_only=top_only)
        return looked.inspection

    @job
    async def attachments(self, name: str) -> tuple[Attachment, ...]:
        """What hangs on an image of the store or of another end, and on its manifests: docs/referrers.md.

        Each behind what it hangs on. What a place lists there wrongly is a ``Warned`` event.

        Args:
            name: as of ``inspect``.
        Raises:
            BlobNotFoundError, NotFoundError: there is no such image.
            FormatError, UnsupportedError, IntegrityError: a document is not what it should be, or too much hangs there.
            StoreError, RegistryError, TransportError: the place does not say.
        """
        from fastoci.ends import Ends

        return await Ends(self._open).attachments(name)

    @job
    async def compare(self, left: str, right: str, *, platform: str | None = None) -> Comparison:
        """Compare what two names lead to, by their documents: fields and layers. Fetches no layer. docs/inspect.md.

        Args:
            left, right, platform: as of ``inspect``, but "all".
        Raises:
            FastociError: as ``inspect``.
        """
        async with self.comparing(left, right, platform=platform) as comparing:
            return comparing.comparison

    @asynccontextmanager
    async def comparing(self, left: str, right: str, *, platform: str | None = None) -> AsyncIterator[Comparing]:
        """``compare``, and the files that differ: ``comparing.files()``, which reads the layers of both.

        Raises:
            FastociError: as ``compare``.
        """
        from fastoci.ends import Ends
        from fastoci.jobs.compare import compare
        from fastoci.jobs.subjects import spool_of

        wanted = None if platform is None else Platform.parse(platform)
        context, ends = self._open.context, Ends(self._open)
        with self._running.job(), spool_of(context) as spool:
            async with ends.subject(left, spool) as one, ends.subject(right, spool) as other:
                yield await compare(context, (one, other), wanted)

    async def _base(self, reference: str, platform: Platform | None) -> Image:
        """An image of the store that something is made of."""
        parts = self._open
        ref = await find_one(parts.store, reference)
        return await load_image(parts.context, ref, choose(ref, platform), asked=reference)
