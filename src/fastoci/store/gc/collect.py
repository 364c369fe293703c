"""Garbage collection: a plan of what nothing needs any more, and its execution beside running jobs.

``plan`` holds nothing and changes nothing, so it may be shown and thought about. ``execute`` reads again what
has changed since: references that were written, used or pinned, and the leases of jobs. Then it goes blob by
blob, in moments in which no job is between its lease and its check of what is there (``leases``).
It can be killed anywhere. Synchronous, for one thread. Spec: docs/store-format.md 8.
"""

from __future__ import annotations

import logging
import stat
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import ClassVar, Final, Literal

import msgspec

from fastoci import files
from fastoci.boot import boot_id
from fastoci.discreet import Discreet
from fastoci.image.digest import HEX_DIGITS, Digest
from fastoci.limits import DOCUMENT
from fastoci.store.gc import stale, unpacked
from fastoci.store.gc.eviction import Shortage, evict
from fastoci.store.gc.in_use import mounted_images
from fastoci.store.gc.leases import Collecting, collecting
from fastoci.store.gc.retention import Retention, Root, divide
from fastoci.store.graph import Marks
from fastoci.store.index_json import foreign
from fastoci.store.ingest.unsynced import Unsynced
from fastoci.store.layers.unpacked import Unpacked
from fastoci.store.layout import StoreLayout
from fastoci.store.refs import Refs, Stamp, stamp_of
from fastoci.threads import Check, go_on

_LOG: Final = logging.getLogger(__name__)

_SWEEP_S: Final = 0.005  # that jobs are kept waiting at a time
_SETTLED_NS: Final = 2_000_000_000  # a file changed so shortly before may change again and look the same
_MOST: Final = 256  # blobs a sweep
_LARGE: Final = 64 << 20  # bytes: freeing them takes longer than a sweep may

Kind = Literal["ref", "blob", "ingest", "marker", "layer", "merged", "directory", "rootfs"]
_SWEPT: Final = frozenset({"blob", "layer", "merged", "directory", "rootfs"})


class GcItem(msgspec.Struct, frozen=True):
    """One thing that goes: a reference by name, a blob or an unfinished one by digest, a marker by its blob's.

    A layer file, merged metadata, a layer directory and the tree of an image go by their place in the store.
    """

    kind: Kind
    name: str
    size: int  # bytes that are freed
    why: str


class GcPlan(Discreet, frozen=True):
    """What a collection deletes, and why. ``str`` shows it, one line each.

    ``kept_size`` counts the bytes of what stays, by descriptors; also of what is not present, unless the
    size is bounded.
    """

    hidden: ClassVar = frozenset({"stamps", "unpacked"})

    items: tuple[GcItem, ...]
    kept_blobs: int
    kept_size: int
    stamps: Mapping[str, Stamp]  # of the references' files that were read, by path
    unpacked: frozenset[str] = frozenset()  # paths of those that are kept unpacked only

    def __hash__(self) -> int:
        return hash((self.items, self.kept_blobs, self.kept_size, self.unpacked))

    @property
    def size(self) -> int:
        """Bytes that are freed."""
        return sum(item.size for item in self.items)

    def __str__(self) -> str:
        lines = [f"{item.kind} {item.name} {item.size} ({item.why})" for item in self.items]
        return "\n".join([*lines, f"{self.size} bytes go, {self.kept_size} in {self.kept_blobs} blobs stay"])


def plan(
    paths: StoreLayout,
    unsynced: Unsynced,
    retention: Retention,
    *,
    additional: Sequence[StoreLayout] = (),
    limit: int = DOCUMENT,
    check: Check = go_on,
) -> GcPlan:
    """Find what no reference and no running job needs, and which references retention lets go.

    Args:
        additional: stores that may have the config of an image.
        limit: bytes of one document.
        check: called now and then; what it raises ends the work.
    Raises:
        StoreError: a reference or a document is broken, so that nobody knows what it needs; or the disk refused.
    """
    scene = _look(paths, additional, limit, check, bounded=retention.max_size is not None)
    now = time.time()
    going, dropped = divide(scene.roots, scene.marks, retention, now)
    items, kept_blobs = _unneeded(paths, unsynced, scene, dropped, check)
    refs = [GcItem("ref", root.image.name, 0, why) for root, why in going]
    _LOG.debug("%s: gc would delete %d items and keep %d blobs", paths.root, len(refs) + len(items), kept_blobs)
    stamps = _settled(scene.roots, now)
    return GcPlan((*refs, *items), kept_blobs, scene.marks.total, stamps, _unpacked_only(scene.roots))


def plan_eviction(
    paths: StoreLayout,
    unsynced: Unsynced,
    shortage: Shortage,
    *,
    additional: Sequence[StoreLayout] = (),
    limit: int = DOCUMENT,
    check: Check = go_on,
) -> tuple[GcPlan, int]:
    """Find what nothing needs, and which references go beside that, so that a job fits.

    References that changed in the last seconds stay, because ``execute`` leaves them alone.

    Returns:
        the plan, and the bytes of disk that it frees; when these do not suffice, all that may go is in it.
    Raises:
        StoreError: as ``plan``.
    """
    names = {str(blob) for blob in shortage.blobs}
    needed = {bytes.fromhex(blob.hex) for blob in shortage.blobs}  # of the job: leased when it runs
    scene = _look(paths, additional, limit, check, needed=needed)
    leased, now = scene.leased, time.time()
    allocated = {**dict(_allocated(paths, leased, check)), **unpacked.allocated(paths, scene.unpacked, leased)}
    stamps = _settled(scene.roots, now)
    rests = sum(size for name, size, _ in stale.stale_ingests(paths, boot_id(), now) if name not in names)
    may_go = {root.image.name for root in scene.roots if root.path in stamps}
    going, dropped, freed = evict(scene.roots, scene.marks, allocated, shortage, may_go=may_go, freed=rests)
    items, kept_blobs = _unneeded(paths, unsynced, scene, dropped, check)
    kept = [item for item in items if item.kind != "ingest" or item.name not in names]
    refs = [GcItem("ref", root.image.name, 0, "used least recently, and its space is needed") for root in going]
    return GcPlan((*refs, *kept), kept_blobs, scene.marks.total, stamps, _unpacked_only(scene.roots)), freed


class _Scene(msgspec.Struct, frozen=True):
    """The references, what is reached beside them, the digests that leases name, and what is unpacked."""

    roots: Sequence[Root]
    marks: Marks
    leased: Collection[bytes]
    unpacked: Unpacked


def _look(
    paths: StoreLayout,
    additional: Sequence[StoreLayout],
    limit: int,
    check: Check,
    *,
    bounded: bool = False,
    needed: Collection[bytes] = (),
) -> _Scene:
    """See what a plan begins with.

    Args:
        bounded: the size of what stays counts only what takes space here: neither what is only in additional stores,
            nor what is missing.
        needed: digests that count as leased.
    Raises:
        StoreError: as ``plan``.
    """
    there = Unpacked(paths, additional, limit=limit, check=check)
    counted = frozenset((*there.keys, *(digest for _, digest in _blobs(paths, check)))) if bounded else None
    marks = Marks(paths, counted, unpacked=there or None, limit=limit, check=check)
    _follow_fixed(paths, marks, there)
    roots = list(_roots(paths, check))
    gate = Collecting(paths)
    gate.read(living=True)
    return _Scene(roots, marks, {*gate.leased, *needed}, there)


def _follow_fixed(paths: StoreLayout, marks: Marks, there: Unpacked) -> None:
    """Mark what is needed beside references: foreign entries, and images that are mounted."""
    marks.follow(foreign(paths), strict=True)
    if there:
        marks.follow(mounted_images(paths), thin=True)


def _unpacked_only(roots: Sequence[Root]) -> frozenset[str]:
    return frozenset(root.path for root in roots if root.image.layers_only)


def _unneeded(
    paths: StoreLayout, unsynced: Unsynced, scene: _Scene, dropped: Mapping[bytes, int], check: Check
) -> tuple[list[GcItem], int]:
    """What goes beside references, and how many blobs stay.

    Args:
        dropped: what only references that go reach.
    """
    items: list[GcItem] = []
    kept_blobs = 0
    marks, leased = scene.marks, scene.leased
    for algorithm, digest in _blobs(paths, check):
        if digest in marks.sizes or digest in leased:
            kept_blobs += 1
        elif (size := _size(paths, algorithm, digest)) is not None:
            why = "only in images that go" if digest in dropped else "in no image"
            items.append(GcItem("blob", f"{algorithm}:{digest.hex()}", size, why))
    needed = {*marks.sizes, *unpacked.held(paths, scene.unpacked)} if scene.unpacked else ()
    for item, why in unpacked.unneeded(scene.unpacked, needed, dropped, leased):
        items.append(GcItem(item.kind, unpacked.name_of(item), item.size, why))
    stale_ones = stale.stale_ingests(paths, boot_id(), time.time())
    items += [GcItem("ingest", name, size, why) for name, size, why in stale_ones]
    items += [GcItem("ingest", name, size, why) for name, size, why in stale.left_over(paths)]
    items += [GcItem("marker", name, 0, "of no blob") for name in stale.stale_markers(paths, unsynced)]
    return items, kept_blobs


def _settled(roots: Sequence[Root], now: float) -> dict[str, Stamp]:
    """The stamps of files that did not change so shortly before that they may change again and look the same."""
    settled = int(now * 1e9) - _SETTLED_NS
    return {root.path: root.stamp for root in roots if max(root.stamp[1:]) < settled}


def execute(
    paths: StoreLayout,
    unsynced: Unsynced,
    plan: GcPlan,
    *,
    additional: Sequence[StoreLayout] = (),
    limit: int = DOCUMENT,
    check: Check = go_on,
) -> tuple[GcItem, ...]:
    """Delete what the plan says and is still not needed; what was deleted.

    Raises:
        StoreBusyError: another collection is under way.
        StoreError: a reference or a document is broken, or the disk refused.
    """
    with collecting(paths) as gate:
        gate.drop_dead_leases()
        gone = [item for item in plan.items if item.kind == "ref" and _forget(paths, item, plan)]
        there = Unpacked(paths, additional, limit=limit, check=check)
        marks = Marks(paths, unpacked=there or None, limit=limit, check=check)
        _follow_fixed(paths, marks, there)
        # A layer file that stood for a blob may be gone since.
        known = {path: stamp for path, stamp in plan.stamps.items() if path not in plan.unpacked}
        for root in _roots(paths, check, known=known):
            marks.follow_image(root.image)
        needed = {*marks.sizes, *unpacked.held(paths, there)}
        gone += _sweep(paths, unsynced, gate, needed, [item for item in plan.items if item.kind in _SWEPT], check)
        gone += [item for item in plan.items if _tidy(paths, item)]
        gate.drop_dead_leases()
    for item in gone:
        _LOG.debug("%s: deleted %s %s, %s", paths.root, item.kind, item.name, item.why)
    return tuple(gone)


def _roots(paths: StoreLayout, check: Check, *, known: Mapping[str, Stamp] | None = None) -> Iterator[Root]:
    """The references, those left out that still have the stamp that is known of them."""
    refs = Refs(paths)
    for directory, key, info in refs.scan():
        path, stamp = directory.at(key), stamp_of(info)
        if known is not None and known.get(path) == stamp:
            continue
        check()
        ref = refs.load(directory, key)
        if ref is not None:
            yield Root(ref, path, stamp, info.st_mtime)


def _forget(paths: StoreLayout, item: GcItem, plan: GcPlan) -> bool:
    """Delete a reference that nobody has written or used since it was read."""
    stamp = plan.stamps.get(paths.ref_path(item.name))
    return stamp is not None and Refs(paths).remove(item.name, stamp=stamp)


def _tidy(paths: StoreLayout, item: GcItem) -> bool:
    """Delete what a dead process left, if it is still of no use."""
    match item.kind:
        case "ingest" if ":" not in item.name:
            return stale.remove_left_over(paths, item.name)
        case "ingest":
            return stale.remove_ingest(paths, item.name, boot_id(), time.time())
        case "marker":
            return stale.remove_marker(paths, item.name)
    return False


def _sweep(
    paths: StoreLayout,
    unsynced: Unsynced,
    gate: Collecting,
    needed: Collection[bytes],
    items: Sequence[GcItem],
    check: Check,
) -> list[GcItem]:
    """Delete what is neither needed nor named by a lease, a few at a time; those that were deleted."""
    gone = []
    left = deque(items)
    while left:
        check()
        with ExitStack() as freed, gate.sweeping():
            until = time.monotonic() + _SWEEP_S
            for _ in range(_MOST):
                if not left or time.monotonic() > until:
                    break
                item = left.popleft()
                if item.kind != "blob":
                    is_free = unpacked.is_free(unpacked.key_of(item.name), needed, gate.leased)
                    if is_free and unpacked.delete(paths, item.name, freed):
                        gone.append(item)
                    continue
                digest = Digest.parse(item.name)
                raw = bytes.fromhex(digest.hex)
                if not (raw in gate.leased or raw in needed) and _unlink(paths, digest, item.size, freed):
                    unsynced.clear_others((digest,))
                    gone.append(item)
    return gone


def _unlink(paths: StoreLayout, digest: Digest, size: int, freed: ExitStack) -> bool:
    """Delete a blob's name; a large one's blocks are freed when ``freed`` ends."""
    with files.translated("delete", paths.blob(digest)), suppress(FileNotFoundError, IsADirectoryError):
        directory = paths.blobs(digest.algorithm)
        if size > _LARGE:
            freed.callback(files.close, directory.open(digest.hex, files.READ))
        directory.unlink(digest.hex)
        return True
    return False


def _blobs(paths: StoreLayout, check: Check) -> Iterator[tuple[str, bytes]]:
    """Everything with the name of a blob, by names alone."""
    for algorithm, digits in HEX_DIGITS.items():
        listed = files.translated("list", f"{paths.root}/blobs/{algorithm}")
        with listed, suppress(FileNotFoundError), paths.blobs(algorithm).scan() as entries:
            for number, entry in enumerate(entries):
                if number % 1024 == 0:
                    check()
                if len(entry.name) == digits:
                    with suppress(ValueError):  # a foreign name
                        yield algorithm, bytes.fromhex(entry.name)


def _allocated(paths: StoreLayout, leased: Collection[bytes], check: Check) -> Iterator[tuple[bytes, int]]:
    """The bytes of disk that the deletion of each blob frees: none of one that is leased, or has another name, too."""
    for algorithm, digest in _blobs(paths, check):
        if digest not in leased:
            directory = paths.blobs(algorithm)
            with files.translated("stat", directory.path), suppress(FileNotFoundError):
                info = directory.stat(digest.hex())
                if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
                    yield digest, info.st_blocks * 512


def _size(paths: StoreLayout, algorithm: str, digest: bytes) -> int | None:
    """Bytes of a blob; None when it is none: something foreign, or deleted meanwhile."""
    directory = paths.blobs(algorithm)
    with files.translated("stat", directory.path), suppress(FileNotFoundError):
        info = directory.stat(digest.hex())
        return info.st_size if stat.S_ISREG(info.st_mode) else None
    return None
