"""The unpacked layers of a store: which are there, how they are opened, and how new ones are begun.

Knows nothing of images, references or the network. Spec: docs/store-format.md 9.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from fastoci import files
from fastoci.aio import when_free
from fastoci.directory import Directory
from fastoci.errors import BlobNotFoundError, StoreBusyError
from fastoci.image.digest import Digest
from fastoci.image.layer_file import Form, LayerDirectory, LayerInfo, MergedInfo
from fastoci.limits import Level
from fastoci.store.blobs import Blobs
from fastoci.store.ingest.ingest import Held, hold
from fastoci.store.ingest.waiting import Sought
from fastoci.store.layers import places, records, verity
from fastoci.store.layers.ingest import LayerFile, LayerTree, MergedFile, write

if TYPE_CHECKING:
    from fastoci.layer_interfaces import ImageStore

_BUSY_S: Final = 60.0  # for somebody who makes the same file

Protect = Callable[[Iterable[Digest]], AbstractAsyncContextManager[None]]
Making = TypeVar("Making", LayerFile, MergedFile, LayerTree)


class Layers:
    """``LayerStore`` on a directory, for one event loop. What finds and opens may be called from any thread.

    Args:
        protect: makes a lease of digests.
    """

    def __init__(self, blobs: Blobs, protect: Protect, boot_id: str, level: Level) -> None:
        self._blobs = blobs
        self._paths = blobs.paths
        self._threads = blobs.threads
        self._protect = protect
        self._boot_id = boot_id
        self._syncs_all = level == "commit"

    @asynccontextmanager
    async def keep(self, digests: Collection[Digest]) -> AsyncIterator[None]:
        """Keep layers from gc: ``LayerStore.keep``."""
        await self._threads.run(self._blobs.probe)
        async with self._protect(digests):
            yield

    def find(self, diff_id: Digest) -> LayerInfo | None:
        """The layer file of a diff_id: ``LayerStore.find``."""
        for standalone in (True, False):
            with files.translated("stat", f"{self._paths.root}/layers"), suppress(FileNotFoundError):
                with places.at(self._paths, diff_id, standalone=standalone) as directory:
                    found = records.layer(directory, diff_id, self._boot_id)
                if found is not None:
                    return found
        return None

    def open(self, diff_id: Digest) -> int:
        """A read-only descriptor of a layer file: ``LayerStore.open``."""
        info = self._demand(diff_id)
        with (
            files.translated("open", info.path),
            places.at(self._paths, diff_id, standalone=info.standalone) as directory,
        ):
            fd = self._open(directory, info.path, info.size)
        if fd is None:
            raise self._absent(diff_id)
        return fd

    def open_merged(self, manifest: Digest) -> int:
        """A read-only descriptor of merged metadata: ``LayerStore.open_merged``."""
        info = self.find_merged(manifest)
        path, fd = f"{self._paths.root}/{places.IMAGES}/{manifest.hex}.erofs", None
        if info is not None:
            with files.translated("open", path):
                fd = self._open(self._paths.directory(places.IMAGES), path, info.size)
        if fd is None:
            raise BlobNotFoundError(f"the store has no merged metadata of {manifest}", path=path, subject=str(manifest))
        return fd

    @staticmethod
    def _open(directory: Directory, path: str, size: int) -> int | None:
        """Open a file of a known size; None when it is not there any more."""
        try:
            fd = directory.open(os.path.basename(path), files.READ)
        except FileNotFoundError:
            return None
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_size == size:
            return fd
        files.close(fd)
        return None

    def path(self, diff_id: Digest) -> Path:
        """Where a layer file is: ``LayerStore.path``."""
        return Path(self._demand(diff_id).path)

    async def begin(self, diff_id: Digest, *, form: Form | None = None) -> LayerFile | None:
        """Take hold of a diff_id's layer file: ``LayerStore.begin``."""

        def make(held: Held) -> LayerFile:
            return LayerFile(
                self._paths,
                diff_id,
                held=held,
                threads=self._threads,
                boot_id=self._boot_id,
                sync=self._syncs_all,
            )

        return await self._begin(self._sought_layer(diff_id, form), make)

    async def wait(self, diff_id: Digest, progressed: Callable[[int], None], *, form: Form | None = None) -> bool:
        """Return when nobody else holds the diff_id's layer file: ``LayerStore.wait``."""
        return await self._blobs.waiting.wait(self._sought_layer(diff_id, form), progressed)

    async def enforce(self, diff_id: Digest) -> bool:
        """Have the kernel hold a layer file against its digest: ``LayerStore.enforce``."""

        def work(held: Held) -> bool:
            info = self._demand(diff_id)
            with places.at(self._paths, diff_id, standalone=info.standalone) as directory:
                return verity.enforce(held, directory, diff_id.hex, info)

        return await self._changed(self._sought_layer(diff_id, None), work, "enforce fs-verity below")

    async def enforce_merged(self, manifest: Digest) -> bool:
        """Have the kernel hold merged metadata against its digest: ``LayerStore.enforce_merged``."""

        def work(held: Held) -> bool:
            info = self.find_merged(manifest)
            if info is None:
                path = f"{self._paths.root}/{places.IMAGES}/{manifest.hex}.erofs"
                raise BlobNotFoundError(f"the store has no merged metadata of {manifest}", path=path)
            return verity.enforce(held, self._paths.directory(places.IMAGES), manifest.hex, info)

        return await self._changed(self._sought_merged(manifest), work, "enforce fs-verity below")

    async def discard(self, diff_id: Digest) -> None:
        """Delete a layer file that was found bad. Whoever has it open or mounted goes on."""

        def work(held: Held) -> bool:
            for standalone in (True, False):
                with suppress(FileNotFoundError), places.at(self._paths, diff_id, standalone=standalone) as directory:
                    places.delete_file(directory, diff_id.hex)
            return True

        await self._changed(self._sought_layer(diff_id, None), work, "delete a layer file below")

    async def discard_merged(self, manifest: Digest) -> None:
        """Delete merged metadata that was found bad."""

        def work(held: Held) -> bool:
            with suppress(FileNotFoundError):
                places.delete_file(self._paths.directory(places.IMAGES), manifest.hex)
            return True

        await self._changed(self._sought_merged(manifest), work, "delete merged metadata below")

    async def _changed(self, sought: Sought, work: Callable[[Held], bool], action: str) -> bool:
        """Do something to what is there, under the lock of who would make it."""

        def change() -> bool:
            path = f"{self._paths.root}/ingest/{sought.name}"
            held = hold(self._paths, sought.name)
            if held is None:
                raise StoreBusyError(f"another process {sought.what}", path=path)
            try:
                with files.translated(action, path):
                    return work(held)
            finally:
                places.clear(held)
                held.close()

        return await when_free(partial(self._threads.run, change), within_s=_BUSY_S)

    async def sync(self, diff_ids: Collection[Digest]) -> None:
        """Make layer files durable that may be lost in a power cut, as far as they are there.

        Raises:
            StoreError: the disk refused; what it lost is absent from now on.
        """
        await self._threads.run(lambda: self._sync_all(diff_ids))

    def _sync_all(self, diff_ids: Collection[Digest]) -> None:
        for diff_id in diff_ids:
            info = self.find(diff_id)
            held = None if info is None or info.synced else hold(self._paths, f"layer-{diff_id.hex}")
            if held is not None:
                with files.translated("sync", f"{self._paths.root}/layers"):
                    try:
                        self._sync(diff_id, held)
                        places.clear(held)
                    finally:
                        held.close()

    def _sync(self, diff_id: Digest, held: Held) -> None:
        """Under its lock: sync the file, then say so in its record."""
        info = self.find(diff_id)
        if info is None or info.synced:
            return
        places.empty(held)
        with places.at(self._paths, diff_id, standalone=info.standalone) as directory:
            fd = self.open(diff_id)
            try:
                os.fsync(fd)
            except OSError:  # the kernel tells of a lost page once
                places.delete_file(directory, diff_id.hex)
                raise
            finally:
                files.close(fd)
            record = records.encode(msgspec.structs.replace(info, synced=True))
            write(held.directory, "record", record, sync=True)
            held.directory.rename("record", directory, f"{diff_id.hex}.json")
            directory.sync()

    def find_merged(self, manifest: Digest) -> MergedInfo | None:
        """The merged metadata of an image: ``LayerStore.find_merged``."""
        with files.translated("stat", f"{self._paths.root}/images"), suppress(FileNotFoundError):
            found = records.merged(self._paths.directory(places.IMAGES), manifest, self._boot_id)
            if found is not None and all(self._is_device(device, found.layout) for device in found.devices):
                return found
        return None

    async def begin_merged(self, manifest: Digest) -> MergedFile | None:
        """Take hold of an image's merged metadata: ``LayerStore.begin_merged``."""

        def make(held: Held) -> MergedFile:
            return MergedFile(self._paths, manifest, held=held, threads=self._threads, boot_id=self._boot_id)

        return await self._begin(self._sought_merged(manifest), make)

    async def wait_merged(self, manifest: Digest) -> bool:
        """Return when nobody else holds an image's merged metadata: ``LayerStore.wait_merged``."""
        return await self._blobs.waiting.wait(self._sought_merged(manifest), lambda size: None)

    def make_tree_place(self, manifest: Digest) -> Path:
        """Where the tree of an image belongs: ``LayerStore.make_tree_place``."""
        with files.translated("make", f"{self._paths.root}/{places.ROOTS}"):
            self._paths.make(places.IMAGES, places.OPEN)
            return Path(self._paths.make(places.ROOTS, places.PRIVATE).at(manifest.hex))

    def tree_size(self, manifest: Digest) -> int | None:
        """The bytes of an image's tree: ``LayerStore.tree_size``."""
        with files.translated("stat", f"{self._paths.root}/{places.ROOTS}"), suppress(FileNotFoundError):
            return records.root_size(self._paths.directory(places.ROOTS), manifest)
        return None

    async def record_tree(self, manifest: Digest, size: int) -> None:
        """Record the bytes of an image's tree: ``LayerStore.record_tree``."""

        def work(held: Held) -> bool:
            write(held.directory, "record", records.encode_root(manifest, size), sync=False)
            held.directory.rename("record", self._paths.directory(places.ROOTS), f"{manifest.hex}.json")
            return True

        sought = Sought(f"rootfs-{manifest.hex}", f"deletes the tree of {manifest}", lambda: False)
        await self._changed(sought, work, "record a tree by")

    def find_directory(self, chain_id: Digest, *, owners: bool) -> LayerDirectory | None:
        """The layer directory of layers: ``LayerStore.find_directory``."""
        looking = files.translated("stat", f"{self._paths.root}/{places.TREES}")
        with (
            looking,
            suppress(FileNotFoundError),
            self._paths.enter(self._paths.directory(places.TREES), chain_id.hex) as directory,
        ):
            found = records.tree(directory, chain_id, self._boot_id)
            return found if found is not None and found.owners == owners else None
        return None

    async def begin_directory(self, chain_id: Digest, *, owners: bool) -> LayerTree | None:
        """Take hold of the layer directory of layers: ``LayerStore.begin_directory``."""

        def make(held: Held) -> LayerTree:
            return LayerTree(self._paths, chain_id, held=held, threads=self._threads, boot_id=self._boot_id)

        return await self._begin(self._sought_directory(chain_id, owners), make)

    async def wait_directory(self, chain_id: Digest, *, owners: bool) -> bool:
        """Return when nobody else holds the layer directory of layers: ``LayerStore.wait_directory``."""
        return await self._blobs.waiting.wait(self._sought_directory(chain_id, owners), lambda size: None)

    async def sync_directories(self, chain_ids: Collection[Digest]) -> None:
        """Make layer directories durable: ``LayerStore.sync_directories``."""
        from fastoci.store.layers import durability  # which most jobs do not need

        work = partial(durability.sync_directories, self._paths, chain_ids, self._boot_id)
        await when_free(partial(self._threads.run, work), within_s=_BUSY_S)

    @cached_property
    def image_store(self) -> ImageStore:
        """What is shown to podman and CRI-O: ``LayerStore.image_store``."""
        from fastoci.store.layers.image_store import ImageStore  # which most programs do not need

        return ImageStore(self._paths)

    async def _begin(self, sought: Sought, make: Callable[[Held], Making]) -> Making | None:
        started, cancelled = await self._threads.run_to_end(lambda: self._start(sought, make))
        if cancelled:
            if started is not None:
                await started.abort()
            raise asyncio.CancelledError
        return started

    def _start(self, sought: Sought, make: Callable[[Held], Making]) -> Making | None:
        self._blobs.probe()
        if sought.is_there():
            return None
        path = f"{self._paths.root}/ingest/{sought.name}"
        held = hold(self._paths, sought.name)
        if held is None:
            raise StoreBusyError(f"another process {sought.what}", path=path)
        try:
            with files.translated("begin", path):
                if not sought.is_there():  # the last holder may have committed it
                    places.empty(held)
                    return make(held)
                places.clear(held)
        except BaseException:
            held.close()
            raise
        held.close()
        return None

    def _sought_layer(self, diff_id: Digest, form: Form | None) -> Sought:
        return Sought(f"layer-{diff_id.hex}", f"unpacks {diff_id}", partial(self._has, diff_id, form))

    def _sought_merged(self, manifest: Digest) -> Sought:
        def is_there() -> bool:
            return self.find_merged(manifest) is not None

        return Sought(f"image-{manifest.hex}", f"merges the layers of {manifest}", is_there)

    def _sought_directory(self, chain_id: Digest, owners: bool) -> Sought:
        def is_there() -> bool:
            return self.find_directory(chain_id, owners=owners) is not None

        return Sought(f"overlay-{chain_id.hex}", f"unpacks {chain_id}", is_there)

    def _has(self, diff_id: Digest, form: Form | None) -> bool:
        found = self.find(diff_id)
        return found is not None and form in (None, found.form)

    def _is_device(self, diff_id: Digest, layout: int) -> bool:
        """Whether the layer file is as merged metadata takes it for: with its tar, and laid out alike."""
        found = self.find(diff_id)
        return found is not None and (found.form, found.layout) == ("tar", layout)

    def _demand(self, diff_id: Digest) -> LayerInfo:
        found = self.find(diff_id)
        if found is None:
            raise self._absent(diff_id)
        return found

    def _absent(self, diff_id: Digest) -> BlobNotFoundError:
        path = f"{self._paths.root}/layers/{diff_id.algorithm}/{diff_id.hex[:2]}/{diff_id.hex}.erofs"
        return BlobNotFoundError(f"the store has no layer file of {diff_id}", path=path, subject=str(diff_id))
