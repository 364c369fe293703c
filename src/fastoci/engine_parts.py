"""What an engine is made of while it is open: a store, threads, a budget of memory, and connections on demand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastoci import _core
from fastoci.arguments import at_least, expect
from fastoci.events import Observer, Warned
from fastoci.image.reference import Reference
from fastoci.jobs.destination import NOWHERE, Destination, IntoPodman
from fastoci.jobs.layers import Layering
from fastoci.jobs.plan import Layers
from fastoci.jobs.pull import PullContext, Repository
from fastoci.jobs.running import RunningJobs
from fastoci.jobs.stored import Stored
from fastoci.jobs.trust import Trust
from fastoci.limits import Limits
from fastoci.store.free_space import Space, space
from fastoci.store.index_updates import IndexUpdates
from fastoci.store.store import Store
from fastoci.threads import Threads
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_reading import LayerReader
from fastoci.transfer.scheduler import Scheduler
from fastoci.transfer.streaming import Streams
from fastoci.transfer.workers import WorkerPool

if TYPE_CHECKING:
    from fastoci.jobs.containerd import Into
    from fastoci.jobs.conversion import Converters
    from fastoci.jobs.pack import Packing
    from fastoci.jobs.prefetch import Prefetch
    from fastoci.jobs.prefetch_planning import Open
    from fastoci.jobs.prefetch_running import Fetcher
    from fastoci.jobs.publish import Publishing
    from fastoci.jobs.verify import Verifying
    from fastoci.registry.client import Registry
    from fastoci.registry.options import RegistryOptions
    from fastoci.registry.push.repository import PushRepository
    from fastoci.transfer.packer import Packer
    from fastoci.transfer.unpacker import Unpacker
    from fastoci.trust.policy import TrustPolicy

_LOG: Final = logging.getLogger(__name__)


class EngineParts:
    """The parts of one open engine, on the loop that opened it.

    Raises:
        RuntimeError: not even one thread can be started.
    """

    def __init__(
        self,
        store: Store,
        workers: WorkerPool,
        limits: Limits,
        observer: Observer,
        options: RegistryOptions | None,
        trust: TrustPolicy | None,
    ) -> None:
        buffers = Buffers(_core.Pool(limits.memory), ahead=limits.ahead)
        scheduler = Scheduler(workers, buffers, limits, observer)
        reader = LayerReader(workers, buffers, limits)
        streams = Streams(workers, buffers, limits, observer)
        stored = Stored(store, scheduler, workers, buffers, observer)
        path, self.running = Path(store.path), RunningJobs()
        kept = str(path / "layers")
        layering = Layering(
            store, lambda: store.layers, stored, workers, reader, lambda: self._unpacker, limits, observer, kept
        )
        self.loop = asyncio.get_running_loop()
        self.store = store
        self.context = PullContext(
            store,
            scheduler,
            stored,
            streams,
            layering,
            limits,
            observer,
            path,
            self.running,
            Trust(trust, buffers),
        )
        self.updates = IndexUpdates(store)
        self._workers = workers
        self.buffers = buffers
        self._options = options
        self._registries = AsyncExitStack()
        self._registry: Registry | None = None
        self._opening = asyncio.Lock()  # one client for all pulls: it knows which hosts are dead

    @classmethod
    async def open(
        cls,
        path: Path,
        additional: Sequence[Path],
        *,
        limits: Limits,
        observer: Observer,
        options: RegistryOptions | None,
        trust: TrustPolicy | None = None,
    ) -> EngineParts:
        """Open the store, and start what works on it.

        Raises:
            StoreError: the store cannot be opened.
        """
        if trust is not None:
            from fastoci.trust.policy import TrustPolicy

            expect(TrustPolicy, trust, "trust", hint="read_trust_policy makes one of a file")
        store = await Threads.acquire(partial(Store.at, path, additional, limits=limits), Store.close)
        for refused in store.left_out:
            observer(Warned("", str(refused)))
        try:
            parts = cls(store, WorkerPool(limits.workers), limits, observer, options, trust)
        except BaseException:
            store.close()
            raise
        _LOG.debug("store %s, additional %s, %s", path, list(additional), limits)
        return parts

    @cached_property
    def _unpacker(self) -> Unpacker:
        from fastoci.transfer.unpacker import Unpacker

        context = self.context
        return Unpacker(self._workers, context.layering.reader, context.limits, context.observer)

    @cached_property
    def verifying(self) -> Verifying:
        """What hashes again; most programs do not need it."""
        from fastoci.jobs.verify import Verifying

        limits, observer = self.context.limits, self.context.observer
        return Verifying(self.store, self._workers, self.buffers, threads=limits.workers, observer=observer)

    def free(self) -> Space:
        """What the store's file system has free.

        Raises:
            StoreError: the disk refused to tell.
        """
        return space(self.store.paths.top)

    def prefetch(self, source: Open | None = None) -> Prefetch:
        """A job of many images; most programs do not need what does it.

        Args:
            source: opens the repository of a reference; by default at its registry.
        """
        from fastoci.jobs.prefetch import Prefetch
        from fastoci.store.lists import Lists

        return Prefetch(self.context, source or self.repository, self.tags, self.free, Lists(self.store))

    def destination(self, into: Into | IntoPodman | None) -> AbstractAsyncContextManager[Destination]:
        """Where the images of one job go beside the store."""
        if into is None:
            return nullcontext(NOWHERE)
        if isinstance(into, IntoPodman):
            from fastoci.jobs.podman import Showing

            return nullcontext(Showing(self.context.layering))
        from fastoci.jobs.containerd import Into, recording

        return recording(expect(Into, into, "into"), self.context, self.store.borrowing)

    async def drop_blobs(self, layers: Layers, names: Sequence[str]) -> None:
        """Delete the blobs of layers that images which were brought are to do without.

        Raises:
            StoreError: a reference or a document is broken, or the disk refused.
        """
        if layers.only and names:
            from fastoci.store.unpacked_only import drop_blobs

            await drop_blobs(self.store, names)

    def packer(self) -> Packer:
        """What compresses on all cores; most programs do not need it."""
        from fastoci.transfer.packer import Packer

        return Packer(self._workers, self.buffers, self.context.layering.reader, self.context.limits)

    def packing(self) -> Packing:
        """What makes images out of directories."""
        from fastoci.jobs.pack import Packing

        return Packing(self.context, self.packer(), self.store)

    def converters(self) -> Converters:
        """What makes other images of images that are copied; most copies do not need it."""
        from fastoci.jobs.conversion import Converters, Tools
        from fastoci.transfer.recompress import Recompressor

        packer = self.packer()
        recompressor = Recompressor(self._workers, self.buffers, self.context.layering.reader, packer)
        return Converters(self.context, Tools(recompressor, packer, self.store.spool))

    def publishing(self) -> Publishing:
        """What publishes images with merged metadata."""
        from fastoci.jobs.publish import Publishing
        from fastoci.jobs.recompress import Recompressing

        return Publishing(self.context, Recompressing(self.context, self.packer(), self.store.spool))

    def fetching(self, processes: int) -> AbstractAsyncContextManager[Fetcher]:
        """Who fetches the blobs of one job: this process, or several others."""
        at_least(1, processes, "workers")
        if processes == 1:
            return nullcontext(self.context.scheduler)
        from fastoci.jobs.fetch_processes import FetchProcesses, Setup

        level = logging.getLogger("fastoci").getEffectiveLevel()
        additional = tuple(Path(paths.root) for paths in self.store.additional)
        setup = Setup(self.context.store_path, additional, self.context.limits, self._options, level)
        return FetchProcesses(setup, processes, self.context.observer)

    async def repository(self, reference: Reference, image: str = "") -> Repository:
        """The repository of a reference, at its registry; ``image`` is what events call it."""
        return (await self.registry()).repository(reference, image=image or str(reference))

    def destination_at(
        self, client: Registry, reference: Reference, *, image: str = "", mount_from: str = "", deleting: bool = False
    ) -> PushRepository:
        """The repository of a reference to write to, at its registry.

        Args:
            image: what events call what comes.
            mount_from: the path of another repository of the registry that may have blobs.
            deleting: a token is to allow that, too.
        """
        return client.destination(
            reference,
            self.context.streams,
            image=image or str(reference),
            notes=self.store.upload_notes,
            mount_from=mount_from,
            deleting=deleting,
        )

    @property
    def registry_options(self) -> RegistryOptions:
        """How registries are asked.

        Raises:
            TypeError: that was no ``RegistryOptions``.
        """
        from fastoci.registry.options import RegistryOptions

        return expect(RegistryOptions, RegistryOptions() if self._options is None else self._options, "registry")

    async def tags(self, repository: str) -> tuple[str, ...]:
        """The tags of a repository, in its registry's order. Raises: as ``Engine.tags``."""
        return await (await self.registry()).repository(Reference.parse(repository)).tags()

    async def registry(self) -> Registry:
        """The client, on the first pull: aiohttp costs a quarter of a second to import."""
        async with self._opening:
            if self._registry is None:
                from fastoci.registry.opening import open_registry

                client = await open_registry(self.registry_options, self.context.limits, self.context.observer)
                self._registry = await self._registries.enter_async_context(client)
        return self._registry

    async def close(self) -> None:
        """End all jobs, then what they work with.

        Raises:
            asyncio.CancelledError: this task was cancelled meanwhile; all is closed.
        """
        try:
            cancelled = await self.running.end()
            await self.context.scheduler.close()
            await self._registries.aclose()
        finally:
            self._workers.close()
            self.store.close()
        if cancelled:
            raise asyncio.CancelledError
