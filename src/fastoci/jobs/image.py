"""An image that is in the store: its documents, and the ways out of the store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, get_args

from msgspec.structs import replace

from fastoci.arguments import one_of
from fastoci.errors import BlobNotFoundError, FastociError, FormatError, PlatformError, UnsupportedError
from fastoci.events import Warned
from fastoci.image import manifest as manifest_document
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.index import select
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.image_interfaces import WholeImage
from fastoci.interfaces import BlobSource
from fastoci.jobs.destination import Destination, Keeping
from fastoci.jobs.layers import Arriving, layers_of, overlay_options
from fastoci.jobs.outputs import Making
from fastoci.jobs.plan import Layers, Resolved
from fastoci.jobs.pull import PullContext, contents
from fastoci.jobs.resolve import read_config, read_document
from fastoci.jobs.running import RunningJobs, job
from fastoci.jobs.stored import Mending

if TYPE_CHECKING:
    from fastoci.jobs.base_tree import ImageTree
    from fastoci.jobs.browse import Browsing
    from fastoci.jobs.mounts import MountedImage
    from fastoci.unpack.erofs_files import ImageFiles

BundleRootfs = Literal["tree", "mount"]
_SHOWN: Final = 10  # of what was left out


class Image:
    """One image that is in the store whole. Usable while its engine is open.

    ``descriptor`` is what the name points to (an index or a manifest), ``manifest_descriptor`` the manifest's;
    ``config`` is None for an artifact, and where it cannot be read; ``platform`` is None when neither index nor config
    name one.
    """

    def __init__(
        self,
        context: PullContext,
        resolved: Resolved,
        config: ImageConfig | None,
        source: BlobSource | None = None,
        *,
        asked: str = "",
    ) -> None:
        self._context = context
        self._asked = asked or str(resolved.reference)  # in events and errors
        self._resolved = resolved
        self._source = source  # of blobs that are damaged in the store; None when no registry may be asked
        self.config = config

    def __repr__(self) -> str:
        return f"<fastoci.Image {self.reference} {self.manifest_descriptor.digest}>"

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

    @job
    async def unpack(self, root: str | os.PathLike[str], *, same_owner: bool | None = None) -> None:
        """Make a rootfs under ``root``, which must not exist or be an empty directory.

        A finished tree of this image is left as it is; its files are not looked at.

        Args:
            same_owner: give files to the owners that layers name; by default as root only.
        Raises:
            RootfsOccupiedError: something else is there.
            UnsupportedError, UnpackError, FormatError, IntegrityError, StoreError: nothing is left under ``root``.
        """
        target, tree = self._context.target(root), contents(self.manifest_descriptor, same_owner)
        if await self._context.layering.unpacker.holds(target, tree, image=str(self.reference)):
            return
        async with self._context.store.keep(self._parts, name=str(self.reference)):
            making, arriving = Making(tree=(target, tree)), Arriving(self._mending())
            await self._context.make(self._resolved, self.config, making, arriving, AsyncExitStack())

    @job
    async def make_layers(self, layers: Layers) -> None:
        """Have the layers in the store in another form beside their blobs. What is there already is not made again.

        Raises:
            UnsupportedError, UnpackError, FormatError, IntegrityError, StoreError: the layers that are whole stay.
        """
        async with self._context.store.keep(self._parts, name=str(self.reference)), AsyncExitStack() as kept:
            await self._context.make(self._resolved, self.config, Making(layers), Arriving(self._mending()), kept)

    @job
    async def overlay_options(self) -> tuple[str, ...]:
        """The options by which overlayfs shows the image out of its layer directories, for those who mount themselves.

        Most often it is one, ``lowerdir=...``; with very many layers there is a ``lowerdir+=...`` for each.

        Raises:
            BlobNotFoundError: not all are in the store: ``make_layers`` makes them.
        """
        pairs = layers_of(self.manifest, self.config)
        options = await self._context.layering.workers.run(partial(overlay_options, self._context.layering, pairs))
        if options is None:
            text = f"the store lacks layer directories of {self.reference}"
            raise BlobNotFoundError(text, path="", subject=str(self.manifest_descriptor.digest))
        return options

    @job
    async def bundle(self, directory: str | os.PathLike[str], *, rootfs: BundleRootfs = "tree") -> None:
        """Make a runtime bundle in ``directory``: ``rootfs``, and ``config.json`` for runtimes.

        A finished bundle of this image stays as it is, also when its ``config.json`` was changed since.

        Args:
            rootfs: "mount" mounts the image there, and ``upper`` beside it gets the changes: again after each boot.
        Raises:
            RootfsOccupiedError: something else is there.
            FormatError, UnsupportedError: no container can be started from the image.
            MountError, UnpackError, IntegrityError, StoreError: as ``unpack`` or ``mount``; the next bundle goes on
                from there.
        """
        from fastoci.jobs.bundle import make_bundle

        one_of(get_args(BundleRootfs), rootfs, "rootfs")
        if self.config is None:
            raise UnsupportedError(f"{self.reference} is not a container image: nothing to start")
        target = self._context.target(directory)
        make = self.unpack if rootfs == "tree" else partial(self.mount, upper=target / "upper")
        if left_out := await make_bundle(target, self.config.raw, make):
            shown = ", ".join(left_out[:_SHOWN]) + (", ..." if len(left_out) > _SHOWN else "")
            self._context.observer(Warned(self._asked, f"not for a container, and left out: {shown}"))

    @job
    async def files(self) -> ImageFiles:
        """The names and metadata of the image's files, without unpacking them. Close it at the end.

        Raises:
            UnsupportedError, UnpackError, FormatError, IntegrityError, StoreError: as ``unpack``.
        """
        async with self._browsing() as browsing:
            return await browsing.files()

    @job
    async def open(self, path: str) -> BinaryIO:
        """Open a file of the image for reading, without unpacking it. It outlives the engine; close it at the end.

        Args:
            path: from the image's root; symbolic links lead to where they lead in the image.
        Raises:
            ImagePathError: nothing is there, or something without data.
            UnsupportedError, UnpackError, FormatError, IntegrityError, StoreError: as ``unpack``.
        """
        async with self._browsing() as browsing:
            return await browsing.open(path)

    @job
    async def tar(self, path: str = "/") -> BinaryIO:
        """A tar of the image's files, or of what is at a path and below it, to be read once; as ``open``.

        Raises:
            ImagePathError: nothing is there.
            UnsupportedError, UnpackError, FormatError, IntegrityError, StoreError: as ``unpack``.
        """
        async with self._browsing() as browsing:
            return await browsing.tar(path)

    @asynccontextmanager
    async def _browsing(self) -> AsyncIterator[Browsing]:
        from fastoci.jobs.browse import Browsing  # with the writer and reader of EROFS

        config = self.config or await read_config(self._context.store, self.manifest, self._context.limits)
        pairs, manifest = layers_of(self.manifest, config), self.manifest_descriptor.digest
        async with self._context.store.keep(self._parts, name=str(self.reference)):
            try:
                yield Browsing(self._context.layering, pairs, manifest, Arriving(self._mending()))
            except FastociError as error:
                error.image = error.image or self._asked
                raise

    @job
    async def mount(
        self,
        directory: str | os.PathLike[str],
        *,
        upper: str | os.PathLike[str] | None = None,
        context: str = "",
        verity: bool = False,
    ) -> MountedImage:
        """Mount the image on ``directory``, which must not exist or be an empty directory; its layers are made first.

        The image is mounted once, for all directories that show it. Where nothing can be mounted, root gets a tree.
        ``fastoci.umount`` takes it away.

        Args:
            upper: the directory that changes are written to; by default the image is only read.
            context: the SELinux label of all files.
            verity: only when the kernel holds each read of the layer files against their fs-verity digests.
        Raises:
            RootfsOccupiedError: something else is there.
            StoreBusyError: another mount writes to ``upper``.
            MountError: nothing can be mounted here, or not with ``verity``; the message says what is missing.
            UnsupportedError, UnpackError, FormatError, IntegrityError, StoreError: as ``unpack``.
        """
        from fastoci.jobs.mount_image import MountOptions, mount_image  # most programs mount nothing

        target = self._context.target(directory)
        options = MountOptions(None if upper is None else self._context.target(upper), context, verity)
        async with self._context.store.keep(self._parts, name=str(self.reference)):
            return await mount_image(self._context, self._resolved, self.config, self._mending(), target, options)

    @job
    async def show_to_podman(self) -> None:
        """Have podman and CRI-O find the image by its name, where the store is one of their additional image stores.

        They run it out of layer directories, which are made when they are not there.

        Raises:
            UnsupportedError, UnpackError, FormatError, IntegrityError, StoreError: they do not find it.
        """
        from fastoci.jobs.podman import Showing

        async with self._context.store.keep(self._parts, name=str(self.reference)):
            await Showing(self._context.layering).show(self._resolved, self.config, self._mending())

    @job
    async def check(self) -> None:
        """Hold the store against what the image needs, and note that the image is used.

        Raises:
            BlobNotFoundError: a part of it is not there.
        """
        async with self._context.store.keep(self._parts, name=str(self.reference)):
            missing = await self._context.store.missing(self._parts)
            if missing:
                spared = await self._context.layering.spared([self._resolved])
                missing = [blob for blob in missing if blob.digest not in spared]
            if missing:
                blobs = "1 blob" if len(missing) == 1 else f"{len(missing)} blobs"
                text = f"the store lacks {blobs} of {self.reference}, as {missing[0].digest}: pull it again"
                raise BlobNotFoundError(text, path=str(missing[0].digest), subject=str(missing[0].digest))

    @job
    async def export(self, directory: str | os.PathLike[str], others: Sequence[Image] = ()) -> None:
        """Add the image to an OCI layout in ``directory``, under its full name; blobs are hard links where possible.

        Each is hashed before. What is damaged in the store is fetched again, of an image that was pulled.

        Args:
            others: other platforms of the same name, exported with it: the layout names the index.
        Raises:
            IntegrityError: a blob is damaged in the store, and no registry may be asked.
            StoreError: ``directory`` is not a layout, or cannot be written.
            StoreBusyError: another process extends the layout, and did not end.
        """
        target, images = self._context.target(directory), (self, *others)
        blobs = {blob.digest: blob for image in images for blob in image._parts}
        top = replace(self.manifest_descriptor, platform=self.platform)
        if len({image.manifest_descriptor.digest for image in images}) > 1:
            top = self.descriptor
            blobs |= {top.digest: top}
        parts = list(blobs.values())
        async with self._context.store.keep(parts, name=str(self.reference)):
            whole = WholeImage(str(self.reference), top, parts)
            await self._context.stored.put(self._context.layout(target), [whole], self._mending(*others))

    @property
    def _running(self) -> RunningJobs:
        return self._context.running

    def _mending(self, *others: Image) -> Mending:
        chains = [link for image in (self, *others) for link in image._resolved.chain]
        documents = {descriptor.digest: raw for descriptor, raw in chains if raw}
        return Mending(self._asked, self._source, documents)

    @property
    def _parts(self) -> tuple[Descriptor, ...]:
        return (self.manifest_descriptor, *self._resolved.blobs)


async def tree_of(image: Image) -> ImageTree:
    """All files of an image, to be compared with others; the root of the tree is to be closed. Raises: as ``tar``."""
    async with image._browsing() as browsing:
        return await browsing.tree()


def mending_of(image: Image) -> Mending:
    """What mends the layers of an image, for one job."""
    return image._mending()


async def hand_over(images: Sequence[Image], into: Destination, asked: str) -> None:
    """Record an image of the store elsewhere, too, for these platforms. Raises: as ``Destination.record``."""
    first, parts = images[0], [blob for image in images for blob in image._parts]
    async with first._context.store.keep(parts, name=str(first.reference)):
        await into.record(asked, [image._resolved for image in images], Keeping())


def choose(ref: StoredImage, platform: Platform | None) -> Descriptor:
    """The manifest for a platform among those that the store has; without one this machine's, or the only one.

    Raises:
        PlatformError: the image was not pulled for ``platform``.
    """
    held = list(ref.images.values())
    chosen = select(held, platform or Platform.host())
    if chosen is None and platform is None and len(held) == 1:
        chosen = held[0]
    if chosen is None:
        names = tuple(ref.images)
        raise PlatformError(f"{ref.name} was pulled for {', '.join(names)} only", available=names)
    return chosen


async def load_image(context: PullContext, ref: StoredImage, chosen: Descriptor, *, asked: str) -> Image:
    """An image from the store alone.

    Args:
        chosen: its manifest.
        asked: what the user called it, in events and errors.
    Raises:
        BlobNotFoundError: the store lost a part of it.
        IntegrityError: the manifest or config is damaged.
    """
    data = await read_document(context.store, chosen, context.limits)
    manifest = manifest_document.parse(data, chosen.media_type)
    chain = ((chosen, data),) if chosen.digest == ref.descriptor.digest else ((ref.descriptor, b""), (chosen, data))
    resolved = Resolved(Reference.parse(ref.name), chain, manifest, chosen.platform)
    config = None
    with suppress(FormatError, UnsupportedError):  # as after a pull: ``unpack`` says what is wrong with it
        config = await read_config(context.store, manifest, context.limits)
    return Image(context, resolved, config, asked=asked)
