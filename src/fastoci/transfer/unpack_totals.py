"""The running totals of one unpack over its layers: what is left of the limits, and the events about it.

Reads and extracts nothing: its writers and stagers count. Bounds that hold for every image are here, those that a user
may set are ``Limits``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from fastoci.errors import LimitError
from fastoci.events import Observer, UnpackDone, UnpackProgress
from fastoci.limits import Limits
from fastoci.unpack.layer import LayerStager, LayerWriter

_HEADERS = 8 << 10  # bytes of tar beside the content that an entry may take on average
_PADDING = 64 << 20  # and more that belong to no entry

# What compressed bytes may ask for. gzip cannot do more than 1032:1; an entry whose name is its own takes 20 bytes.
_TAR_RATIO, _TAR_FREE = 1100, 4 << 30
_ENTRY, _ENTRIES_FREE = 8, 250_000

if TYPE_CHECKING:
    from fastoci.unpack.losses import Notes, Settled

S = TypeVar("S", LayerWriter, LayerStager)


def tar_limit(read: int) -> int:
    """Bytes of tar that so many compressed bytes may become."""
    return _TAR_FREE + _TAR_RATIO * read


class CountingSink(Protocol):
    """What is asked of a layer's sink: as ``LayerWriter`` has it."""

    @property
    def entries(self) -> int:
        """Entries read so far."""

    @property
    def bytes(self) -> int:
        """Bytes of file content so far."""

    @property
    def size(self) -> int:
        """These, and what else counts for ``max_bytes``."""

    @property
    def skipped(self) -> dict[str, int]:
        """How many owners, devices and xattrs could not be given."""


C = TypeVar("C", bound=CountingSink)


class UnpackTotals:
    """Counts over the layers of one unpack; several layers may be under way.

    Args:
        base: the root holds something already, below the lowest layer.
        owners: files are given to the owners that entries name.
        notes: where it is noted what files are not given; None: nowhere.
    """

    def __init__(
        self, limits: Limits, image: str, observer: Observer, *, base: bool, owners: bool, notes: Notes | None = None
    ) -> None:
        self._notes = notes
        self._base = base
        self._owners = owners
        self._limits = limits
        self._image = image
        self._observe = observer
        self._layers = 0
        self._tar = 0  # bytes of tar over all layers
        self._read: dict[int, int] = {}  # compressed bytes of each layer that has begun
        self._sinks: dict[int, CountingSink] = {}  # what counts the entries of each

    def writer(self, number: int, root_fd: int, name: str) -> LayerWriter:
        """The writer of a layer below which all is complete, with what the limits leave it."""
        entries, size = self._left(number)
        base = self._base or number > 0
        writer = LayerWriter(
            root_fd,
            name=name,
            base=base,
            owners=self._owners,
            max_entries=entries,
            max_bytes=size,
            max_directories=self._limits.layer_directories,
        )
        return self._begun(number, writer)

    def stager(self, number: int, directory_fd: int, name: str) -> LayerStager:
        """What makes a layer's files aside, with what the limits leave it now."""
        entries, size = self._left(number)
        stager = LayerStager(directory_fd, name=name, owners=self._owners, max_entries=entries, max_bytes=size)
        return self._begun(number, stager)

    def counted(self, number: int, make: Callable[[int, int], C]) -> C:
        """Another sink of a layer, made with the entries and bytes that the limits leave it now."""
        sink = self._sinks[number] = make(*self._left(number))
        return sink

    def _begun(self, number: int, sink: S) -> S:
        if self._notes is not None:
            sink.note(self._notes)
        self._sinks[number] = sink
        return sink

    def progress(self, number: int, offset: int, size: int) -> LimitError | None:
        """``offset`` compressed bytes of a layer are on their way to files; an error when the whole is too large.

        Each layer has limits of its own; here they hold for layers that are made side by side, and for tar that makes
        no files.

        Args:
            size: bytes of tar since the last call.
        """
        self._read[number] = offset
        self._tar += size
        self._report()
        entries, content = self._totals()
        limit = self._limits.unpacked_size
        read = sum(self._read.values())
        if self._tar > tar_limit(read):
            return LimitError(
                f"{read} bytes become {self._tar} bytes of tar: more than {_TAR_FREE} + {_TAR_RATIO} each"
            )
        if entries > _ENTRIES_FREE + read // _ENTRY:
            return LimitError(f"{read} bytes hold {entries} entries: more than {_ENTRIES_FREE} and one each {_ENTRY}")
        if entries > self._limits.unpacked_entries:
            return LimitError(f"the layers hold more than {self._limits.unpacked_entries} entries (--max-entries)")
        if content > limit:
            return LimitError(f"the layers hold more than {limit} bytes of files (--max-unpacked)")
        if self._tar > limit + _HEADERS * entries + _PADDING:
            return LimitError(f"the layers are {self._tar} bytes of tar, too many for {limit} bytes of files")
        return None

    def layer_done(self, number: int, size: int) -> None:
        """A layer of ``size`` compressed bytes is in the tree."""
        self._layers += 1
        self._read[number] = size
        self._report()

    @property
    def left(self) -> int:
        """Bytes that may still be unpacked."""
        return max(0, self._limits.unpacked_size - self._totals()[1])

    def done(self, root: str, settled: Settled | None = None) -> int:
        """All layers are in the tree, and it is where it should be, and what it is not given has been told.

        Returns:
            bytes of files, those that higher layers replaced among them.
        """
        skipped: dict[str, int] = {}
        for sink in self._sinks.values():
            for kind, count in sink.skipped.items():
                skipped[kind] = skipped.get(kind, 0) + count
        if settled is not None:  # what is left in the end: layers name others, and some names twice
            skipped = {**settled.counts, "xattrs": settled.counts["xattrs"] + skipped.get("xattrs", 0)}
        devices = () if settled is None else settled.devices
        entries, size = self._totals()[0], sum(sink.bytes for sink in self._sinks.values())
        self._observe(
            UnpackDone(
                self._image, root, entries, size, {kind: count for kind, count in skipped.items() if count}, devices
            )
        )
        return size

    def _report(self) -> None:
        self._observe(UnpackProgress(self._image, self._layers, sum(self._read.values()), self._totals()[0]))

    def _totals(self) -> tuple[int, int]:
        sinks = self._sinks.values()
        return sum(sink.entries for sink in sinks), sum(sink.size for sink in sinks)

    def _left(self, number: int) -> tuple[int, int]:
        self._sinks.pop(number, None)  # the layer was made aside, and is counted again when it is moved
        entries, size = self._totals()
        return max(0, self._limits.unpacked_entries - entries), max(0, self._limits.unpacked_size - size)
