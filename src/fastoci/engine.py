"""The engine: one store, one scheduler, one set of connections; images and blobs on demand.

Everything a program needs of fastoci is here: ``Engine`` and ``Image`` for asyncio, ``pull`` and ``apply`` beside them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from fastoci import _core, path_walk
from fastoci.aio import all_or_first
from fastoci.errors import BlobNotFoundError, PlatformError, StoreError
from fastoci.events import CandidateSwitched, Observer, QuotaSeen, Warned
from fastoci.image import manifest as manifest_document
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.index import select
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.interfaces import BlobSource
from fastoci.jobs.maintenance import Upkeep
from fastoci.jobs.plan import Resolved
from fastoci.jobs.preflight import Preflight
from fastoci.jobs.pull import PullContext, Repository, read_config
from fastoci.jobs.resolve import read_document
from fastoci.jobs.stored import Mending, Stored
from fastoci.layouts.oci_layout import LayoutImage
from fastoci.limits import Limits
from fastoci.store.gc.collect import GcItem, GcPlan
from fastoci.store.gc.retention import Retention
from fastoci.store.refs import Ref
from fastoci.store.store import Store
from fastoci.threads import Threads
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.scheduler import Scheduler
from fastoci.transfer.unpacker import Unpacker
from fastoci.transfer.workers import WorkerPool

if TYPE_CHECKING:
    from fastoci.registry.client import Registry

StrPath = str | os.PathLike[str]


class Image:
    """One image that is in the store whole. Usable while its engine is open.

    ``descriptor`` is what the name points to (an index or a manifest), ``manifest_descriptor`` the manifest's;
    ``config`` is None for an artifact; ``platform`` is None when neither index nor config name one.
    """

    def __init__(
        self, job: PullContext, resolved: Resolved, config: ImageConfig | None, source: BlobSource | None = None
    ) -> None:
        self._job = job
        self._resolved = resolved
        self._source = source  # of blobs that are damaged in the store; None when no registry may be asked
        self.config = config

    @property
    def reference(self) -> Reference:
        """The name, in full."""
        return self._resolved.reference

    @property
    def descriptor(self) -> Descriptor:
        """What the name points to."""
        return self._resolved.top

    @property
    def manifest_descriptor(self) -> Descriptor:
        """The manifest of this platform."""
        return self._resolved.descriptor

    @property
    def manifest(self) -> Manifest:
        """The manifest; ``raw`` has its exact bytes."""
        return self._resolved.manifest

    @property
    def platform(self) -> Platform | None:
        """What the image runs on."""
        return self._resolved.platform or (self.config.platform if self.config and self.config.os else None)

    @property
    def size(self) -> int:
        """Bytes of config and layers."""
        return sum(blob.size for blob in self._resolved.blobs)

    async def unpack(self, root: StrPath) -> None:
        """Make a rootfs under ``root``, which must not exist or be an empty directory.

        Raises:
            UnsupportedError, UnpackError, FormatError, IntegrityError, StoreError: nothing is left under ``root``.
        """
        target = path_walk.absolute(root)
        await self._note_use()
        async with self._job.store.lease_if_writable(self._parts):
            await self._job.unpack(self._resolved, self.config, target, mending=self._mending())

    async def export(self, directory: StrPath) -> None:
        """Add the image to an OCI layout in ``directory``, under its full name; blobs are hard links where possible.

        Each is hashed before. What is damaged in the store is fetched again, of an image that was pulled.

        Raises:
            IntegrityError: a blob is damaged in the store, and no registry may be asked.
            StoreError: ``directory`` is no layout, or cannot be written.
            StoreBusyError: another process extends the layout, and did not end.
        """
        target = path_walk.absolute(directory)
        await self._note_use()
        top = replace(self.manifest_descriptor, platform=self.platform)
        store = self._job.store
        async with store.lease_if_writable(self._parts):
            image = LayoutImage(str(self.reference), top, self._parts)
            await self._job.stored.export(target, [image], self._mending())

    def _mending(self) -> Mending:
        return Mending(str(self.reference), self._source, {self.manifest_descriptor.digest: self.manifest.raw})

    @property
    def _parts(self) -> tuple[Descriptor, ...]:
        return (self.manifest_descriptor, *self._resolved.blobs)

    async def _note_use(self) -> None:
        """The reference's last use is what keeps an image when room is needed."""
        with suppress(BlobNotFoundError):  # removed meanwhile: its blobs are still here
            await self._job.store.touch(str(self.reference))


class Engine:
    """Pulls images and fetches blobs into one shared store. An async context manager, used on one event loop.

    ``upkeep`` keeps the store in order: lists, adds up, verifies, repairs, shows it to other tools.

    Args:
        store: the directory; by default ``/var/lib/fastoci`` for root, else below ``$XDG_DATA_HOME``.
        additional: stores that are only read, and looked into before the network.
        limits: connections, memory, threads and bounds.
        tls_verify: False accepts any certificate, and plain http.
        authfile, creds: where credentials come from, before the usual files; a user and password for this engine.
        credential_providers: the kubelet's CredentialProviderConfig and the directory of its plugins.
        registries_conf, hosts_dir: mirrors in podman's or containerd's form, instead of the usual files.
        cert_dir: certificates for every registry, instead of those of ``certs.d``.
        observer: is told what happens (``fastoci.events``).
    Raises:
        StoreError: on entering, when the store cannot be opened.
    """

    def __init__(
        self,
        store: StrPath | None = None,
        *,
        additional: Sequence[StrPath] = (),
        limits: Limits | None = None,
        tls_verify: bool = True,
        authfile: StrPath | None = None,
        creds: tuple[str, str] | None = None,
        credential_providers: tuple[StrPath, StrPath] | None = None,
        registries_conf: StrPath | None = None,
        hosts_dir: StrPath | None = None,
        cert_dir: StrPath | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.store_path = path_walk.absolute(default_store() if store is None else store)
        self._additional = [path_walk.absolute(each) for each in additional]
        self._limits = limits or Limits()
        self._tls_verify = tls_verify
        self._authfile = _path(authfile)
        self._creds = creds
        self._providers = None if credential_providers is None else tuple(map(path_walk.absolute, credential_providers))
        self._places = (_path(registries_conf), _path(hosts_dir), _path(cert_dir))
        self._observer: Observer = observer or (lambda event: None)
        self._registry: Registry | None = None
        self._opening = asyncio.Lock()  # one client for all pulls: it knows which hosts are dead
        self._pulls = 0
        self._view_is_old = False

    async def __aenter__(self) -> Engine:
        open_store = partial(
            Store.at,
            self.store_path,
            self._additional,
            durability=self._limits.durability,
            manifest_size=self._limits.manifest_size,
        )
        self._store = await Threads.acquire(open_store, Store.close)
        for refused in self._store.left_out:
            self._observer(Warned("", str(refused)))
        self._stack = AsyncExitStack()
        self._worker = WorkerPool(self._limits.workers)
        buffers = Buffers(_core.Pool(self._limits.memory), ahead=self._limits.ahead)
        self._scheduler = Scheduler(self._store, self._worker, buffers, self._limits, self._observer)
        unpacker = Unpacker(self._worker, buffers, self._limits, self._observer)
        self._preflight = Preflight(self._store, self._worker, self._limits)
        stored = Stored(self._store, self._scheduler, self._worker, buffers, self._observer)
        self._job = PullContext(
            self._store, self._scheduler, stored, unpacker, self._preflight, self._limits, self._observer
        )
        self.upkeep = Upkeep(
            self._store,
            self._scheduler,
            self._worker,
            buffers,
            stored=stored,
            repository=self._repository,
            limits=self._limits,
            observer=self._observer,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._scheduler.close()
            await self._stack.aclose()
        finally:
            self._worker.close()
            self._store.close()

    async def pull(self, reference: str, *, platform: str | None = None, rootfs: StrPath | None = None) -> Image:
        """Bring an image into the store; what is there already is not fetched.

        Args:
            reference: as ``docker pull`` takes it.
            platform: ``os/arch[/variant]``; this machine's by default.
            rootfs: unpack there too, while the layers arrive; must not exist or be an empty directory.
        Raises:
            FastociError: what was finished stays, and the next pull goes on from there.
        """
        parsed = Reference.parse(reference)
        target = _path(rootfs)
        wanted = None if platform is None else Platform.parse(platform)
        repository = await self._repository(parsed)
        self._pulls += 1
        try:
            resolved, config = await self._job.pull(parsed, repository, image=reference, platform=wanted, rootfs=target)
            self._view_is_old = True
        except BaseException:
            with suppress(StoreError):  # the pull's own error is the one to know of; the view stays old
                await self._leave_pull()
            raise
        await self._leave_pull()
        return Image(self._job, resolved, config, repository)

    async def _leave_pull(self) -> None:
        """The last of the pulls under way brings ``index.json`` up to date, for all of them."""
        self._pulls -= 1
        if not self._pulls and self._view_is_old:
            await self._store.update_view()
            self._view_is_old = False

    async def fetch(self, descriptors: Sequence[Descriptor], source: BlobSource) -> None:
        """Bring blobs into the store, for pullers that have their own manifests.

        Raises:
            FastociError: of the first that failed; what was finished stays.
        """
        async with self._store.lease(descriptors):
            missing = await self._store.missing(descriptors)
            if missing:
                await self._store.mark_pending(missing)
                async with self._preflight.room(missing):
                    await all_or_first([asyncio.create_task(self._scheduler.fetch(blob, source)) for blob in missing])
            await self._store.flush()

    async def plan_gc(self, retention: Retention | None = None) -> GcPlan:
        """Find what the store does not need any more: blobs of no image, and the images that ``retention`` lets go.

        What ``fetch`` brought is of no image. Changes nothing; the plan can be printed.

        Raises:
            StoreError: a reference or a document is broken, so that nobody knows what it needs.
        """
        return await self._store.plan_gc(retention or Retention())

    async def gc(self, plan: GcPlan | None = None) -> tuple[GcItem, ...]:
        """Delete what a plan says, and is still not needed by then; safe beside other processes.

        Args:
            plan: however old; a new one by default.
        Returns:
            what was deleted.
        Raises:
            StoreBusyError: another process collects.
            StoreError: as ``plan_gc``.
        """
        deleted = await self._store.gc(plan or await self.plan_gc())
        if any(item.kind == "ref" for item in deleted):
            await self._store.update_view()
        return deleted

    async def remove(self, reference: str) -> None:
        """Forget an image's name; what only it needs is deleted by the next ``gc``.

        Raises:
            BlobNotFoundError: the store has no such reference.
        """
        name = str(Reference.parse(reference))
        if not await self._store.forget(name):
            raise BlobNotFoundError(f"the store has no reference {name}", path=str(self.store_path))
        await self._store.update_view()

    async def pin(self, reference: str, pinned: bool = True) -> None:
        """Keep an image whatever ``gc`` is asked to make room for, or let it go again.

        Raises:
            BlobNotFoundError: the store has no such reference.
        """
        await self._store.pin(str(Reference.parse(reference)), pinned)

    async def images(self) -> list[Ref]:
        """The references in the store, by name."""
        refs, _ = await asyncio.to_thread(self._store.refs.list)
        return list(refs)

    async def image(self, reference: str, *, platform: str | None = None) -> Image:
        """An image from the store alone.

        Raises:
            BlobNotFoundError: the store has no such reference, or lost a part of it.
            IntegrityError: the manifest or config is damaged.
            PlatformError: it was not pulled for ``platform``.
        """
        parsed = Reference.parse(reference)
        ref = await self._store.reference(str(parsed))
        held = [manifest for manifest in ref.images.values()]
        chosen = select(held, Platform.host() if platform is None else Platform.parse(platform))
        if chosen is None and platform is None and len(held) == 1:
            chosen = held[0]
        if chosen is None:
            names = tuple(ref.images)
            raise PlatformError(f"{reference} was pulled for {', '.join(names)} only", available=names)
        data = await read_document(self._store, chosen, self._limits)
        manifest = manifest_document.parse(data, chosen.media_type)
        chain = ((chosen, data),) if chosen.digest == ref.descriptor.digest else ((ref.descriptor, b""), (chosen, data))
        resolved = Resolved(parsed, chain, manifest, chosen.platform)
        return Image(self._job, resolved, await read_config(self._store, manifest, self._limits))

    async def _repository(self, reference: Reference) -> Repository:
        return (await self._open_registry()).repository(reference)

    async def _open_registry(self) -> Registry:
        """The client, on the first pull: aiohttp costs a quarter of a second to import."""
        async with self._opening:
            if self._registry is None:
                self._registry = await self._stack.enter_async_context(await self._make_registry())
        return self._registry

    async def _make_registry(self) -> Registry:
        from fastoci.registry.auth.credential import Credential
        from fastoci.registry.auth.credentials import load
        from fastoci.registry.client import Registry
        from fastoci.registry.config import endpoints
        from fastoci.registry.fetch.retry import RetryPolicy
        from fastoci.registry.http.proxy import proxy_for

        explicit = None if self._creds is None else Credential(*self._creds)
        providers = None if self._providers is None else (self._providers[0], self._providers[1])
        registries, hosts_dir, cert_dir = self._places
        mirrors = await asyncio.to_thread(
            lambda: endpoints.load(
                os.environ, os.geteuid(), registries=registries, hosts_dir=hosts_dir, cert_dir=cert_dir
            )
        )
        machine = mirrors.registries.credential_helpers
        return Registry(
            mirrors=mirrors,
            proxy=lambda url: proxy_for(url, os.environ),
            credentials=await asyncio.to_thread(
                load, self._authfile, explicit=explicit, machine=machine, providers=providers
            ),
            tls_verify=self._tls_verify,
            connect_s=self._limits.connect_s,
            read_s=self._limits.read_s,
            connections=self._limits.connections,
            manifest_size=self._limits.manifest_size,
            retry_policy=RetryPolicy(max_wait_s=self._limits.max_wait_s),
            on_quota=lambda host, quota: self._observer(QuotaSeen(host, quota.remaining, quota.limit, quota.window_s)),
            left=lambda *words: self._observer(CandidateSwitched("", *words)),
        )


def _path(given: StrPath | None) -> Path | None:
    return None if given is None else path_walk.absolute(given)


async def apply(
    directory: StrPath, layers: Sequence[StrPath], *, limits: Limits | None = None, observer: Observer | None = None
) -> None:
    """Apply layer files (tar, gzip or zstd) in order onto a directory, in place.

    Raises:
        UnpackError, FormatError, StoreError: the directory holds what was extracted before.
    """
    limits = limits or Limits()
    target, paths = path_walk.absolute(directory), [path_walk.absolute(layer) for layer in layers]
    worker = WorkerPool(limits.workers)
    try:
        unpacker = Unpacker(worker, Buffers(_core.Pool(limits.memory)), limits, observer or (lambda event: None))
        await unpacker.apply(target, paths)
    finally:
        worker.close()


def pull(
    reference: str,
    *,
    store: StrPath | None = None,
    platform: str | None = None,
    rootfs: StrPath | None = None,
    limits: Limits | None = None,
) -> Path:
    """Pull one image, for programs that are not async; the store's directory.

    Raises:
        FastociError: as ``Engine.pull``.
    """

    async def run() -> Path:
        async with Engine(store, limits=limits) as engine:
            await engine.pull(reference, platform=platform, rootfs=rootfs)
            return engine.store_path

    return asyncio.run(run())


def default_store() -> Path:
    """Where the store is when nobody says: one for the machine when root, else one for the user."""
    if os.geteuid() == 0:
        return Path("/var/lib/fastoci")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "fastoci"
