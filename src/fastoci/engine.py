"""The engine: one store, one scheduler, one set of connections; images and blobs on demand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, get_args

from fastoci import path_walk
from fastoci.aio import all_or_first
from fastoci.arguments import expect, expect_callable, one_of, several
from fastoci.engine_maintenance import Maintenance
from fastoci.engine_parts import EngineParts
from fastoci.events import Observer, Warned, Watch
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.platform import ALL, Platform
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import BlobSource
from fastoci.jobs import maintenance
from fastoci.jobs.destination import IntoPodman
from fastoci.jobs.image import Image, choose, load_image
from fastoci.jobs.offline import StoredPull
from fastoci.jobs.outputs import Outputs, Terms, kept_layers
from fastoci.jobs.plan import Layers, Resolved
from fastoci.jobs.record import record
from fastoci.jobs.resolve import platforms, read_document, resolve
from fastoci.jobs.running import job
from fastoci.limits import Limits
from fastoci.store.lookup import find_one
from fastoci.store.opening import default_store

if TYPE_CHECKING:
    from fastoci.ends import CopyOptions
    from fastoci.jobs.containerd import Into
    from fastoci.jobs.copy import Copied
    from fastoci.jobs.prefetch_plan import PrefetchPlan, PrefetchResult
    from fastoci.jobs.wanted_state import WantedState
    from fastoci.lists.request import Entry
    from fastoci.registry.options import RegistryOptions
    from fastoci.trust.policy import TrustPolicy

StrPath = str | os.PathLike[str]
Policy = Literal["always", "missing", "never"]


class Engine(Maintenance):
    """One store, and the registries that fill it. An async context manager, used on one event loop.

    Brings images and blobs in (``pull``; ``hold``, ``fetch``, ``record``), asks registries (``resolve``, ``tags``) and
    changes them (``push``, ``copy``, ``tag``, ``delete``), shows what is there (``images``, ``image``, ``usage``,
    ``open``, ``path``, ``read``), keeps it in order (``verify``, ``repair``, ``remove``, ``pin``, ``plan_gc``, ``gc``)
    and hands it on (``export``, and ``unpack``, ``bundle`` and ``export`` of an ``Image``). References are taken as
    ``docker pull`` takes them.

    Args:
        store: the directory; by default ``/var/lib/fastoci`` for root, else below ``$XDG_DATA_HOME``.
        registry: how registries are asked; by default as the machine's usual files say.
        limits: connections, memory, threads and bounds.
        additional: read-only stores that are searched before the network.
        observer: receives every event (``fastoci.events``).
        trust: which images may be had; by default as the machine's ``policy.json`` says.
    Raises:
        StoreError: on entering, when the store cannot be opened.
        TypeError, ValueError: by every method, when an argument is none that it takes.
        RuntimeError: by every method, outside of the ``async with`` block, when that is left while the method runs, or
            on another loop; on entering, when it is open; on leaving, when the observer raised: it was not called
            again, and the work went on.
    """

    def __init__(
        self,
        store: StrPath | None = None,
        *,
        registry: RegistryOptions | None = None,
        limits: Limits | None = None,
        additional: Sequence[StrPath] = (),
        observer: Observer | None = None,
        trust: TrustPolicy | None = None,
    ) -> None:
        self.store_path = path_walk.absolute(default_store() if store is None else store)
        self._options = registry
        self._trust = trust
        self._limits = expect(Limits, Limits() if limits is None else limits, "limits")
        self._additional = [path_walk.absolute(each) for each in several(additional, str, os.PathLike)]
        self._watch = Watch(observer)
        self._observer: Observer = (lambda event: None) if observer is None else self._watch
        self._parts: EngineParts | None = None

    async def __aenter__(self) -> Engine:
        if self._parts is not None:
            raise RuntimeError("the engine is open already: an engine is entered once at a time")
        self._parts = await EngineParts.open(
            self.store_path,
            self._additional,
            limits=self._limits,
            observer=self._observer,
            options=self._options,
            trust=self._trust,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        parts, self._parts = self._open, None
        await parts.close()
        if kind is None:
            self._watch.check()

    def __repr__(self) -> str:
        return f"<fastoci.Engine of {self.store_path}, {'open' if self._parts else 'not open'}>"

    @job
    async def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        rootfs: StrPath | None = None,
        same_owner: bool | None = None,
        layers: Layers | None = None,
        policy: Policy = "always",
        into: Into | IntoPodman | None = None,
    ) -> Image:
        """Bring an image into the store; what is there already is not fetched.

        Args:
            reference: as ``docker pull`` takes it; with ``policy`` "never" as ``image`` takes it.
            platform: ``os/arch[/variant]``, or one of both; this machine's by default.
            rootfs: unpack there too, unless the image is there, finished; must not exist or be an empty directory.
            same_owner: give files to the owners that layers name; by default as root only.
            layers: what the store keeps of the layers beside their blobs, for mounts; it is made when it is not there.
            policy: whether the registry is asked: "missing" is when the store does not have the image whole. For a
                reference with a digest "always" is "missing": a digest names the same for ever.
            into: a namespace of containerd that has the image then, too, and what it has already is not fetched; or
                podman, which finds the image in the store.
        Raises:
            RootfsOccupiedError: something else is at ``rootfs``.
            ContainerdError: containerd refused, or is gone.
            FastociError: what was finished stays, and the next pull goes on from there.
        """
        wanted = None if platform is None else (Platform.parse(platform),)
        target = None if rootfs is None else self._open.context.target(rootfs)
        outputs = Outputs(target, same_owner, kept_layers(layers, into))
        return (await self._pull(StoredPull(self._open.context, reference, wanted, outputs), policy, into))[0]

    @job
    async def pull_platforms(
        self,
        reference: str,
        platforms: Sequence[str],
        *,
        layers: Layers | None = None,
        policy: Policy = "always",
        into: Into | IntoPodman | None = None,
    ) -> tuple[Image, ...]:
        """Bring an image into the store for several platforms at once; an image for each, each manifest once.

        Args:
            platforms: each as ``pull`` takes it; "all" are those of the index that are images.
            layers: as of ``pull``, for each platform.
            into: as of ``pull``, with all these platforms.
            policy: as of ``pull``; "missing" asks for "all", "never" gives of "all" what the store has.
        Raises:
            FastociError: as ``pull``; the name is recorded when all are here.
        """
        parsed = tuple(Platform.parse(each) for each in several(platforms, str) if each != ALL)
        wanted = () if ALL in platforms else parsed or None
        outputs = Outputs(layers=kept_layers(layers, into))
        return await self._pull(StoredPull(self._open.context, reference, wanted, outputs), policy, into)

    async def _pull(self, job: StoredPull, policy: Policy, into: Into | IntoPodman | None) -> tuple[Image, ...]:
        one_of(get_args(Policy), policy, "policy")
        async with self._open.destination(into) as destination:
            return await self._bring(job.going(destination), policy)

    async def _bring(self, job: StoredPull, policy: Policy) -> tuple[Image, ...]:
        parts = self._open
        if policy != "always":
            found = partial(find_one, parts.store, job.reference)
            if (images := await job.run(found, ask=None if policy == "never" else parts.repository)) is not None:
                return tuple(images)
        reference = Reference.parse(job.reference)
        if policy == "always" and reference.digest is not None and not job.outputs.layers.only:
            images = await job.run(partial(parts.store.image, str(reference)), ask=parts.repository)
            if images is not None:
                return tuple(images)
        source = await self._open.repository(reference, image=job.reference)
        async with parts.updates.after():
            pulled = await parts.context.pull(
                reference, source, image=job.reference, wanted=job.wanted, outputs=job.outputs
            )
            await parts.drop_blobs(job.outputs.layers, [str(reference)])
        return tuple(Image(parts.context, resolved, config, source) for resolved, config in pulled)

    @job
    async def plan_prefetch(
        self, requests: Sequence[Entry], state: WantedState | None = None, *, into: Into | IntoPodman | None = None
    ) -> PrefetchPlan:
        """Ask registries what many names lead to, as one job. Fetches no blob, and leaves the store as it is.

        Args:
            into: as of ``pull``: what containerd has already is not to be fetched.
        Raises:
            ValueError, StoreError, ContainerdError: as ``prefetch``.
        """
        return await self._open.prefetch().plan(requests, state, into)

    @job
    async def prefetch(
        self,
        requests: Sequence[Entry],
        state: WantedState | None = None,
        *,
        layers: Layers | None = None,
        fail_fast: bool = False,
        workers: int = 1,
        into: Into | IntoPodman | None = None,
    ) -> PrefetchResult:
        """Bring many images into the store as one job: each unique blob once, each image there as soon as it is whole.

        What fails is told in the result, and the other images go on.

        Args:
            requests: images, rules that choose tags, and problems of lists, which are told as images that failed.
            state: of which list the job is, and what goes when the list does not want it any more.
            layers: as of ``pull``, for each image.
            fail_fast: what is not there when the first image fails is skipped.
            workers: processes that fetch, which share the limits; 1 is this one.
            into: as of ``pull``, for each image.
        Raises:
            ContainerdError: containerd does not answer.
            StoreError: the disk refused before anything was fetched; ``StoreBusyError``: another job of the list runs.
            ValueError: ``state`` would prune all by an empty list, and does not say that this is meant.
        """
        async with self._open.updates.after(), self._open.destination(into) as destination:
            parts, terms = self._open, Terms(kept_layers(layers, into), fail_fast, destination)
            result = await parts.prefetch().run(requests, parts.fetching(workers), state, terms)
            names = [str(Reference.parse(each.request.reference)) for each in result.images if each.error is None]
            await parts.drop_blobs(terms.layers, names)
            return result

    @job
    async def fetch(self, descriptors: Sequence[Descriptor], source: BlobSource) -> None:
        """Bring blobs into the store, for pullers that have their own manifests.

        Raises:
            FastociError: of the first that failed; what was finished stays.
        """
        store, scheduler = self._open.store, self._open.context.scheduler
        expect_callable(getattr(source, "fetch", None), "source.fetch")
        async with store.session(several(descriptors, Descriptor)) as session, session.reserve() as writer:
            if fetches := [asyncio.create_task(scheduler.fetch(writer, blob, source)) for blob in session.missing]:
                await all_or_first(fetches)
            await writer.flush()

    @asynccontextmanager
    async def hold(self, digests: Collection[Digest]) -> AsyncIterator[None]:
        """Keep blobs from gc while they are fetched and recorded, or a path is in use: those here and those to come.

        Raises:
            StoreError: the disk refused.
        """
        async with self._open.store.keep([Descriptor("", digest, 0) for digest in several(digests, Digest)]):
            yield

    @job
    async def record(self, reference: str, manifest: bytes, *, media_type: str = "") -> Image:
        """Give a name to an image whose blobs are in the store: from then on gc keeps them.

        Args:
            manifest: its exact bytes.
            media_type: of the manifest; by default what it says itself.
        Raises:
            BlobNotFoundError: the store lacks a blob of it. FormatError, UnsupportedError: it is not a manifest.
            IntegrityError: the config is damaged; or the reference has a digest, which is another's.
            StoreError: the disk refused.
        """
        parts = self._open
        image = await record(parts.context, Reference.parse(reference), manifest, media_type)
        await parts.store.update_index()
        return image

    @job
    async def copy(self, source: str, destination: str, options: CopyOptions | None = None) -> Copied:
        """Copy an image from one place to another, by way of no disk where bytes can go through.

        Args:
            source, destination: ``docker://REF``, ``oci:PATH[:NAME]``, ``store:REF``, as docs/copy.md has them.
        Raises:
            ReferenceSyntaxError: one of them is none. PlatformError: the image is not for a platform asked for.
            FastociError: as the places say; the destination has nothing under its name then, or what was there before.
        """
        from fastoci.ends import Ends

        return (await Ends(self._open).copy([source], destination, options))[0]

    @job
    async def copy_all(
        self, sources: Sequence[str], destination: str, options: CopyOptions | None = None
    ) -> tuple[Copied, ...]:
        """Copy images to one layout or archive, each under the name that it has, and all at once.

        Raises:
            ReferenceSyntaxError: several cannot go there, or have one name. FastociError: as ``copy``; none is there.
        """
        from fastoci.ends import Ends

        return await Ends(self._open).copy(several(sources, str), destination, options)

    @job
    async def resolve(self, reference: str, *, platform: str | None = None) -> Resolved:
        """Ask a registry what a name leads to. Fetches no blob, and leaves the store as it is.

        Raises:
            FastociError: as ``pull``.
        """
        context, parsed = self._open.context, Reference.parse(reference)
        wanted = None if platform is None else Platform.parse(platform)
        await context.trust.admit(parsed)
        repository = await self._open.repository(parsed, reference)
        resolved = await resolve(parsed, repository, wanted, context.store, self._limits)
        await context.trust.check(parsed, [resolved], repository)
        return resolved

    @job
    async def platforms(self, reference: str) -> tuple[str, ...]:
        """Ask a registry which platforms a name has images for; none where no index says it. Raises: as ``pull``."""
        context, parsed = self._open.context, Reference.parse(reference)
        return await platforms(parsed, await self._open.repository(parsed, reference), context.store, self._limits)

    @job
    async def tags(self, repository: str) -> tuple[str, ...]:
        """Ask a registry for the tags of a repository, in its order.

        Raises:
            NotFoundError, RegistryError, TransportError, FormatError: the list cannot be had.
        """
        return await self._open.tags(repository)

    @job
    async def push(self, reference: str, destination: str = "", *, platforms: Sequence[str] = ()) -> Copied:
        """Push an image of the store to a registry. docs/push.md.

        Args:
            reference: as ``image`` takes it.
            destination: the name there, ``docker://`` may stand before it; by default the one in the store.
            platforms: as ``CopyOptions`` has them; by default all that the store has of the image.
        Raises:
            BlobNotFoundError: the store has no such image, or lacks a part of it.
            IntegrityError: a blob is damaged in the store; or the registry stored something else.
            RegistryError, TransportError: the registry does not take it; what it has by then has no tag.
        """
        from fastoci.ends import Ends

        return await Ends(self._open).push(reference, destination, tuple(several(platforms, str)))

    @job
    async def tag(self, reference: str, target: str) -> Descriptor:
        """Give an image of a registry another tag in its repository; what that tag named before keeps its digest alone.

        Raises:
            ReferenceSyntaxError: ``target``, a tag or a name in full, is in another repository, or no tag.
            NotFoundError, RegistryError, TransportError: the registry has no such image, or does not take it.
        """
        from fastoci.jobs.registry_names import tag, tag_target

        source, parts = Reference.parse(reference), self._open
        named = tag_target(source, target)
        return await tag(parts.destination_at(await parts.registry(), source), source, named)

    @job
    async def delete(self, reference: str) -> None:
        """Take away a tag of a registry, or by its digest a manifest or index with all tags that it has.

        Raises:
            ReferenceSyntaxError: neither a tag nor a digest is named, or both are. NotFoundError: it is not there.
            UnsupportedError: the registry does not do that; the message says what it may do.
            RegistryError, TransportError: it refuses.
        """
        from fastoci.jobs.registry_names import delete_target

        target, parts = delete_target(reference), self._open
        await parts.destination_at(await parts.registry(), target, deleting=True).delete(target)

    @job
    async def open(self, digest: Digest) -> int:
        """A read-only descriptor of a blob's file, which the caller closes. Its bytes were verified when they came.

        Raises:
            BlobNotFoundError: the store does not have it.
        """
        store = self._open.store
        blob, _ = await store.find(digest)
        return store.open(blob)

    @job
    async def path(self, digest: Digest) -> Path:
        """The path of a blob's file, which must not be written. Inside ``hold``, gc leaves it there.

        Raises:
            BlobNotFoundError: the store does not have it.
        """
        return (await self._open.store.find(digest))[1]

    @job
    async def read(self, digest: Digest) -> bytes:
        """All bytes of a small blob (a manifest or config), verified again.

        Raises:
            BlobNotFoundError: the store does not have it. DigestMismatchError: it is damaged.
            FormatError: it is larger than ``Limits.manifest_size``.
        """
        store = self._open.store
        blob, _ = await store.find(digest)
        return await read_document(store, blob, self._limits, what="blob")

    @job
    async def images(self, references: Sequence[str] = ()) -> tuple[StoredImage, ...]:
        """The images in the store, all by default. A reference's file that cannot be read is a ``Warned`` event.

        Raises:
            BlobNotFoundError: the store has no such reference. StoreError: the disk refused.
        """
        found, broken = await maintenance.images(self._open.store, several(references, str))
        for error in broken:
            self._observer(Warned("", str(error)))
        return found

    @job
    async def image(self, reference: str, *, platform: str | None = None) -> Image:
        """An image from the store alone.

        Args:
            reference: its name, ``NAME@DIGEST``, its digest, or the first digits of that; so by all methods below.
        Raises:
            BlobNotFoundError: the store has no such reference, or lost a part of it.
            AmbiguousReferenceError: a digest's first digits are those of several images; so by all methods below.
            IntegrityError: the manifest or config is damaged. PlatformError: it was not pulled for ``platform``.
        """
        parts, wanted = self._open, None if platform is None else Platform.parse(platform)
        ref = await find_one(parts.store, reference)
        return await load_image(parts.context, ref, choose(ref, wanted), asked=reference)
