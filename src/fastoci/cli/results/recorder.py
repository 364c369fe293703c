"""What the events of a job say of it: bytes and retries by registry, and how far each image and blob is.

An image is its registry's by the name that it was asked for, whatever mirror answers. What is counted goes on over the
runs of a process, the rest is of the last one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fastoci import PrefetchRequest, PrefetchResult, Reference, events
from fastoci.errors import FastociError


class SeenImage(msgspec.Struct):
    """One image of a run, as far as it is."""

    request: PrefetchRequest
    registry: str
    digest: str = ""
    size: int = 0
    fetched: int = 0
    lacks: set[str] = set()
    ended: float | None = None
    failure: events.ImageFailed | None = None
    recorded: events.ImageRecorded | None = None

    @property
    def is_there(self) -> bool:
        """All of it is in the store, under its name."""
        return self.ended is not None and self.failure is None


class SeenBlob(msgspec.Struct):
    """One blob that was begun in a run. Times are seconds from the beginning of the run."""

    size: int
    image: str
    registry: str
    began: float
    here: int = 0
    elsewhere: bool = False  # another process fetches it
    ended: float | None = None
    error: str = ""


class Recorder:
    """An observer of one run after the other.

    Args:
        clock: seconds, for times within a run.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.received: Counter[str] = (
            Counter()
        )  # bytes that came over the network, by registry; those that were lost too
        self.retries: Counter[str] = Counter()  # by registry
        self.last_success: tuple[float, float] | None = (
            None  # when it ended, seconds since the epoch, and how long it took
        )
        self.store_size: int | None = None  # when it was last measured
        self.begin(())

    def begin(self, requests: Iterable[PrefetchRequest], store: Path | None = None) -> None:
        """A new run, of these images into this store."""
        self.store = store
        self.ended_by = ""  # what ended the run before its end: the class of an error, or ``interrupted``
        self._began = self._clock()
        self.began_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.run_received: Counter[str] = Counter()
        self.run_retries: Counter[str] = Counter()
        self.images: dict[str, SeenImage] = {}
        self.blobs: dict[str, SeenBlob] = {}
        self._known: set[str] = set()
        self.result: PrefetchResult | None = None  # when the run was done to its end
        for request in requests:
            self._expect(request)

    def _expect(self, request: PrefetchRequest) -> None:
        key, registry = _identity(request.reference)
        if key not in self._known:
            self._known.add(key)
            self.images[request.reference] = SeenImage(request, registry)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._clock() - self._began

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.BlobStarted() | events.BlobWaiting():
                self._begin_blob(event)
            case events.BlobProgress() | events.BlobReceived() | events.BlobDone() | events.BlobFailed():
                if (blob := self.blobs.get(event.blob)) is not None:
                    self._see_blob(blob, event)
            case events.Retrying():
                registry = self._registry(event.image)
                self.retries[registry] += 1
                self.run_retries[registry] += 1
            case events.ImageStarted() if event.image not in self.images:  # of a rule for tags
                self._expect(PrefetchRequest(event.image))
            case events.ImagePlanned() | events.ImageDone() | events.ImageRecorded() | events.ImageFailed():
                if (image := self.images.get(event.image)) is not None:
                    self._see_image(image, event)

    def _registry(self, name: str) -> str:
        image = self.images.get(name)
        return image.registry if image is not None else _identity(name)[1]

    def _begin_blob(self, event: events.BlobStarted | events.BlobWaiting) -> None:
        blob = self.blobs.get(event.blob)
        registry = self._registry(event.image)
        if blob is None:
            blob = self.blobs[event.blob] = SeenBlob(event.size, event.image, registry, self.seconds)
        blob.registry, blob.ended, blob.error = registry, None, ""
        blob.elsewhere = isinstance(event, events.BlobWaiting)
        blob.here = event.offset if isinstance(event, events.BlobStarted) else 0

    def _see_blob(
        self, blob: SeenBlob, event: events.BlobProgress | events.BlobReceived | events.BlobDone | events.BlobFailed
    ) -> None:
        match event:
            case events.BlobProgress():
                self._move(blob, max(blob.here, event.offset))
            case events.BlobReceived():
                self._move(blob, event.size)
            case events.BlobDone():
                self._move(blob, event.size)
                blob.ended = self.seconds
                if (image := self.images.get(blob.image)) is not None and event.blob in image.lacks:
                    image.fetched += blob.size
            case events.BlobFailed():
                blob.ended, blob.error = self.seconds, event.error

    def _move(self, blob: SeenBlob, here: int) -> None:
        """What is given up comes again, and counts again."""
        came, blob.here = here - blob.here, here
        if came > 0 and not blob.elsewhere:
            self.received[blob.registry] += came
            self.run_received[blob.registry] += came

    def _see_image(
        self,
        image: SeenImage,
        event: events.ImagePlanned | events.ImageDone | events.ImageRecorded | events.ImageFailed,
    ) -> None:
        match event:
            case events.ImagePlanned():
                image.size += event.size
                image.lacks = image.lacks | event.missing.keys()
                image.digest = image.digest or event.digest
            case events.ImageRecorded():
                image.recorded = event
            case events.ImageDone():
                image.digest, image.ended = event.digest, self.seconds
            case events.ImageFailed() if event.kind != "cancelled":  # which is none of the image's own
                image.failure, image.ended = event, self.seconds


def _identity(name: str) -> tuple[str, str]:
    """What is the same for all spellings of an image's name, and its registry; empty when it is no name."""
    try:
        reference = Reference.parse(name)
    except FastociError:
        return name, ""
    return str(reference), reference.domain
