"""The unpacked layers of an image in the store: which are there, how they are made, and what is read from them.

Spec: docs/store-format.md 9.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import (
    BlobNotFoundError,
    FastociError,
    FormatError,
    IntegrityError,
    RootfsOccupiedError,
    StoreError,
    UnpackError,
    UnsupportedError,
)
from fastoci.events import Observer, Warned
from fastoci.image import mediatype
from fastoci.image.config import ImageConfig, chain_ids
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.interfaces import BlobStore
from fastoci.jobs.plan import LayerForm, Resolved, estimate_unpacked
from fastoci.jobs.resolve import read_config
from fastoci.jobs.stored import FileStamp, Mending, Stored, stamp_of
from fastoci.limits import Limits
from fastoci.stream.inflate import HEAD, sniff
from fastoci.stream.verify import Verifier
from fastoci.transfer.layer_reading import LayerReader, OpenLayer
from fastoci.transfer.tee import SpoiledError, Tee
from fastoci.transfer.workers import WorkerPool
from fastoci.unpack.marker import Contents

if TYPE_CHECKING:
    from fastoci.image.layer_file import LayerInfo
    from fastoci.layer_interfaces import LayerStore
    from fastoci.transfer.unpacker import Unpacker

Pairs = Sequence[tuple[Descriptor, Digest]]  # layers with their diff_ids, the lowest first
NO_TEES: Final[Mapping[Digest, Tee]] = {}
Kept = Literal["erofs", "erofs-4k", "overlay", "rootfs"]  # what the store keeps
Ready = Callable[[Descriptor], Awaitable[None]]  # returns when a blob is in the store, or raises why it will not be


def layers_of(manifest: Manifest, config: ImageConfig | None) -> Pairs:
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


async def _at_once(blob: Descriptor) -> None:
    """The blob is there already."""


class Arriving(msgspec.Struct, frozen=True):
    """How the layers of one image come: who mends them, when each is in the store, tees on those under way."""

    mending: Mending
    ready: Ready = _at_once
    tees: Mapping[Digest, Tee] = NO_TEES


class Hashed:
    """The sink of a layer that is hashed only."""

    name = ""

    def feed(self, buffer: Buffer) -> None:
        """It was hashed."""

    def finish(self) -> None:
        """All of it was hashed."""

    def stop(self) -> None:
        """Nothing here takes long."""

    def abort(self) -> None:
        """Nothing is held."""


def _lie_of(blob: Descriptor, head: bytes) -> str:
    with suppress(UnsupportedError):
        return mediatype.lie_of(blob.media_type, sniff(head))
    return ""


class Layering(msgspec.Struct, frozen=True):
    """What all images of an engine share for their layers: where they are kept, and who makes something out of them."""

    store: BlobStore
    open_layers: Callable[[], LayerStore]  # which most pulls do not need
    stored: Stored
    workers: WorkerPool
    reader: LayerReader
    make_unpacker: Callable[[], Unpacker]  # once; most pulls do not need it, either
    limits: Limits
    observer: Observer
    root: str  # of unpacked layers, for events

    @property
    def layers(self) -> LayerStore:
        """Where unpacked layers are kept."""
        return self.open_layers()

    @property
    def unpacker(self) -> Unpacker:
        """What makes trees of layers."""
        return self.make_unpacker()

    async def spared(self, images: Sequence[Resolved]) -> set[Digest]:
        """The blobs of layers that images can do without, because their layer files are there."""
        spared: set[Digest] = set()
        for image in images:
            spared |= await self._made(image, self._has_tar)
        return spared

    async def estimate(self, images: Sequence[Resolved], form: LayerForm) -> int:
        """Bytes of disk that is taken until images have their layers in a form, about."""
        is_made = {"erofs": self._has_tar, "erofs-4k": self._has_blocks, "overlay": self._has_directory}.get(form)
        absent: set[Descriptor] = set()
        for image in images:
            if form == "rootfs" and await self._has_root(image.descriptor.digest):
                continue
            made = set() if is_made is None else await self._made(image, is_made)
            absent |= {layer for layer in image.manifest.layers if layer.digest not in made}
        return estimate_unpacked(list(absent))

    async def _made(self, image: Resolved, is_made: Callable[[Digest], bool]) -> set[Digest]:
        """The blobs of an image's layers that were made into something, as far as the image is known."""
        with suppress(FormatError, UnsupportedError, IntegrityError, BlobNotFoundError):
            config = await read_config(self.store, image.manifest, self.limits)
            pairs = layers_of(image.manifest, config)
            return await self.workers.run(lambda: {blob.digest for blob, diff_id in pairs if is_made(diff_id)})
        return set()

    def _has_tar(self, diff_id: Digest) -> bool:
        info = self._find(diff_id)
        return info is not None and info.tar_part is not None

    def _has_blocks(self, diff_id: Digest) -> bool:
        info = self._find(diff_id)
        return info is not None and info.tar_part is None

    def _has_directory(self, diff_id: Digest) -> bool:
        return self.layers.find_directory(diff_id, owners=os.geteuid() == 0) is not None

    async def _has_root(self, manifest: Digest) -> bool:
        """Whether the store has the finished tree of an image, and knows how large it is."""
        if await self.workers.run(partial(self.layers.tree_size, manifest)) is None:
            return False
        root = await self.workers.run(partial(self.layers.make_tree_place, manifest))
        with suppress(RootfsOccupiedError):
            return await self.unpacker.finds(root, Contents(manifest, owners=os.geteuid() == 0))
        return False

    async def tree(self, pairs: Pairs, root: Path, contents: Contents, arriving: Arriving) -> int:
        """Make a rootfs out of layers; the bytes of its files.

        When one of them turns out to be other bytes than its digest says, as it came or in the store, it is fetched
        again, and the tree is made anew.

        Args:
            arriving: with a tee on the first layer, at most.
        Raises:
            UnpackError, FormatError, IntegrityError, StoreError: nothing is left under ``root``.
        """

        size = 0

        async def work(tees: Mapping[Digest, Tee]) -> None:
            nonlocal size
            size = await self.unpacker.rootfs(
                root,
                contents,
                pairs,
                partial(self.open, mending=arriving.mending),
                image=arriving.mending.image,
                ready=arriving.ready,
                tee=next(iter(tees.values()), None),
            )

        await self.until_right(work, pairs, arriving)
        return size

    async def make(
        self, pairs: Pairs, manifest: Descriptor, form: Kept, arriving: Arriving, *, verity: bool = False
    ) -> None:
        """Have the layers of an image in the store, unpacked. What is there already is not made again.

        The caller keeps them from gc.

        Args:
            verity: the kernel holds layer files against their digests, where it can.
        Raises:
            UnpackError, FormatError, IntegrityError, StoreError: the layers that are whole stay.
        """
        if form == "rootfs":
            await self._keep_tree(pairs, manifest, arriving)
            return
        from fastoci.transfer.layer_directories import LayerDirectories  # which most pulls do not need
        from fastoci.transfer.layer_files import BlockLayerFiles, LayerFiles
        from fastoci.transfer.layer_making import LayerJob

        makers = {"erofs": LayerFiles, "erofs-4k": BlockLayerFiles, "overlay": LayerDirectories}
        opener = partial(self.open, forget=form != "overlay", mending=arriving.mending)
        maker = makers[form](self.layers, opener, self.workers, self.reader, self.limits, self.observer)

        async def work(tees: Mapping[Digest, Tee]) -> None:
            image = arriving.mending.image
            job = LayerJob(image, self.root, manifest.digest, pairs, arriving.ready, tees, verity=verity)
            await maker.make(job)

        await self.until_right(work, pairs, arriving)

    async def notice_lie(self, blob: Descriptor, head: bytes, image: str) -> None:
        """Say so when a layer that came is not what its type says.

        Args:
            head: its first bytes; none when they are to be read.
        """
        if blob.media_type not in mediatype.COMPRESSIONS:
            return
        text = _lie_of(blob, head) if head else await self.workers.run(partial(self._lie, blob))
        if text:
            self.observer(Warned(image, f"layer {blob.digest} {text}"))

    def _lie(self, blob: Descriptor) -> str:
        with suppress(BlobNotFoundError, OSError):
            fd = self.store.open(blob)
            try:
                return _lie_of(blob, os.pread(fd, HEAD, 0))
            finally:
                files.close(fd)
        return ""

    def keep(self, pairs: Pairs, form: str) -> AbstractAsyncContextManager[None]:
        """Keep what is made of layers from gc; of layer directories perhaps some are merged."""
        diff_ids = [diff_id for _, diff_id in pairs]
        return self.layers.keep([*diff_ids, *chain_ids(diff_ids)] if form == "overlay" else diff_ids)

    async def _keep_tree(self, pairs: Pairs, manifest: Descriptor, arriving: Arriving) -> None:
        """Have one tree of the image in the store."""
        root = await self.workers.run(partial(self.layers.make_tree_place, manifest.digest))
        contents = Contents(manifest.digest, owners=os.geteuid() == 0)
        if not await self.unpacker.holds(root, contents, image=arriving.mending.image):
            size = await self.tree(pairs, root, contents, arriving)
        elif await self.workers.run(partial(self.layers.tree_size, manifest.digest)) is None:
            size = estimate_unpacked([blob for blob, _ in pairs])
        else:
            return
        await self.layers.record_tree(manifest.digest, size)

    def open(self, blob: Descriptor, diff_id: Digest, *, mending: Mending, forget: bool = False) -> OpenLayer:
        """On a thread: a layer to read, from the tar in its layer file when that is there, else from its blob.

        Args:
            mending: of the job that reads it: takes which file it is.
            forget: what is made of it is not read soon, and it is not either.
        Raises:
            BlobNotFoundError: neither is there.
        """
        if (layer := self.open_file(blob, diff_id, mending=mending)) is not None:
            return layer
        return self.open_blob(blob, mending=mending, forget=forget)

    def open_blob(self, blob: Descriptor, *, mending: Mending, forget: bool = False) -> OpenLayer:
        """``open`` of the blob alone."""
        fd = self.store.open(blob)
        mending.opened.setdefault(blob.digest, stamp_of(fd))
        return OpenLayer(fd, forget=forget)

    def open_file(self, blob: Descriptor, diff_id: Digest, *, mending: Mending) -> OpenLayer | None:
        """``open`` of the tar in a layer file; None when there is none."""
        with suppress(BlobNotFoundError):
            info = self._find(diff_id)
            if info is not None and info.tar_part is not None:
                begin, end = info.tar_part
                fd = self.layers.open(diff_id)
                mending.opened_layers.setdefault(diff_id, stamp_of(fd))
                return OpenLayer(fd, begin, end - begin, blob.size)
        return None

    async def until_right(
        self, work: Callable[[Mapping[Digest, Tee]], Awaitable[None]], pairs: Pairs, arriving: Arriving
    ) -> None:
        """Do what uses layers; when one is other bytes than its digest says, have it mended, and do it anew.

        Raises:
            FastociError: of ``work``, when the layers are what their names say; of ``Stored.mend``.
        """
        tees, mending = arriving.tees, arriving.mending
        blobs = list(dict.fromkeys(blob for blob, _ in pairs))
        discarded: set[Digest] = set()
        while True:
            reason: FastociError | None = None
            mending.begin()
            try:
                return await work(tees)
            except SpoiledError:
                text = "a layer came with wrong bytes, and then with the right ones: unpacking anew"
                self.observer(Warned(mending.image, text))
            except (FormatError, UnsupportedError, UnpackError, IntegrityError, BlobNotFoundError) as error:
                reason = error
            for tee in tees.values():
                self.reader.close_tee(tee)  # what still comes does not wait for a reader
            tees = NO_TEES
            if reason is not None and not await self._discard_damaged(pairs, discarded, reason, mending):
                await self.stored.mend(blobs, reason, mending)

    async def _discard_damaged(
        self, pairs: Pairs, discarded: set[Digest], reason: FastociError, mending: Mending
    ) -> bool:
        """Delete the layer files whose tar is not what their names say; whether there were any, or another process
        did so with what was read.

        Args:
            discarded: those of this job before: a disk that damages all that it keeps ends it.
            reason: what was wrong.
        Raises:
            FastociError: ``reason``, when one of them is damaged again.
        """
        found = False
        now: dict[Digest, FileStamp | None] = {}
        for diff_id in dict.fromkeys(diff_id for _, diff_id in pairs):
            info = await self.workers.run(partial(self._find, diff_id))
            now[diff_id] = None
            if info is None or info.tar_part is None or await self._is_right(diff_id, info.tar_part, now):
                continue
            if diff_id in discarded:
                raise reason
            discarded.add(diff_id)
            self.observer(Warned(mending.image, f"the layer file of {diff_id} is damaged, and is deleted"))
            await self.layers.discard(diff_id)
            found = True
        return found or mending.count_replaced(mending.opened_layers, now)

    def _find(self, diff_id: Digest) -> LayerInfo | None:
        return self.layers.find(diff_id) if os.path.isdir(self.root) else None

    async def _is_right(
        self, diff_id: Digest, tar_part: tuple[int, int], hashed: dict[Digest, FileStamp | None]
    ) -> bool:
        """Whether the tar in a layer file has the diff_id; ``hashed`` takes which file it is."""
        begin, end = tar_part

        def open_tar() -> OpenLayer:
            fd = self.layers.open(diff_id)
            hashed[diff_id] = stamp_of(fd)
            return OpenLayer(fd, begin, end - begin)

        try:
            await self.reader.from_file(open_tar, Hashed(), Verifier(diff_id, None), lambda offset, size: None)
        except (IntegrityError, StoreError):
            return False
        return True


def overlay_options(layering: Layering, pairs: Pairs) -> tuple[str, ...] | None:
    """On a thread: how overlayfs shows an image out of its layer directories; None when not all are there."""
    from fastoci.image.overlay_options import (  # which most programs do not need
        directories_of,
        find_stack,
        mount_options,
    )

    find = partial(layering.layers.find_directory, owners=os.geteuid() == 0)
    stack = find_stack([diff_id for _, diff_id in pairs], find)
    if stack is None:
        return None
    return tuple(mount_options(directories_of(stack), user_xattrs=any(layer.user_xattrs for layer in stack)))
