"""Mount an image of the store: make the layers that the mount needs, and fall back where it cannot be.

The order is that of the cost for who reads: merged metadata and layer files as one EROFS, layer directories as an
overlay, and for root a tree. What the kernel and the programs here can is asked before anything is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec

from fastoci import files, path_walk
from fastoci.errors import BlobNotFoundError, MountError, RootfsOccupiedError, StoreError
from fastoci.events import Warned
from fastoci.image.config import ImageConfig
from fastoci.image.digest import Digest
from fastoci.image.overlay_options import directories_of, find_stack
from fastoci.jobs import mounting
from fastoci.jobs.layers import Arriving, layers_of
from fastoci.jobs.mounting import LayerDirectories, LayerFiles, RefusedError, Request
from fastoci.jobs.mounts import MountedImage
from fastoci.jobs.outputs import Making
from fastoci.jobs.plan import Layers, Resolved
from fastoci.jobs.pull import PullContext, contents
from fastoci.jobs.stored import Mending
from fastoci.layer_interfaces import LayerStore
from fastoci.mount import erofs, fuse, overlay
from fastoci.threads import Threads
from fastoci.unpack.marker import Contents

Form = Literal["erofs", "overlay"]


class MountOptions(msgspec.Struct, frozen=True):
    """How an image is mounted: ``upper`` is written to, ``context`` is the SELinux label of all files.

    ``verity``: only when the kernel verifies its layer files at each read.
    """

    upper: Path | None = None
    context: str = ""
    verity: bool = False

    @property
    def takes_tree(self) -> bool:
        """A tree will do where nothing can be mounted."""
        return not (os.geteuid() or self.upper is not None or self.context or self.verity)


class _StoredImage(msgspec.Struct, frozen=True):
    """An image of the store, whose layers are made in the form that a mount takes."""

    context: PullContext
    resolved: Resolved
    config: ImageConfig | None
    mending: Mending
    kept: AsyncExitStack  # holds the layers until the mount is made

    @property
    def layers(self) -> LayerStore:
        return self.context.layering.layers

    async def make(self, form: Form) -> None:
        await self._make(Making(Layers(form)))

    async def demand_verity(self, threads: Threads) -> None:
        """Make layer files that the kernel verifies, and refuse others: ``mount_verity.demand_verity``."""
        from fastoci.jobs.mount_verity import demand_verity  # which few mounts need

        await self._make(Making(Layers("erofs", verity=True)))
        manifest = self.resolved.descriptor.digest

        def look() -> None:
            with layer_files(self.layers, manifest) as sources:
                demand_verity(self.layers, manifest, sources)

        await threads.run(look)

    async def is_tree(self, directory: Path) -> bool:
        """Whether a finished tree of the image is there."""
        try:
            return await self.context.layering.unpacker.holds(*self._tree(directory), image=self.mending.image)
        except RootfsOccupiedError:
            return False

    async def unpack(self, directory: Path) -> None:
        if not await self.is_tree(directory):
            await self._make(Making(tree=self._tree(directory)))

    def _tree(self, directory: Path) -> tuple[Path, Contents]:
        return directory, contents(self.resolved.descriptor, None)

    async def _make(self, making: Making) -> None:
        await self.context.make(self.resolved, self.config, making, Arriving(self.mending), self.kept)


async def mount_image(
    context: PullContext,
    resolved: Resolved,
    config: ImageConfig | None,
    mending: Mending,
    directory: Path,
    options: MountOptions,
) -> MountedImage:
    """Mount an image of the store, unless it is mounted there already. Its blobs are kept from gc by the caller.

    Raises:
        RootfsOccupiedError: the directory is not empty, or something else is mounted there.
        StoreBusyError: another mount writes to the upper directory.
        MountError: nothing can be mounted here; or the directories are not such that an image can be.
        UnpackError, FormatError, IntegrityError, StoreError: as ``Image.unpack`` raises them.
    """
    request = Request(
        image=resolved.descriptor.digest.hex,
        reference=str(resolved.reference),
        directory=directory,
        upper=options.upper,
        context=options.context,
    )
    async with AsyncExitStack() as kept:
        image = _StoredImage(context, resolved, config, mending, kept)
        try:
            with closing(Threads()) as threads:
                if options.verity:
                    await image.demand_verity(threads)
                done, refused = await _mount_somehow(threads, request, image, _FORMS[:1] if options.verity else _FORMS)
        except RootfsOccupiedError:
            if request.upper is not None or options.verity or not await image.is_tree(directory):
                raise
            done, refused = None, []  # an earlier mount came to no more than that
        if done is None and not options.takes_tree:
            text = f"{directory}: nothing can be mounted here: {'; '.join(refused)}"
            raise MountError(f"{text}: `fastoci unpack` makes a tree", path=str(directory))
        if done is None:
            await image.unpack(directory)
            done = MountedImage(str(directory), request.image, request.reference, "tree", "")
        if refused:
            what = "a tree" if done.way == "tree" else "layer directories"
            context.observer(Warned(mending.image, f"{directory} is {what}: {'; '.join(refused)}"))
        return done


async def _mount_somehow(
    threads: Threads, request: Request, image: _StoredImage, forms: Sequence[Form]
) -> tuple[MountedImage | None, list[str]]:
    """Try one form of layers after the other; the mount, if there is one, and why not the forms before."""
    refused: list[str] = []
    if (there := await threads.run(partial(mounting.mount, request, None))) is not None:
        return there, refused
    for form in forms:
        try:
            if reason := await threads.run(_no_erofs if form == _EROFS else _no_overlay):
                raise RefusedError(reason)
            await image.make(form)
            return await threads.run(partial(_mount, request, form, image)), refused
        except RefusedError as error:
            refused.append(str(error))
    return None, refused


_EROFS: Final[Form] = "erofs"
_OVERLAY: Final[Form] = "overlay"
_FORMS: Final = (_EROFS, _OVERLAY)


def _no_erofs() -> str:
    """Why no EROFS can be mounted; empty when it can."""
    way, why = erofs.probe()
    missing = fuse.missing(fuse.EROFS)
    return f"{why}; {missing}" if way is None and missing else ""


def _no_overlay() -> str:
    return fuse.missing(fuse.OVERLAY) if os.geteuid() else overlay.probe()


def _mount(request: Request, form: Form, image: _StoredImage) -> MountedImage:
    if form == _EROFS:
        opened: AbstractContextManager[LayerFiles | LayerDirectories] = layer_files(
            image.layers, image.resolved.descriptor.digest
        )
    else:
        diff_ids = [diff_id for _, diff_id in layers_of(image.resolved.manifest, image.config)]
        opened = _layer_directories(image.layers, diff_ids)
    with opened as sources:
        done = mounting.mount(request, sources)
    assert done is not None
    return done


@contextmanager
def layer_files(layers: LayerStore, manifest: Digest) -> Iterator[LayerFiles]:
    """Open what this store made, by its records.

    Raises:
        BlobNotFoundError: it went meanwhile.
        StoreError: a file belongs to somebody else.
    """
    merged = layers.find_merged(manifest)
    if merged is None:
        text = f"the store has no merged metadata of {manifest}"
        raise BlobNotFoundError(text, path=str(manifest), subject=str(manifest))
    with ExitStack() as held:
        metadata = _open(Path(merged.path), files.READ)
        held.callback(os.close, metadata)
        devices = []
        for diff_id in merged.devices:
            devices.append(layers.open(diff_id))
            held.callback(os.close, devices[-1])
        if os.fstat(metadata).st_size != merged.size:
            raise StoreError(f"{merged.path} is not the file that its record is of", path=merged.path)
        for fd in (metadata, *devices):
            _demand_own(fd)
        yield LayerFiles(metadata, tuple(devices))


@contextmanager
def _layer_directories(layers: LayerStore, diff_ids: Sequence[Digest]) -> Iterator[LayerDirectories]:
    """Open the directories that show an image, the topmost first; raises as ``layer_files``."""
    find = partial(layers.find_directory, owners=os.geteuid() == 0)
    stack = find_stack(diff_ids, find)
    if stack is None:
        raise BlobNotFoundError("the store lacks a layer directory of the image", path=str(diff_ids[-1]))
    with ExitStack() as held:
        opened = []
        for path in reversed(directories_of(stack)):
            opened.append(_open(Path(path), files.DIRECTORY))
            held.callback(os.close, opened[-1])
        yield LayerDirectories(tuple(opened), any(layer.user_xattrs for layer in stack))


def _open(path: Path, flags: int) -> int:
    """Open what is in a directory of the store's."""
    parent, name = path_walk.open_parent(path)
    try:
        _demand_own(parent)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)


def _demand_own(fd: int) -> None:
    """Refuse what another user made: the kernel reads it, with all its rights."""
    owner = os.fstat(fd).st_uid
    if owner not in (0, os.geteuid()):
        path = os.readlink(f"/proc/self/fd/{fd}")
        raise StoreError(f"{path} belongs to user {owner}: it is not mounted", path=path)
