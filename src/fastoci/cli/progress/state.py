"""The state of a job, added up from its events: what the bars and the log draw. No output, no clock of its own.

A blob counts once, whoever wants it: an image's part is what is here of the blobs it lacked, and the job's is that of
all their digests. The sums of the job are kept with each event, and cost no walk over its images.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from fastoci import events
from fastoci.cli.progress.notes import Trouble, note
from fastoci.cli.progress.rate import Rate

QUIET_S: Final = 1.0  # work that is over by then leaves its summary only
MANY: Final = 8  # images with lines of their own; beyond, one line tells of all

_OfImage = (
    events.ImageStarted
    | events.ImageResolved
    | events.ImagePlanned
    | events.UnpackStarted
    | events.UnpackProgress
    | events.UnpackDone
    | events.UnpackSkipped
    | events.ImageDone
    | events.ImageFailed
)


_STILL: Final = Rate(0.0)  # of what does not move: of a hundred thousand images few do at a time


class Blob(msgspec.Struct):
    """A blob that some image lacks."""

    digest: str
    size: int
    rate: Rate = _STILL
    image: str = ""  # the first that asked for it
    images: list[str] = []  # all that lack it
    wanted: int = 0  # how many of them have not ended
    began: float = 0.0
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
    rate: Rate = _STILL
    planned: bool = False
    blobs: dict[str, Blob] = {}  # what it lacks; without a plan, what it asked for first
    flying: int = 0  # of the blobs that it asked for first
    busy: float | None = None  # since when something is done for it
    idle: float | None = None  # since when that is nothing
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


class Job(msgspec.Struct):
    """Many images that are wanted together."""

    images: int
    began: float
    resolved: int = 0  # names that were followed to something
    is_planned: bool = False
    is_done: bool = False


class ProgressState(msgspec.Struct):
    """All images and blobs, in the order in which they came."""

    images: dict[str, Image] = {}
    blobs: dict[str, Blob] = {}
    job: Job | None = None
    failed: int = 0  # images
    came: int = 0  # blobs
    retries: int = 0
    rate: Rate | None = None
    received: int = 0  # bytes that came over the network, those included that were lost
    now: float = 0.0
    here: int = 0
    total: int = 0
    landed: int = 0  # blobs that images lacked
    missing: int = 0  # and those that are to come
    landing: Rate | None = None
    flights: dict[str, Blob] = {}
    work: dict[str, Image] = {}  # the images that are not done
    busy: dict[str, Image] = {}  # those of them for which something is being done, in the order of its begin

    @property
    def is_large(self) -> bool:
        """Whether there are too many images for lines of their own."""
        return self.job is not None and self.job.images > MANY

    @property
    def number(self) -> int:
        """The images there are to bring."""
        return len(self.images) if self.job is None else max(self.job.images, len(self.images))

    @property
    def ready(self) -> int:
        """The images that are there."""
        return len(self.images) - len(self.work) - self.failed

    @property
    def since(self) -> float | None:
        """When that began which is not over; None when nothing is under way."""
        if self.job is not None and not self.job.is_done:
            return self.job.began
        return min((image.started for image in self.work.values()), default=None)

    def see(self, event: events.Event, now: float) -> None:
        """Take one event into account."""
        self.now = now
        match event:
            case events.BlobStarted():
                self._begin(event, now, event.offset, other=False)
            case events.BlobWaiting():
                self._begin(event, now, 0, other=True)
            case events.BlobProgress():
                if (known := self.blobs.get(event.blob)) is not None:
                    self._move(known, max(known.here, event.offset))
            case events.BlobReceived():
                if (known := self.blobs.get(event.blob)) is not None:
                    self._move(known, event.size)
            case events.BlobDone() | events.BlobFailed():
                if (known := self.blobs.get(event.blob)) is not None:
                    self._land(known, event, now)
            case events.JobStarted():
                self._start_job(event, now)
            case events.JobPlanned() if self.job is not None:
                self.job.is_planned = True
            case events.JobDone() if self.job is not None:
                self.job.is_done = True
            case _ if isinstance(event, Trouble):
                self._trouble(event, now)
            case _ if isinstance(event, _OfImage):
                self._see_image(event, self._image(event.image, now), now)

    def active(self) -> list[Image]:
        """The images that are not done."""
        return list(self.work.values())

    def flying(self) -> list[Blob]:
        """The blobs that come just now."""
        return list(self.flights.values())

    def extent(self) -> tuple[int, int]:
        """Bytes that are here of what images lacked at first, and all of them, each blob once.

        What only images lack that have ended counts as far as it is here: no more of it will come.
        """
        return self.here, self.total

    def left_s(self) -> float | None:
        """Seconds until all is here, by the bytes that come in a second or by the blobs; None when unknown.

        Small blobs take as long for few bytes as the registry takes to answer.
        """
        if self.rate is None or self.landing is None:
            return None
        by_bytes = left_s(self.here, self.total, self.rate.per_s)
        return by_bytes and max(by_bytes, left_s(0, self.missing, self.landing.per_s) or 0.0)

    def measure(self, now: float) -> None:
        """Measure the rates, now."""
        self.now = now
        if self.rate is not None and self.landing is not None:
            self.rate.add(now, self.received)
            self.landing.add(now, self.landed)
        for blob in self.flights.values():
            blob.rate.add(now, blob.received)
        for image in list(self.busy.values()):
            if image.idle is not None and now - image.idle >= QUIET_S:
                self._rest(image)
            else:
                image.rate.add(now, received(image.blobs.values()))

    def _start_job(self, event: events.JobStarted, now: float) -> None:
        """Begin anew; what an earlier job brought stays in the sums of all."""
        for sums in (self.images, self.blobs, self.flights, self.work, self.busy):
            sums.clear()
        self.failed = self.here = self.total = self.missing = 0
        self.job = Job(event.images, now)
        self.rate, self.landing = Rate(now, self.received), Rate(now, self.landed)

    def _see_image(self, event: events.Event, image: Image, now: float) -> None:
        match event:
            case events.ImageStarted():
                self._revive(image)
            case events.ImageResolved():
                image.note = ""
                if self.job is not None:
                    self.job.resolved += 1
                self._rest(image)
            case events.ImagePlanned():
                image.planned, image.note = True, ""
                for digest, size in event.missing.items():
                    self._lack(image, digest, size)
                if self.job is not None:  # it waits for its turn
                    self._rest(image)
            case events.UnpackStarted():
                image.unpack, image.unpacked = event, None
                self._work(image, now)
            case events.UnpackProgress():
                image.unpacked = event
            case events.UnpackDone():
                image.unpack = None
                if not image.planned:  # layers of no image
                    self._end(image)
            case events.ImageDone():
                self._end(image)
            case events.ImageFailed():
                image.unpack = None
                if not image.failed and event.kind != "skipped":
                    image.failed, self.failed = True, self.failed + 1
                self._end(image)
        self._settle(image, now)

    def _settle(self, image: Image, now: float) -> None:
        """Sort an image among those that are done, and those for which nothing is done just now."""
        if not image.active:
            self.work.pop(image.name, None)
            self._rest(image)
            return
        self.work[image.name] = image
        if image.flying or image.unpack is not None:
            image.idle = None
        elif self.job is not None and image.planned and image.busy is not None:
            image.idle = now

    def _image(self, name: str, now: float) -> Image:
        if name not in self.images:
            image = self.images[name] = self.work[name] = Image(name, now)
            self.rate, self.landing = self.rate or Rate(now), self.landing or Rate(now)
            self._work(image, now)
        return self.images[name]

    def _work(self, image: Image, now: float) -> None:
        if image.busy is None:
            image.busy, image.rate = now, Rate(now, received(image.blobs.values()))
            self.busy[image.name] = image

    def _rest(self, image: Image) -> None:
        image.busy = image.idle = None
        image.rate = _STILL
        self.busy.pop(image.name, None)

    def _end(self, image: Image) -> None:
        image.note = ""
        if not image.ended:
            image.ended = True
            self._want(image, -1)

    def _revive(self, image: Image) -> None:
        """An image that was asked for before is asked for again."""
        if image.failed:
            image.ended = image.failed = False
            self.failed -= 1
            self._want(image, 1)

    def _want(self, image: Image, more: int) -> None:
        for blob in image.blobs.values():
            self._count(blob, -1)
            blob.wanted += more
            self._count(blob, 1)

    def _lack(self, image: Image, digest: str, size: int) -> None:
        blob = self.blobs.get(digest) or self.blobs.setdefault(digest, Blob(digest, size))
        if blob.digest not in image.blobs:
            self._count(blob, -1)
            image.blobs[blob.digest] = blob
            blob.images.append(image.name)
            blob.wanted += not image.ended
            self._count(blob, 1)

    def _count(self, blob: Blob, sign: int) -> None:
        """Add a blob to the sums, or take it out while it changes."""
        self.received += sign * blob.received
        if blob.images:
            here = min(blob.here, blob.size)
            self.here += sign * here
            self.total += sign * (blob.size if blob.wanted else here)
            self.missing += sign * (blob.wanted > 0 and not blob.done)

    def _begin(self, event: events.BlobStarted | events.BlobWaiting, now: float, offset: int, *, other: bool) -> None:
        """A blob takes off; an image without a plan, as in a repair, lacks what it asks for."""
        blob = self.blobs.setdefault(event.blob, Blob(event.blob, event.size))
        image = self._image(event.image, now)
        if not image.planned:
            self._lack(image, event.blob, event.size)
        self._leave(blob, now)
        self.received += blob.received  # lost, and not taken out below
        self._count(blob, -1)
        if not blob.image or self.images[blob.image].ended:
            blob.image = image.name
        blob.start = blob.here = offset
        blob.other, blob.flying, blob.began, blob.rate = other, True, now, Rate(now)
        self.came -= blob.done
        self.landed -= blob.done and bool(blob.images)
        blob.done = False
        self._count(blob, 1)
        self.flights[blob.digest] = blob
        asker = self.images[blob.image]
        asker.flying += 1
        if asker.active:
            self._work(asker, now)
            asker.idle = None

    def _land(self, blob: Blob, event: events.BlobDone | events.BlobFailed, now: float) -> None:
        self._leave(blob, now)
        if isinstance(event, events.BlobFailed):
            self.received += blob.received  # lost
            self._count(blob, -1)
            blob.here = blob.start = 0
            self._count(blob, 1)
            return
        self._move(blob, event.size)
        self._count(blob, -1)
        self.came += not blob.done
        self.landed += bool(blob.images) and not blob.done
        blob.done = True
        self._count(blob, 1)
        for name in blob.images:
            self.images[name].fetched = now

    def _leave(self, blob: Blob, now: float) -> None:
        """The blob flies no more."""
        if blob.flying:
            blob.flying, blob.rate = False, _STILL
            self.flights.pop(blob.digest, None)
            asker = self.images[blob.image]
            asker.flying -= 1
            self._settle(asker, now)

    def _move(self, blob: Blob, here: int) -> None:
        image = self.images.get(blob.image)
        if image is not None and here > blob.here and image.noted == blob.digest:
            image.note = ""
        self._count(blob, -1)
        blob.here = here
        self._count(blob, 1)

    def _trouble(self, event: Trouble, now: float) -> None:
        self.retries += isinstance(event, events.Retrying)
        image = self.images.get(event.image)
        if image is None:
            return
        image.note, image.noted = note(event), event.blob
        if isinstance(event, events.FetchDuplicated) and not event.server and not event.offset:
            self._lack(image, event.blob, event.size)  # the store's is damaged


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
