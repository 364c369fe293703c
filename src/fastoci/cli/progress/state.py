"""The state of a job, added up from its events: what the bars and the log draw. No output, no clock of its own.

A blob counts once, whoever wants it: an image's part is what is here of the blobs it lacked, and the job's is that of
all their digests.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from fastoci import events
from fastoci.cli.progress.notes import note
from fastoci.cli.progress.rate import Rate

_OF_IMAGES: Final = (
    events.ImageStarted,
    events.ImageResolved,
    events.ImagePlanned,
    events.UnpackStarted,
    events.UnpackProgress,
    events.UnpackDone,
    events.UnpackSkipped,
    events.ImageDone,
    events.ImageFailed,
)
QUIET_S: Final = 1.0  # work that is over by then leaves its summary only


class Blob(msgspec.Struct):
    """A blob that some image lacks."""

    digest: str
    size: int
    rate: Rate
    image: str = ""  # the first that asked for it
    start: int = 0  # bytes that an earlier attempt left
    here: int = 0  # bytes that are here now
    other: bool = False  # another process fetches it
    flying: bool = False
    done: bool = False

    @property
    def received(self) -> int:
        """Bytes that came over the network in this job."""
        return 0 if self.other else max(0, self.here - self.start)


class Image(msgspec.Struct):
    """One image: what it needs and how far it is."""

    name: str
    started: float
    rate: Rate
    plan: events.ImagePlanned | None = None
    blobs: dict[str, Blob] = {}  # what it lacks; without a plan, what it asked for first
    fetched: float = 0.0  # when its last blob was here
    unpack: events.UnpackStarted | None = None
    unpacked: events.UnpackProgress | None = None
    ended: bool = False
    failed: bool = False
    note: str = ""  # of trouble, until there is progress
    noted: str = ""  # the blob that the note is of; empty for what a tag names

    @property
    def active(self) -> bool:
        """Whether there is something to wait for."""
        return not self.ended or self.unpack is not None

    @property
    def finished(self) -> int:
        """Blobs that are here."""
        return sum(blob.done for blob in self.blobs.values())

    @property
    def own(self) -> list[Blob]:
        """The blobs that came since this image was the first to ask for them."""
        return [blob for blob in self.blobs.values() if blob.done and blob.image == self.name]


class ProgressState(msgspec.Struct):
    """All images and blobs, in the order in which they came."""

    images: dict[str, Image] = {}
    blobs: dict[str, Blob] = {}
    retries: int = 0
    lost: int = 0  # bytes that came over the network and count for no blob any more
    rate: Rate | None = None

    def see(self, event: events.Event, now: float) -> None:
        """Take one event into account."""
        match event:
            case events.BlobStarted():
                blob = self._begin(event.blob, event.image, event.size, now)
                blob.start = blob.here = event.offset
                blob.other = False
            case events.BlobWaiting():
                blob = self._begin(event.blob, event.image, event.size, now)
                blob.start = blob.here = 0
                blob.other = True
            case events.BlobProgress():
                if (known := self.blobs.get(event.blob)) is not None:
                    self._move(known, max(known.here, event.offset))
            case events.BlobReceived():
                if (known := self.blobs.get(event.blob)) is not None:
                    self._move(known, event.size)
            case events.BlobDone():
                if (known := self.blobs.get(event.blob)) is not None:
                    self._move(known, event.size)
                    known.flying, known.done = False, True
                    for image in self.images.values():
                        if event.blob in image.blobs:
                            image.fetched = now
            case events.BlobFailed():
                if (known := self.blobs.get(event.blob)) is not None:
                    self.lost += known.received
                    known.here = known.start = 0
                    known.flying = False
            case (
                events.Retrying()
                | events.FirstByteAwaited()
                | events.CandidateSwitched()
                | events.FetchResumed()
                | events.FetchDuplicated()
            ):
                self.retries += isinstance(event, events.Retrying)
                if (troubled := self.images.get(event.image)) is not None:
                    troubled.note, troubled.noted = note(event), event.blob
                    if isinstance(event, events.FetchDuplicated) and not event.server and not event.offset:
                        self._lack(troubled, event.blob, event.size, now)  # the store's is damaged
            case _ if isinstance(event, _OF_IMAGES):
                self._see_image(event, self._image(event.image, now), now)

    def active(self) -> list[Image]:
        """The images that are not done."""
        return [image for image in self.images.values() if image.active]

    def flying(self) -> list[Blob]:
        """The blobs that come just now."""
        return [blob for blob in self.blobs.values() if blob.flying]

    def extent(self) -> tuple[int, int]:
        """Bytes that are here of what images lacked at first, and all of them, each blob once.

        What only images lack that have ended counts as far as it is here: no more of it will come.
        """
        wanted = {digest for image in self.images.values() if not image.ended for digest in image.blobs}
        lacked = {digest for image in self.images.values() for digest in image.blobs}
        here = sum(min(self.blobs[digest].here, self.blobs[digest].size) for digest in lacked)
        rest = sum(max(0, self.blobs[digest].size - self.blobs[digest].here) for digest in wanted)
        return here, here + rest

    @property
    def received(self) -> int:
        """Bytes that came over the network in this job."""
        return self.lost + received(self.blobs.values())

    def measure(self, now: float) -> None:
        """Measure the rates, now."""
        if self.rate is not None:
            self.rate.add(now, self.received)
        for blob in self.flying():
            blob.rate.add(now, blob.received)
        for image in self.images.values():
            if image.active:
                image.rate.add(now, received(image.blobs.values()))

    def _see_image(self, event: events.Event, image: Image, now: float) -> None:
        match event:
            case events.ImagePlanned():
                image.plan, image.note = event, ""
                for digest, size in event.missing.items():
                    self._lack(image, digest, size, now)
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
                image.ended, image.failed, image.unpack, image.note = True, True, None, ""

    def _image(self, name: str, now: float) -> Image:
        if name not in self.images:
            self.images[name] = Image(name, now, Rate(now))
            self.rate = self.rate or Rate(now)
        return self.images[name]

    def _lack(self, image: Image, digest: str, size: int, now: float) -> None:
        image.blobs[digest] = self.blobs.setdefault(digest, Blob(digest, size, Rate(now)))

    def _begin(self, digest: str, name: str, size: int, now: float) -> Blob:
        """A blob takes off; an image without a plan, as in a repair, lacks what it asks for."""
        blob, image = self.blobs.setdefault(digest, Blob(digest, size, Rate(now))), self._image(name, now)
        self.lost += blob.received
        blob.flying, blob.done, blob.image, blob.rate = True, False, blob.image or name, Rate(now)
        if image.plan is None:
            image.blobs[digest] = blob
        return blob

    def _move(self, blob: Blob, here: int) -> None:
        image = self.images.get(blob.image)
        if image is not None and here > blob.here and image.noted == blob.digest:
            image.note = ""
        blob.here = here


def received(blobs: Collection[Blob]) -> int:
    """Bytes of these blobs that came over the network."""
    return sum(blob.received for blob in blobs)


def extent(image: Image) -> tuple[int, int]:
    """Bytes that are here of what the image lacked at first, and all of them."""
    blobs = image.blobs.values()
    return sum(min(blob.here, blob.size) for blob in blobs), sum(blob.size for blob in blobs)


def unpacked(image: Image) -> tuple[int, int]:
    """Compressed bytes that have become files, and all of them; 0 when their number is not known."""
    return image.unpacked.size if image.unpacked else 0, image.unpack.size if image.unpack else 0


def left_s(done: int, total: int, rate: float) -> float | None:
    """Seconds until all is here at this rate; None when that cannot be said."""
    return (total - done) / rate if rate > 0 and total > done else None


def short_names(names: Collection[str]) -> dict[str, str]:
    """The ends of references or paths, each as short as it can be while they differ."""
    short: dict[str, str] = {}
    parts = {name: name.rstrip("/").split("/") for name in names}
    for count in range(1, max(map(len, parts.values()), default=0) + 1):
        ends: dict[str, list[str]] = {}
        for name in names:
            if name not in short:
                ends.setdefault("/".join(parts[name][-count:]), []).append(name)
        short.update({alike[0]: end for end, alike in ends.items() if len(alike) == 1})
    return {name: short.get(name, name) or name for name in names}
