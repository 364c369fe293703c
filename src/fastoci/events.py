"""What happens during a job, as frozen values for whoever shows or records it.

An ``Observer`` is called on the event loop, in order; it must be quick and must not raise. Counts and sizes are bytes,
times are seconds of ``time.monotonic``. ``image`` is the reference as it was asked for, ``blob`` a digest.
"""

from __future__ import annotations

import logging
from typing import Protocol

import msgspec

from fastoci.arguments import expect_callable


class JobStarted(msgspec.Struct, frozen=True):
    """So many images are wanted as one job. What follows belongs to it, until ``JobDone`` or the next one."""

    images: int


class ImageStarted(msgspec.Struct, frozen=True):
    """Asked for; nothing is known of it yet."""

    image: str


class ImageResolved(msgspec.Struct, frozen=True):
    """Of a job: the name was followed to ``digest``. What the image lacks is known when the whole job is planned."""

    image: str
    digest: str


class ImagePlanned(msgspec.Struct, frozen=True):
    """Resolved: its blobs are known, and which of them are absent."""

    image: str
    digest: str
    platform: str
    blobs: int
    size: int  # all blobs
    missing: dict[str, int]  # the absent ones, with their sizes; other images may want some of them, too


class JobPlanned(msgspec.Struct, frozen=True):
    """Every name of a job was followed: ``images`` of them can come, and lack ``blobs`` together, each counted once."""

    images: int
    blobs: int
    size: int


class BlobStarted(msgspec.Struct, frozen=True):
    """A blob is being fetched, once for all images that want it, from ``offset`` on."""

    image: str  # the first that asked
    blob: str
    size: int
    offset: int


class BlobWaiting(msgspec.Struct, frozen=True):
    """Another process is fetching the blob; ``BlobProgress`` then tells how far that is."""

    image: str  # the first that asked
    blob: str
    size: int


class BlobProgress(msgspec.Struct, frozen=True):
    """``offset`` bytes of the blob are written, by this process or another."""

    blob: str
    offset: int


class BlobReceived(msgspec.Struct, frozen=True):
    """``size`` bytes of the blob are here: written, or in memory ahead of their turn.

    At most twice a second for a blob that comes from a registry; less than before when some of them were given up.
    """

    blob: str
    size: int


class BlobDone(msgspec.Struct, frozen=True):
    """Verified and in the store under its digest."""

    blob: str
    size: int


class BlobFailed(msgspec.Struct, frozen=True):
    """Given up; what can be used again was kept. ``kind`` and ``exit_code`` as for ``ImageFailed``."""

    blob: str
    error: str
    kind: str
    exit_code: int | None


class UnpackStarted(msgspec.Struct, frozen=True):
    """Layers are about to become files below ``root``."""

    image: str
    root: str
    layers: int
    size: int  # compressed


class UnpackProgress(msgspec.Struct, frozen=True):
    """``layers`` layers are complete; ``size`` compressed bytes have become ``entries`` entries."""

    image: str
    layers: int
    size: int
    entries: int


class UnpackDone(msgspec.Struct, frozen=True):
    """Every diff_id held, and the tree has its final name. ``skipped`` counts what could not be applied, by kind.

    ``devices`` are the first of those among them, by their paths.
    """

    image: str
    root: str
    entries: int
    size: int  # bytes of file content
    skipped: dict[str, int]
    devices: tuple[str, ...] = ()


class UnpackSkipped(msgspec.Struct, frozen=True):
    """A finished tree of the image with this manifest ``digest`` was there; its files were not looked at."""

    image: str
    root: str
    digest: str


class ImageDone(msgspec.Struct, frozen=True):
    """All blobs are there and the reference is recorded; ``digest`` is what the name points to, index or manifest."""

    image: str
    digest: str


class ImageRecorded(msgspec.Struct, frozen=True):
    """A namespace of containerd has the image, by these ``names``; ``digest`` is what they lead to.

    ``blobs`` counts its blobs and documents by the way they came: ``link``, ``reflink``, ``copy``, ``sent`` and
    ``present``. ``sent`` bytes went through containerd's socket; ``why`` says why there were no links, where there were
    none.
    """

    image: str
    namespace: str
    names: tuple[str, ...]
    digest: str
    blobs: dict[str, int]
    sent: int
    why: str


class ImageFailed(msgspec.Struct, frozen=True):
    """Given up with ``error``, an exception of the class ``kind``; ``cancelled`` and ``skipped`` have no exit code."""

    image: str
    error: str
    kind: str
    exit_code: int | None


class JobDone(msgspec.Struct, frozen=True):
    """A job is over: so many of its images were there before, came, failed, and were not tried any more."""

    present: int
    fetched: int
    failed: int
    skipped: int


class QuotaSeen(msgspec.Struct, frozen=True):
    """A registry says how many requests are left in ``window_s`` seconds; None where it does not say."""

    host: str
    remaining: int
    limit: int | None
    window_s: int | None


class Retrying(msgspec.Struct, frozen=True):
    """A request failed in a way that may pass: it is sent again in ``wait_s`` seconds, the server's own wish included.

    ``attempt`` of ``attempts`` tries without progress have failed; 0 when the request only waits since the server asked
    for a pause before. ``cause`` is short and holds no secret: ``503 Service Unavailable``, ``connection refused``.
    """

    image: str
    blob: str  # of a manifest or index, too; empty for what a tag names
    server: str  # which failed: https://mirror.local:5000/v2
    cause: str
    attempt: int
    attempts: int
    wait_s: float


class FirstByteAwaited(msgspec.Struct, frozen=True):
    """A server that is alive has not begun its answer for ``waited_s`` seconds: ``timeout_s`` are waited in all."""

    image: str
    blob: str  # of a manifest or index, too; empty for what a tag names
    server: str  # https://cache.local:5000/v2
    waited_s: float
    timeout_s: float


class CandidateSwitched(msgspec.Struct, frozen=True):
    """``server`` is slow, failed, cannot be reached, refused or sent wrong bytes: ``following`` is asked instead."""

    image: str
    blob: str  # of a manifest or index, too; empty for what a tag names
    server: str
    following: str
    reason: str


class ConnectionLimitChanged(msgspec.Struct, frozen=True):
    """So many connections to a server are worth having from now on.

    ``reason``: ``faster``, ``no gain``, ``not needed``, ``refused (429)``.
    """

    server: str  # https://mirror.local:5000
    connections: int
    previous: int
    reason: str


class FetchResumed(msgspec.Struct, frozen=True):
    """A body that was cut goes on at ``offset`` with a new request; ``cause`` cut it."""

    image: str
    blob: str
    server: str  # whose body it was
    offset: int
    cause: str


class FetchDuplicated(msgspec.Struct, frozen=True):
    """``size`` bytes of a blob, from ``offset`` on, are asked for once more, though they came or were under way."""

    image: str
    blob: str
    server: str  # whose bytes are lost; empty when they came from the store
    offset: int
    size: int
    reason: str


class VerifyProgress(msgspec.Struct, frozen=True):
    """So many blobs of a store are hashed again, and so many bytes."""

    blobs: int
    size: int


class Warned(msgspec.Struct, frozen=True):
    """Something the user should know, which stops nothing."""

    image: str
    message: str


Event = (
    JobStarted
    | ImageStarted
    | ImageResolved
    | ImagePlanned
    | JobPlanned
    | BlobStarted
    | BlobWaiting
    | BlobProgress
    | BlobReceived
    | BlobDone
    | BlobFailed
    | UnpackStarted
    | UnpackProgress
    | UnpackDone
    | UnpackSkipped
    | ImageDone
    | ImageRecorded
    | ImageFailed
    | JobDone
    | QuotaSeen
    | Retrying
    | FirstByteAwaited
    | CandidateSwitched
    | ConnectionLimitChanged
    | FetchResumed
    | FetchDuplicated
    | VerifyProgress
    | Warned
)


class Observer(Protocol):
    """Is called with each event, on the event loop, in order; must be quick, and must not raise."""

    def __call__(self, event: Event, /) -> object:
        """Take note of one event."""


class Watch:
    """An observer that may raise: it is not called from then on, and ``check`` raises why."""

    def __init__(self, observer: Observer | None) -> None:
        if observer is not None:
            expect_callable(observer, "observer")
        self._observer = observer
        self._error: Exception | None = None

    def __call__(self, event: Event) -> None:
        if self._observer is not None and self._error is None:
            try:
                self._observer(event)
            except Exception as error:
                self._error = error
                logging.getLogger(__name__).exception("the observer raised: it is not called again")

    def check(self) -> None:
        """Raise what the observer raised, once."""
        error, self._error = self._error, None
        if error is not None:
            raise RuntimeError(f"the observer raised {type(error).__name__}: {error}") from error
