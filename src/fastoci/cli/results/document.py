"""What became of a job, as one JSON document: the truth for machines, and all that the page shows.

These types are its schema: ``docs/prefetch-report.schema.json`` is made of them, docs/prefetch.md says what each field
is. Sizes are bytes, times are seconds from the beginning of the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from fastoci import Evicted, ImageOutcome, PrefetchResult, Pruned
from fastoci.cli import errors
from fastoci.cli.results.recorder import Recorder, SeenImage
from fastoci.events import ImageRecorded

VERSION: Final[Literal[1]] = 1

State = Literal["complete", "failed", "interrupted"]
Outcome = Literal["present", "fetched", "failed", "skipped", "unfinished"]


class Failure(msgspec.Struct, frozen=True):
    """The facts of an error."""

    message: str
    kind: str
    exit_code: int | None
    retryable: bool | None = None
    blob: str | None = None
    url: str | None = None
    tries: int | None = None
    elapsed_s: float | None = None


class PlanFigures(msgspec.Struct, frozen=True):
    """What the job was about to do."""

    images: int
    refused: int
    blobs: int
    size: int
    shared_size: int
    present_size: int
    missing_blobs: int
    missing_size: int
    by_registry: dict[str, int]
    requests: int
    free_size: int | None
    free_inodes: int | None
    needed_inodes: int


class RecordedReport(msgspec.Struct, frozen=True):
    """How an image came into a namespace of containerd."""

    namespace: str
    names: list[str]
    ways: dict[str, int]
    sent: int
    why: str


class ImageReport(msgspec.Struct, frozen=True):
    """One image."""

    reference: str
    origin: str
    outcome: Outcome
    digest: str
    size: int
    fetched: int
    seconds: float
    error: Failure | None
    containerd: RecordedReport | None


class BlobReport(msgspec.Struct, frozen=True):
    """One blob that was missing and was begun."""

    digest: str
    size: int
    registry: str
    began: float
    ended: float | None
    error: str
    images: list[int]


class RegistryReport(msgspec.Struct, frozen=True):
    """What came from one registry."""

    registry: str
    blobs: int
    size: int
    received: int
    retries: int


class EvictedReport(msgspec.Struct, frozen=True):
    """What made way for the job, so that as much as asked for stays free."""

    images: list[str]
    size: int
    error: Failure | None


class PrunedReport(msgspec.Struct, frozen=True):
    """What the list gave up."""

    removed: list[str]
    unpinned: list[str]
    in_containerd: list[str]
    withheld: str
    deleted_size: int
    error: Failure | None


class Document(msgspec.Struct, frozen=True):
    """All of it."""

    version: Literal[1]
    state: State
    exit_code: int
    began_at: str
    seconds: float
    error: Failure | None
    plan: PlanFigures | None
    registries: list[RegistryReport]
    images: list[ImageReport]
    blobs: list[BlobReport]
    evicted: EvictedReport | None
    pruned: PrunedReport | None


def text_of(document: Document) -> str:
    """The document on one line of ASCII."""
    return json.dumps(msgspec.to_builtins(document))


def schema() -> dict[str, Any]:
    """The JSON Schema of the document."""
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fastoci prefetch --report"}
    return found | msgspec.json.schema(Document)


def of_result(result: PrefetchResult, recorder: Recorder, exit_code: int) -> Document:
    """The document of a job that was done to its end."""
    users, sizes = _users(result)
    blobs = [
        BlobReport(
            blob.digest,
            blob.size,
            blob.registry,
            _rounded(blob.began),
            _rounded(blob.ended),
            blob.error,
            users.get(blob.digest, []),
        )
        for blob in result.blobs
    ]
    return Document(
        version=VERSION,
        state="complete",
        exit_code=exit_code,
        began_at=result.began_at,
        seconds=_rounded(result.seconds),
        error=None,
        plan=_figures(result, sum(sizes.values())),
        registries=_registries(blobs, recorder, result.plan.by_registry),
        images=[_image(image) for image in result.images],
        blobs=blobs,
        evicted=_evicted(result.evicted),
        pruned=_pruned(result.pruned),
    )


def of_run(recorder: Recorder, state: State, exit_code: int, error: Exception | None = None) -> Document:
    """The document of a job that ended before its end, by what its events said until then."""
    names = list(recorder.images)
    users: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        for digest in recorder.images[name].lacks:
            users.setdefault(digest, []).append(number)
    blobs = [
        BlobReport(
            digest,
            blob.size,
            blob.registry,
            _rounded(blob.began),
            None if blob.ended is None else _rounded(blob.ended),
            blob.error,
            users[digest],
        )
        for digest, blob in recorder.blobs.items()
        if digest in users  # and no manifest
    ]
    return Document(
        version=VERSION,
        state=state,
        exit_code=exit_code,
        began_at=recorder.began_at,
        seconds=_rounded(recorder.seconds),
        error=None if error is None else _failure(error),
        plan=None,
        registries=_registries(blobs, recorder, ()),
        images=[_seen(image, recorder.seconds) for image in recorder.images.values()],
        blobs=blobs,
        evicted=None,
        pruned=None,
    )


def _users(result: PrefetchResult) -> tuple[dict[str, list[int]], dict[str, int]]:
    """The images that need each blob, as their numbers in the document, and its size."""
    users: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for number, image in enumerate(result.plan.images):
        for blob in {blob.digest: blob for each in image.resolved for blob in each.blobs}.values():
            users.setdefault(str(blob.digest), []).append(number)
            sizes[str(blob.digest)] = blob.size
    return users, sizes


def _figures(result: PrefetchResult, blobs_size: int) -> PlanFigures:
    plan = result.plan
    return PlanFigures(
        images=len(plan.images),
        refused=len(plan.refused),
        blobs=plan.blobs,
        size=plan.size,
        shared_size=plan.shared_size,
        present_size=blobs_size - plan.missing_size,
        missing_blobs=len(plan.missing),
        missing_size=plan.missing_size,
        by_registry=dict(plan.by_registry),
        requests=plan.requests,
        free_size=plan.free_size,
        free_inodes=plan.free_inodes,
        needed_inodes=plan.needed_inodes,
    )


def _registries(blobs: Iterable[BlobReport], recorder: Recorder, planned: Iterable[str]) -> list[RegistryReport]:
    count, size = Counter[str](), Counter[str]()
    for blob in blobs:
        if blob.ended is not None and not blob.error:
            count[blob.registry] += 1
            size[blob.registry] += blob.size
    received, retries = recorder.run_received, recorder.run_retries
    return [
        RegistryReport(name, count[name], size[name], received[name], retries[name])
        for name in sorted({*planned, *count, *received, *retries})
    ]


def _evicted(evicted: Evicted) -> EvictedReport:
    return EvictedReport(
        images=list(evicted.images),
        size=sum(item.size for item in evicted.items),
        error=None if evicted.error is None else _failure(evicted.error),
    )


def _pruned(pruned: Pruned) -> PrunedReport:
    return PrunedReport(
        removed=list(pruned.removed),
        unpinned=list(pruned.unpinned),
        in_containerd=list(pruned.in_containerd),
        withheld=pruned.withheld,
        deleted_size=sum(item.size for item in pruned.deleted),
        error=None if pruned.error is None else _failure(pruned.error),
    )


def _image(image: ImageOutcome) -> ImageReport:
    return ImageReport(
        reference=image.request.reference,
        origin=image.request.origin,
        outcome=image.outcome,
        digest=image.digest,
        size=image.size,
        fetched=image.fetched,
        seconds=_rounded(image.seconds),
        error=None if image.error is None else _failure(image.error),
        containerd=None if image.recorded is None else _recorded(image.recorded),
    )


def _recorded(event: ImageRecorded) -> RecordedReport:
    return RecordedReport(event.namespace, list(event.names), event.blobs, event.sent, event.why)


def _seen(image: SeenImage, now: float) -> ImageReport:
    failure, outcome = image.failure, "unfinished"
    if image.is_there:
        outcome = "fetched" if image.lacks else "present"
    elif failure is not None:
        outcome = "skipped" if failure.kind == "skipped" else "failed"
    return ImageReport(
        reference=image.request.reference,
        origin=image.request.origin,
        outcome=msgspec.convert(outcome, Outcome),
        digest=image.digest,
        size=image.size,
        fetched=image.fetched,
        seconds=_rounded(now if image.ended is None else image.ended),
        error=None if failure is None else Failure(failure.error, failure.kind, failure.exit_code),
        containerd=None if image.recorded is None else _recorded(image.recorded),
    )


def _failure(error: Exception) -> Failure:
    return msgspec.convert(errors.facts(error), Failure)


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
