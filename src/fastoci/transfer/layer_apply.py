"""One layer into one snapshot of another tool, whatever form that takes: upper directory, merged view, EROFS file.

An upper directory is written without a look at lower layers. Directories that it does not name, but has files in, then
get what lower layers say of them. Whatever else it cannot say exactly is known when it has been read: then it is read
again, onto an overlay of what lower layers hold, if these are known.
Spec: image-spec v1.1 layer.md; containerd core/diff/apply, plugins/diff/erofs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from fastoci import files, path_walk
from fastoci._extract import Stop, sync_filesystem
from fastoci.containerd.mounts import OnBlocks, Target
from fastoci.errors import UnpackError, UnsafePathError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.image.overlay_options import HARMLESS_AT_THE_BOTTOM
from fastoci.limits import Limits
from fastoci.mount import block, overlay
from fastoci.mount.overlay import Overlay
from fastoci.stream.verify import Verified, Verifier
from fastoci.transfer.layer_making import LayerWriter
from fastoci.transfer.layer_reading import LayerReader, Read
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.transfer.workers import WorkerPool
from fastoci.unpack.erofs import LayerFileWriter
from fastoci.unpack.rights import is_machine_root
from fastoci.unpack.snapshot import Bounds, MergedViewWriter, UpperWriter, clear, mend

_MENDABLE: Final = frozenset({"implied-parent"})  # why a layer alone is inexact, until lower layers are asked
EROFS_MARKER: Final = ".erofslayer"  # in a snapshot's directory: an EROFS file is wanted beside it
EROFS_FILE: Final = "layer.erofs"
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LayerToApply(msgspec.Struct, frozen=True):
    """One layer, and what it counts for.

    Attributes:
        name: in messages.
        blob: its digest, which names an EROFS file.
        read: reads it the first time; ``again``: once more, from a file.
        verifier: begins the digest of its tar: of a diff_id, or a ``Meter``.
        totals, number: where it counts, and which layer of these it is.
    """

    name: str
    blob: Digest
    read: Read
    again: Read
    verifier: Callable[[], Verifier]
    totals: UnpackTotals
    number: int = 0


class Alone(msgspec.Struct, frozen=True):
    """A layer that was written without lower layers; ``implied`` are directories that these still have a say in."""

    proof: Verified
    implied: Sequence[bytes] = ()


class Writer(LayerWriter, Protocol):
    """A sink that any of the three forms has."""


W = TypeVar("W", bound=Writer)


class _NeedsLowersError(UnpackError):
    """What was written alone is not exact; nothing more need be written."""


class LayerApply:
    """Applies layers on the worker pool; each in a slot that ``read`` holds."""

    def __init__(self, workers: WorkerPool, reader: LayerReader, limits: Limits) -> None:
        self._workers = workers
        self._reader = reader
        self._limits = limits

    async def apply(self, layer: LayerToApply, target: Target) -> Verified:
        """Bring a layer into a snapshot; the digest and size of its tar.

        Where lower layers are not known, what only they could say is as containerd's own unpacking has it.

        Raises:
            UnpackError, FormatError, IntegrityError, StoreError: the snapshot holds what was made before.
        """
        unknown = target.lowers is None
        alone = await self.alone(layer, target, mendable=not unknown, unknown_lowers=unknown)
        if alone is not None and (target.lowers is None or await self.mend(target, alone.implied, target)):
            return alone.proof
        if target.lowers is None:
            text = f"layer {layer.name}: a hard link to what is not in this layer, and lower layers are not known"
            raise UnsafePathError(text, path="", layer=layer.name, offset=0)
        stop = Stop()
        await self._workers.run(partial(_clear, target, stop), stop=stop.set)
        return await self._view(msgspec.structs.replace(layer, read=layer.again), target)

    async def alone(
        self, layer: LayerToApply, target: Target, *, mendable: bool, unknown_lowers: bool = False
    ) -> Alone | None:
        """As ``apply``, without lower layers where the form has none; None when the layer needs them.

        Args:
            mendable: lower layers can be asked later; else it is as if there were none.
            unknown_lowers: lower layers are there, and nobody will say what they have.
        """
        if target.mounted is not None:
            return Alone(await self._view(layer, target))
        if target.kind == "erofs" or await self._workers.run(partial(_is_erofs, target)):
            return Alone(await self._file(layer, target.snapshot))
        if target.kind == "merged":
            return Alone(await self._view(layer, target))
        if not (target.user_xattrs or is_machine_root()):
            if target.lowers is None:
                raise UnsupportedError(f"layer {layer.name}: only root of the machine can tell overlayfs of it alone")
            return Alone(await self._view(layer, target))
        return await self._upper(layer, target, mendable, unknown_lowers)

    async def mend(self, target: Target, implied: Sequence[bytes], above: Target) -> bool:
        """Give directories that a layer does not name, but has files in, what lower layers say of them.

        Args:
            target: where the layer was written alone.
            implied: paths of these directories.
            above: of a snapshot on top of the lower layers.
        Returns:
            False: lower layers have more of a say in the layer.
        Raises:
            StoreError: the disk refused, or lower layers are gone.
        """
        return not implied or await self._workers.run(partial(_mend, target, implied, above))

    async def clear(self, target: Target) -> None:
        """Empty what a layer could not become, so that another way can be tried.

        In a merged view it cannot be told from what lower layers hold, and stays: a layer applied twice is what it is
        once.

        Raises:
            StoreError: the disk refused.
        """
        stop = Stop()
        if target.kind == "upper":
            await self._workers.run(partial(_clear, target, stop), stop=stop.set)
        if target.mounted is None:
            await self._workers.run(partial(_remove_file, target.snapshot))

    async def sync(self, target: Target) -> None:
        """Have all of the target's file system on the disk.

        Raises:
            StoreError: the disk refused.
        """
        await self._workers.run(partial(_sync, target))

    async def _upper(self, layer: LayerToApply, target: Target, mendable: bool, unknown_lowers: bool) -> Alone | None:
        """Alone, in the form of overlayfs."""
        made: list[UpperWriter] = []
        harmless = _MENDABLE if mendable else HARMLESS_AT_THE_BOTTOM

        def make(fd: int, entries: int, size: int) -> UpperWriter:
            bounds = Bounds(entries, size, self._limits.layer_directories)
            made.append(
                UpperWriter(
                    fd,
                    name=layer.name,
                    user_xattrs=target.user_xattrs,
                    bounds=bounds,
                    unknown_lowers=unknown_lowers,
                )
            )
            return made[-1]

        def needs_lowers() -> bool:
            return bool(made) and not harmless.issuperset(made[-1].reasons)

        def progressed(offset: int, size: int) -> UnpackError | None:
            if needs_lowers():
                return _NeedsLowersError("")
            return layer.totals.progress(layer.number, offset, size)

        try:
            async with self._opened(partial(open_target, target)) as fd:
                _, proof = await self._into(layer, fd, make, progressed)
        except UnpackError:  # of what lower layers have a say in, a refusal may be wrong
            if not (needs_lowers() or (mendable and made and made[-1].reasons)):
                raise
            return None
        return None if needs_lowers() else Alone(proof, made[-1].implied)

    async def _view(self, layer: LayerToApply, target: Target) -> Verified:
        """Onto what lower layers hold."""

        def make(fd: int, entries: int, size: int) -> MergedViewWriter:
            bounds = Bounds(entries, size, self._limits.layer_directories)
            return MergedViewWriter(fd, name=layer.name, bounds=bounds)

        async with self._opened(partial(_open_view, target)) as fd:
            _, proof = await self._into(layer, fd, make, partial(layer.totals.progress, layer.number))
        return proof

    async def _file(self, layer: LayerToApply, directory: str) -> Verified:
        """As an EROFS file, which has no lower layers."""

        def make(fd: int, entries: int, size: int) -> LayerFileWriter:
            return LayerFileWriter(
                fd,
                layer=layer.blob,
                form="4k",
                max_entries=entries,
                max_bytes=size,
                max_memory=self._limits.memory,
            )

        async with self._opened(partial(_make_file, directory)) as fd:
            writer, proof = await self._into(layer, fd, make, partial(layer.totals.progress, layer.number))
        if "hard-link" in writer.facts.reasons:
            text = f"layer {layer.name}: a hard link to what is not in this layer, which an EROFS file cannot hold"
            raise UnsafePathError(text, path="", layer=layer.name, offset=0)
        return proof

    @asynccontextmanager
    async def _opened(self, open_it: Callable[[], int]) -> AsyncIterator[int]:
        """Something that is opened, and closed, on a thread: an overlay's end may take long."""
        fd = await self._workers.acquire(open_it, files.close)
        try:
            yield fd
        except BaseException:
            await self._workers.finish(partial(files.close, fd))
            raise
        await self._workers.run(partial(files.close, fd))

    async def _into(
        self,
        layer: LayerToApply,
        fd: int,
        make: Callable[[int, int, int], W],
        progressed: Callable[[int, int], UnpackError | None],
    ) -> tuple[W, Verified]:
        """Read a layer into a writer; both are done then."""
        sink = partial(layer.totals.counted, layer.number, partial(make, fd))
        async with self._reader.sink(sink) as writer:
            with self._reader.names() as names:

                def held(offset: int, size: int) -> UnpackError | None:
                    names.hold(writer.memory)
                    return progressed(offset, size)

                proof = await layer.read(writer, layer.verifier(), held)
        assert proof is not None
        return writer, proof


def open_target(target: Target) -> int:
    """On a thread: the directory that a layer's files go into, or what is mounted for that; the caller closes it.

    Raises:
        StoreError: it is gone, or the way to it is another user's.
    """
    if target.mounted is None:
        return _open(target.directory)
    with files.translated("open", target.directory):
        return os.open(target.directory, os.O_PATH | os.O_CLOEXEC)


def _open_mounted(source: str, mounted: OnBlocks) -> int:
    with files.translated("mount", source):
        mount = block.make(mounted.kind, source, mounted.options, is_file=mounted.is_file)
        try:
            return os.open(".", files.DIRECTORY, dir_fd=mount)
        finally:
            files.close(mount)


def _open(directory: str) -> int:
    with files.translated("open", directory):
        return path_walk.open_directory(Path(directory))


def _is_erofs(target: Target) -> bool:
    fd = _open(target.snapshot)
    try:
        with files.translated("look at", target.snapshot):
            return EROFS_MARKER in os.listdir(fd)
    finally:
        files.close(fd)


def _clear(target: Target, stop: Stop) -> None:
    fd = open_target(target)
    try:
        clear(fd, stop=stop)
    finally:
        files.close(fd)


def _mend(target: Target, implied: Sequence[bytes], above: Target) -> bool:
    if not above.lowers:
        return False
    with ExitStack() as held, files.translated("look into the layers below", target.directory):
        lowers = [os.open(directory, files.DIRECTORY) for directory in above.lowers]
        for fd in lowers:
            held.callback(files.close, fd)
        if len(lowers) > 1:
            view = overlay.make(Overlay(lowers=lowers, source=target.directory, user_xattrs=above.user_xattrs))
            held.callback(files.close, view)
        else:
            view = lowers[0]
        upper = open_target(target)
        held.callback(files.close, upper)
        return mend(upper, view, implied)


def _sync(target: Target) -> None:
    fd = _open(target.directory) if target.mounted is None else _open_mounted(target.directory, target.mounted)
    try:
        with files.translated("sync", target.directory):
            sync_filesystem(fd)
    finally:
        files.close(fd)


def _open_view(target: Target) -> int:
    """What lower layers hold, with the snapshot on top: its directory, or a mount that nobody else sees."""
    if target.mounted is not None:
        return _open_mounted(target.directory, target.mounted)
    if target.lowers is None:
        return open_target(target)
    with ExitStack() as held, files.translated("mount an overlay of", target.directory):

        def hold(fd: int) -> int:
            held.callback(files.close, fd)
            return fd

        upper, work = hold(_open(target.directory)), hold(_open(target.work))
        # They are only read, and may be hundreds: a walk by each name of a path costs ten times as much.
        lowers = [hold(os.open(directory, files.DIRECTORY)) for directory in target.lowers]
        parts = Overlay(lowers=lowers, source=target.directory, upper=upper, work=work, user_xattrs=target.user_xattrs)
        mount = overlay.make(parts)
        held.callback(files.close, mount)
        return os.open(".", files.DIRECTORY, dir_fd=mount)


def _make_file(directory: str) -> int:
    """A new, empty EROFS file in the place of what an earlier attempt has left."""
    _remove_file(directory)
    fd = _open(directory)
    try:
        with files.translated("make", f"{directory}/{EROFS_FILE}"):
            return os.open(EROFS_FILE, _NEW_FILE, 0o644, dir_fd=fd)
    finally:
        files.close(fd)


def _remove_file(directory: str) -> None:
    """Remove an EROFS file, where an EROFS snapshotter wants one."""
    fd = _open(directory)
    try:
        with files.translated("look into", directory):
            names = os.listdir(fd)
            if EROFS_MARKER in names and EROFS_FILE in names:
                os.unlink(EROFS_FILE, dir_fd=fd)
    finally:
        files.close(fd)
