"""Images that podman and CRI-O find in the store itself: it is an additional image store of containers/storage.

No file is copied, and nothing is unpacked twice: the layer directories are what they mount.
Spec: docs/podman.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Final

import msgspec

from fastoci import files
from fastoci.aio import all_or_first
from fastoci.errors import BlobNotFoundError, FormatError, StoreBusyError, UnsupportedError
from fastoci.image.config import ImageConfig
from fastoci.image.containers_storage import (
    EMPTY_TAR,
    StorageLayer,
    documents_of,
    image_record,
    names_of,
    storage_layers,
)
from fastoci.image.descriptor import Descriptor
from fastoci.image.layer_file import LayerDirectory
from fastoci.image.overlay_options import find_stack
from fastoci.image.reference import Reference
from fastoci.jobs.destination import Keeping
from fastoci.jobs.layers import Arriving, Layering, Pairs, layers_of
from fastoci.jobs.plan import Resolved
from fastoci.jobs.resolve import read_config, read_document
from fastoci.jobs.stored import Mending
from fastoci.layer_interfaces import ImageStore, LayerStore, Split
from fastoci.stream.verify import Verifier
from fastoci.transfer.layer_reading import OpenLayer
from fastoci.unpack.tar_split import TarSplitWriter

_EMPTY: Final = bytes(1024)  # the tar of ``EMPTY_TAR``


class PodmanImage(msgspec.Struct, frozen=True):
    """An image that podman and CRI-O find in the store. ``name`` is ``id`` where it lost its name to another image.

    ``created`` is as the image says, RFC 3339, or empty.
    """

    name: str
    id: str
    digest: str
    created: str


def shown_images(store: ImageStore) -> tuple[PodmanImage, ...]:
    """On a thread: all of them, by name.

    Raises:
        StoreError, FormatError: the records cannot be read.
    """
    found = [
        PodmanImage(name, image["id"], image.get("digest", ""), image.get("created", ""))
        for name, image in names_of(store.images())
    ]
    return tuple(sorted(found, key=lambda image: image.name))


def hide(store: ImageStore, asked: str) -> None:
    """On a thread: let a name go, and the image with its last name.

    Args:
        asked: a reference, or the id of an image.
    Raises:
        BlobNotFoundError: there is none.
        StoreBusyError, StoreError: as ``ImageStore.withdraw``.
    """
    names = [asked]
    with suppress(FormatError):
        names.append(str(Reference.parse(asked)))
    if not any(store.withdraw(name) for name in dict.fromkeys(names)):
        raise BlobNotFoundError(f"{asked} is not shown to podman", path=store.path, subject=asked)


class Showing:
    """``Destination`` of a job whose images are shown to podman and CRI-O, from layers that the store has."""

    tees = 0
    unpacks_at = None  # but in the store, of which it is asked

    def __init__(self, layering: Layering) -> None:
        self._layering = layering

    async def unpack(self, resolved: Resolved, config: ImageConfig, arriving: Arriving) -> None:
        """What is shown is made when it is recorded: ``Destination.unpack``."""

    def check(self, images: Sequence[Resolved]) -> None:
        """One platform can be taken: ``Destination.check``."""
        if len({resolved.descriptor.digest for resolved in images}) > 1:
            raise UnsupportedError("podman has one platform of an image under a name: choose one")

    async def claim(self, layers: Sequence[Descriptor]) -> None:
        """Nothing is there that the store does not have: ``Destination.claim``."""

    def arrived(self, blob: Descriptor, reference: Reference) -> None:
        """Layers are unpacked into the store as they arrive: ``Destination.arrived``."""

    async def record(self, asked: str, images: Sequence[Resolved], keeping: Keeping) -> None:
        """Show an image: ``Destination.record``.

        Raises:
            UnsupportedError: it is of several platforms, or as ``show`` says.
            UnpackError, FormatError, IntegrityError, StoreError: as ``show``.
        """
        self.check(images)
        await self.show(images[0], None, Mending(asked, None), list_name=keeping.list_name)

    async def prune(self, list_name: str, wanted: Mapping[str, bool]) -> tuple[str, ...]:
        """Let go what the list does not want any more, unless a container runs from it: ``Destination.prune``."""
        store = self._layers.image_store
        return await self._layering.workers.run(lambda: tuple(_prune(store, list_name, wanted)))

    @property
    def _layers(self) -> LayerStore:
        return self._layering.layers

    async def show(
        self, resolved: Resolved, config: ImageConfig | None, mending: Mending, *, list_name: str = ""
    ) -> None:
        """Have an image found by its name, with its layers as layer directories; the caller keeps its blobs.

        Args:
            list_name: of the list that wants it.
        Raises:
            UnsupportedError: podman cannot run it out of layer directories as they can be made here.
            UnpackError, FormatError, IntegrityError, StoreError: nothing leads to the image.
        """
        layering = self._layering
        _demand_owners(())
        config = config or await read_config(layering.store, resolved.manifest, layering.limits)
        pairs = layers_of(resolved.manifest, config)
        assert config is not None
        async with layering.keep(pairs, "overlay"):
            if (stack := await layering.workers.run(partial(self._stack, pairs))) is None:
                await layering.make(pairs, resolved.descriptor, "overlay", Arriving(mending))
                stack = await layering.workers.run(partial(self._stack, pairs))
            if stack is None:
                raise FormatError("a layer directory went while it was used")
            _demand_owners(stack)
            await self._layers.sync_directories([layer.chain_id for layer in stack])
            naming = await layering.workers.run(partial(_naming, stack))
            layers = storage_layers(pairs, stack, naming=naming)
            kept = documents_of((resolved.manifest.config, config.raw), await self._chain(resolved))
            name, top = str(resolved.reference), layers[-1].id if layers else ""
            image = image_record(name, resolved.manifest.config, resolved.descriptor, kept, top, config.created)
            splits: dict[str, Split] = {}
            with ExitStack() as opened:

                async def work(tees: object) -> None:
                    splits.update(await self._splits(layers, mending, opened))

                await layering.until_right(work, pairs, Arriving(mending))
                add = partial(self._layers.image_store.add, layers, splits, image, kept, list_name)
                await layering.workers.run(add)

    def _stack(self, pairs: Pairs) -> list[LayerDirectory] | None:
        """The layer directories of an image, when all are there."""
        find = partial(self._layers.find_directory, owners=os.geteuid() == 0)
        return find_stack([diff_id for _, diff_id in pairs], find)

    async def _chain(self, resolved: Resolved) -> list[tuple[Descriptor, bytes]]:
        """Index and manifest with their bytes; an index that the store does not have is left out."""
        found = []
        for descriptor, raw in resolved.chain:
            if raw or not await self._layering.store.missing([descriptor]):
                data = raw or await read_document(self._layering.store, descriptor, self._layering.limits)
                found.append((descriptor, data))
        return found

    async def _splits(self, layers: Sequence[StorageLayer], mending: Mending, opened: ExitStack) -> Mapping[str, Split]:
        """How the tars of layers are made again, of those that it is not known of yet: all at once.

        Args:
            opened: closes the files.
        """
        store = self._layers.image_store
        known = await self._layering.workers.run(store.known_layers)
        found: dict[str, Split] = {}

        async def split(layer: StorageLayer) -> None:
            if (made := await self._split(store, layer, mending, opened)) is not None:
                found[layer.id] = made

        wanted = [layer for layer in layers if layer.diff_id is not None and layer.id not in known]
        if tasks := [asyncio.create_task(split(layer)) for layer in wanted]:
            await all_or_first(tasks)
        return found

    async def _split(self, store: ImageStore, layer: StorageLayer, mending: Mending, opened: ExitStack) -> Split | None:
        """Read one layer; None when its tar cannot be made again out of its files."""
        workers, reader = self._layering.workers, self._layering.reader
        fd = await workers.acquire(store.new_split, files.close)
        opened.callback(files.close, fd)
        assert layer.diff_id is not None
        blob, diff_id = layer.blob, layer.diff_id
        open_layer = _open_empty if blob is None else partial(self._layering.open, blob, diff_id, mending=mending)
        async with reader.slots, reader.sink(partial(TarSplitWriter, fd, str(diff_id))) as writer:
            await reader.from_file(open_layer, writer, Verifier(diff_id, None), lambda offset, size: None)
        return Split(fd, writer.tar) if writer.is_exact else None


def _prune(store: ImageStore, list_name: str, wanted: Mapping[str, bool]) -> Iterator[str]:
    for name in store.leave(list_name, wanted.keys()):
        with suppress(StoreBusyError):
            if store.withdraw(name):
                yield name


def _open_empty() -> OpenLayer:
    assert EMPTY_TAR.hex
    fd = os.memfd_create("empty", os.MFD_CLOEXEC)
    files.write_all(fd, _EMPTY)
    return OpenLayer(fd, 0, len(_EMPTY))


def _demand_owners(stack: Sequence[LayerDirectory]) -> None:
    """Refuse what podman would show with other owners, or with files that are deleted.

    Raises:
        UnsupportedError: overlayfs is told of them in another way than podman mounts them, or files have no owners.
    """
    if os.geteuid() != 0:
        text = "files of a user who is not root have no owners: run this by `podman unshare`, with the same options"
        raise UnsupportedError(text)
    if any(layer.user_xattrs for layer in stack) and not _in_user_namespace():
        text = "this file system takes no trusted attributes, by which podman of root tells overlayfs what is hidden"
        raise UnsupportedError(text)


def _naming(stack: Sequence[LayerDirectory]) -> LayerDirectory | None:
    """Whose root has the metadata of the image's root, where the topmost has other: mode, owner and group.

    A container gets these of the topmost layer, its own time and no attributes.
    """
    naming = [layer for layer in stack if layer.names_root]
    if not naming or naming[-1] is stack[-1]:
        return None
    with files.translated("stat", naming[-1].root):
        one, other = os.stat(naming[-1].root), os.stat(stack[-1].path)
    differs = (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid)
    return naming[-1] if differs else None


def _in_user_namespace() -> bool:
    """Whether ids of this process are others outside."""
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        return lines.read().split() != ["0", "0", "4294967295"]
