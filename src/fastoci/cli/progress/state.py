"""The state of a job, added up from its events: what the bars and the log draw. No output, no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fastoci import events
from fastoci.cli.formatting import fraction, plain, plural, size
from fastoci.cli.progress.notes import note

QUIET_S: Final = 1.0  # work that is over by then leaves its summary only


_SCARCE = 0.1  # of a quota: below that it is shown


@dataclass(slots=True)
class Blob:
    """A blob under way: ``offset`` of ``size`` bytes are in the store."""

    digest: str
    image: str
    size: int
    offset: int
    other: bool = False  # another process fetches it


@dataclass(slots=True)
class Image:
    """One image: what it needs and how far it is. Shared blobs count for the image that asked first."""

    name: str
    started: float
    plan: events.ImagePlanned | None = None
    done: int = 0  # bytes of what was absent that are in the store
    received: int = 0  # those that came in this job
    blobs: int = 0  # finished
    fetched: float = 0.0  # when the last one was
    unpack: events.UnpackStarted | None = None
    unpacked: events.UnpackProgress | None = None
    ended: bool = False
    rate: float = 0.0  # bytes a second between the last two marks
    marked: tuple[float, int] = (0.0, 0)  # when, and ``received`` then
    note: str = ""  # of trouble, until there is progress
    noted: str = ""  # the blob that the note is of; empty for what a tag names

    @property
    def active(self) -> bool:
        """Whether there is something to wait for."""
        return not self.ended or self.unpack is not None

    def count(self, now: float) -> None:
        """One more blob is finished; manifests, which come last, are in no plan."""
        if self.plan is None or self.blobs < self.plan.missing_blobs:
            self.blobs, self.fetched = self.blobs + 1, now

    def mark(self, now: float) -> None:
        """Measure the rate since the last mark."""
        then, before = self.marked
        if now > then:
            self.rate = (self.received - before) / (now - then)
            self.marked = (now, self.received)


@dataclass(slots=True)
class ProgressState:
    """All images and the blobs in flight, in the order in which they came."""

    images: dict[str, Image] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)

    def see(self, event: events.Event, now: float) -> None:
        """Take one event into account."""
        match event:
            case events.BlobStarted():
                self._move(event.blob, 0)
                self.blobs[event.blob] = Blob(event.blob, event.image, event.size, event.offset)
                self._image(event.image, now).done += event.offset
            case events.BlobWaiting():
                self._move(event.blob, 0)
                self.blobs[event.blob] = Blob(event.blob, event.image, event.size, 0, other=True)
            case events.BlobProgress():
                self._move(event.blob, event.offset)
            case events.BlobDone():
                self._move(event.blob, event.size)
                if (blob := self.blobs.pop(event.blob, None)) is not None:
                    self.images[blob.image].count(now)
            case events.BlobFailed():
                self._move(event.blob, 0)
                self.blobs.pop(event.blob, None)
            case events.Warned() | events.QuotaSeen() | events.VerifyProgress() | events.ConnectionLimitChanged():
                pass
            case events.Retrying() | events.CandidateSwitched() | events.FetchResumed() | events.FetchDuplicated():
                if (image := self.images.get(event.image)) is not None:
                    image.note, image.noted = note(event), event.blob
            case _:
                self._see_image(event, self._image(event.image, now))

    def active(self) -> list[Image]:
        """The images that are not done."""
        return [image for image in self.images.values() if image.active]

    def mark(self, now: float) -> None:
        """Measure the rates of all images since their last marks."""
        for image in self.images.values():
            image.mark(now)

    def _see_image(self, event: events.Event, image: Image) -> None:
        match event:
            case events.ImagePlanned():
                image.plan, image.note = event, ""
            case events.UnpackStarted():
                image.unpack, image.unpacked = event, None
            case events.UnpackProgress():
                image.unpacked = event
            case events.UnpackDone():
                image.unpack = None
                image.ended = image.ended or image.plan is None  # layers of no image
            case events.ImageDone():
                image.ended, image.note = True, ""
            case events.ImageFailed():
                image.ended, image.unpack, image.note = True, None, ""

    def _image(self, name: str, now: float) -> Image:
        if name not in self.images:
            self.images[name] = Image(name, now, marked=(now, 0))
        return self.images[name]

    def _move(self, digest: str, offset: int) -> None:
        blob = self.blobs.get(digest)
        if blob is None:
            return
        image = self.images[blob.image]
        if offset > blob.offset and image.noted == digest:
            image.note = ""
        image.done += offset - blob.offset
        if not blob.other:
            image.received = max(0, image.received + offset - blob.offset)
        blob.offset = offset


def fetching(image: Image) -> str:
    """``12 of 40 MB, 3 of 8 blobs, 24 MB/s``; empty when nothing is left to fetch."""
    plan = image.plan
    if plan is None:
        return "" if image.unpack is not None else "asking the registry"
    if image.ended or image.blobs >= plan.missing_blobs:
        return ""
    blobs = f"{image.blobs} of {plural(plan.missing_blobs, 'blob')}"
    return f"{fraction(image.done, plan.missing_size)}, {blobs}, {size(image.rate)}/s"


def unpacking(image: Image) -> str:
    """``unpacking 9.0 of 60 MB, 2 of 8 layers``; empty when nothing is being unpacked."""
    if image.unpack is None:
        return ""
    layers = f"{image.unpacked.layers if image.unpacked else 0} of {plural(image.unpack.layers, 'layer')}"
    done, total = unpacked(image)
    return f"unpacking {fraction(done, total) if total else size(done)}, {layers}"


def unpacked(image: Image) -> tuple[int, int]:
    """Compressed bytes that have become files, and all of them; 0 when their number is not known."""
    return image.unpacked.size if image.unpacked else 0, image.unpack.size if image.unpack else 0


def state(image: Image) -> str:
    """What is being done for an image, and how far that is, without its name."""
    return ", ".join(filter(None, [fetching(image), unpacking(image)])) or "finishing"


def extent(job: ProgressState) -> tuple[int, int]:
    """Bytes that are in the store now, and that were absent at first, as far as this is known.

    What images share is in the plan of each: an image that ended counts with what came for itself.
    """
    planned = [(image, image.plan) for image in job.images.values() if image.plan is not None]
    total = sum(image.done if image.ended else plan.missing_size for image, plan in planned)
    return sum(image.done for image, _ in planned), total


def overview(job: ProgressState) -> str:
    """One line on all images of the job."""
    ended = len(job.images) - len(job.active())
    rate = sum(image.rate for image in job.images.values())
    return f"{ended} of {plural(len(job.images), 'image')}, {fraction(*extent(job))}, {size(rate)}/s"


def summary(event: events.Event, job: ProgressState) -> str:
    """The line that remains of an image, an unpacking, a quota that runs out or a warning.

    Empty for other events.
    """
    match event:
        case events.ImageDone():
            name, image = plain(event.image), job.images[event.image]
            if not image.blobs:
                return f"{name}: nothing to fetch, {plain(event.digest)}"
            elapsed = max(image.fetched - image.started, 1e-3)  # an unpack may have gone on for longer
            text = f"{size(image.received)} in {plural(image.blobs, 'blob')}, {elapsed:.{2 if elapsed < 10 else 0}f} s"
            return f"{name}: {text}, {size(image.received / elapsed)}/s, {plain(event.digest)}"
        case events.UnpackDone():
            text = f"{plural(event.entries, 'entry')}, {size(event.size)} unpacked into {plain(event.root)}"
            skipped = ", ".join(f"{count} {plain(kind)}" for kind, count in event.skipped.items() if count)
            return f"{plain(event.image)}: {text}" + (f"; not applied: {skipped}" if skipped else "")
        case events.UnpackSkipped():
            there = f"{plain(event.root)} holds this image already (its files were not looked at)"
            return f"{plain(event.image)}: nothing to unpack, {there}"
        case events.QuotaSeen() if event.remaining <= (event.limit or 0) * _SCARCE:
            total = "" if event.limit is None else f" of {event.limit}"
            window = "" if event.window_s is None else f" in {event.window_s} s"
            return f"{plain(event.host)}: {event.remaining}{total} requests left{window}"
        case events.VerifyProgress():
            return f"{plural(event.blobs, 'blob')} hashed, {size(event.size)}"
        case events.Warned():
            return (f"{plain(event.image)}: " if event.image else "") + f"warning: {plain(event.message)}"
    return ""
