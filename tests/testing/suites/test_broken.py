"""Each suite fails for an implementation that breaks what it promises."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastoci._core import Buffer, Pool, Sha256
from fastoci.errors import BlobNotFoundError, DigestMismatchError, NotFoundError, SizeMismatchError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.image_interfaces import ImageCollection, ImageSink, ImageSource, NamedImage, Way, WholeImage
from fastoci.interfaces import BlobSource, BlobStore, BufferSource, IngestStatus
from fastoci.stream.verify import Verified
from fastoci.testing.images import Image, Index
from fastoci.testing.memory_store import Content, MemoryIngest, MemorySession, MemoryStore, MemoryWriter, Partial
from fastoci.testing.suites import filling
from fastoci.testing.suites.blob_source import BlobSourceSuite
from fastoci.testing.suites.blob_store import BlobStoreSuite
from fastoci.testing.suites.image_collection import ImageCollectionSuite
from fastoci.testing.suites.image_sink import ImageSinkSuite
from fastoci.testing.suites.image_source import ImageSourceSuite
from fastoci.testing.suites.store_session import StoreSessionSuite
from fastoci.transfer.buffers import Buffers

Defect = Callable[[pytest.MonkeyPatch], None]


def failures(suite: object, tmp_path: Path) -> list[str]:
    """The tests of a suite that fail."""
    found = []
    for name, test in inspect.getmembers(suite, inspect.ismethod):
        if name.startswith("test_"):
            directory = tmp_path / name
            directory.mkdir()
            try:
                test(*([directory] if "tmp_path" in inspect.signature(test).parameters else []))
            except (Exception, pytest.fail.Exception):
                found.append(name)
    return found


class Stores(BlobStoreSuite, StoreSessionSuite):
    """Both suites over stores in memory."""

    def __init__(self) -> None:
        self._contents: dict[Path, Content] = {}

    @asynccontextmanager
    async def open(self, directory: Path) -> AsyncIterator[BlobStore]:
        yield MemoryStore(self._contents.setdefault(directory, Content()))

    @asynccontextmanager
    async def open_small(self, directory: Path, size: int) -> AsyncIterator[BlobStore]:
        yield MemoryStore(self._contents.setdefault(directory, Content(size)))


def accepts_any_proof(patch: pytest.MonkeyPatch) -> None:
    async def commit(self: MemoryIngest, proof: Verified) -> None:
        data = bytes(self._partial.data)
        self._end(keep=False)
        self._content.blobs[self.blob.digest] = data

    patch.setattr(MemoryIngest, "commit", commit)


def is_visible_before_commit(patch: pytest.MonkeyPatch) -> None:
    def holds(self: Content, blob: Descriptor) -> bool:
        partial = self.partial.get(blob.digest)
        return blob.digest in self.blobs or (partial is not None and len(partial.data) == blob.size > 0)

    patch.setattr(Content, "holds", holds)


def loses_checkpoints(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryIngest, "checkpoint", lambda self, offset, state: None)


def resumes_with_the_state_of_nothing(patch: pytest.MonkeyPatch) -> None:
    def checkpoint(self: MemoryIngest, offset: int, state: bytes) -> None:
        self._partial.offset, self._partial.state = offset, Sha256(b"x" * 64).state()

    patch.setattr(MemoryIngest, "checkpoint", checkpoint)


def lets_two_begin(patch: pytest.MonkeyPatch) -> None:
    async def begin(self: MemoryWriter, blob: Descriptor, *, cached: bool = False) -> MemoryIngest | None:
        self._demand(blob)
        if self._content.holds(blob):
            return None
        partial = self._content.partial.setdefault(blob.digest, Partial())
        partial.is_held = True
        return MemoryIngest(self._content, blob, partial)

    patch.setattr(MemoryWriter, "begin", begin)


def leaves_what_was_aborted(patch: pytest.MonkeyPatch) -> None:
    async def abort(self: MemoryIngest, *, discard: bool = False, corrupt: Collection[str] = ()) -> None:
        self._is_over, self._partial.is_held = True, False

    patch.setattr(MemoryIngest, "abort", abort)


def forgets_who_sent_wrong_bytes(patch: pytest.MonkeyPatch) -> None:
    abort = MemoryIngest.abort

    async def forget(self: MemoryIngest, *, discard: bool = False, corrupt: Collection[str] = ()) -> None:
        await abort(self, discard=discard)

    patch.setattr(MemoryIngest, "abort", forget)


def discards_under_the_hands_of_another(patch: pytest.MonkeyPatch) -> None:
    async def discard(self: MemoryStore, digest: Digest) -> bool:
        return self.content.partial.pop(digest, None) is not None

    patch.setattr(MemoryStore, "discard", discard)


def lists_nothing(patch: pytest.MonkeyPatch) -> None:
    async def ingests(self: MemoryStore) -> list[IngestStatus]:
        return []

    patch.setattr(MemoryStore, "ingests", ingests)


def waits_for_nobody(patch: pytest.MonkeyPatch) -> None:
    async def wait(self: MemoryWriter, blob: Descriptor, progressed: Callable[[int], None]) -> bool:
        self._demand(blob)
        return self._content.holds(blob)

    patch.setattr(MemoryWriter, "wait", wait)


def serves_what_is_marked_corrupt(patch: pytest.MonkeyPatch) -> None:
    async def mark(self: MemoryStore, digest: Digest) -> None:
        return None

    patch.setattr(MemoryStore, "mark_corrupt", mark)


def ignores_the_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Content, "holds", lambda self, blob: blob.digest in self.blobs)


def opens_for_writing(patch: pytest.MonkeyPatch) -> None:
    def open_it(self: MemoryStore, blob: Descriptor) -> int:
        data = self._data(blob)
        fd = os.memfd_create("blob")
        os.write(fd, data)
        return fd

    patch.setattr(MemoryStore, "open", open_it)


STORES: list[Defect] = [
    accepts_any_proof,
    is_visible_before_commit,
    loses_checkpoints,
    resumes_with_the_state_of_nothing,
    lets_two_begin,
    leaves_what_was_aborted,
    forgets_who_sent_wrong_bytes,
    discards_under_the_hands_of_another,
    lists_nothing,
    waits_for_nobody,
    serves_what_is_marked_corrupt,
    ignores_the_size,
    opens_for_writing,
]


def begins_what_no_lease_protects(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryWriter, "_demand", lambda self, *blobs: None)


def records_before_the_blobs_are_there(patch: pytest.MonkeyPatch) -> None:
    async def record(self: MemoryWriter, image: StoredImage) -> None:
        self._demand(image.descriptor)
        self._content.images[image.name] = image

    patch.setattr(MemoryWriter, "record", record)


def refuses_a_name_after_it_replaced_another(patch: pytest.MonkeyPatch) -> None:
    async def record(self: MemoryWriter, image: StoredImage) -> None:
        self._demand(image.descriptor)
        self._content.images[image.name] = image
        if not self._content.holds(image.descriptor):
            raise BlobNotFoundError("not there", path="memory")

    patch.setattr(MemoryWriter, "record", record)


def never_ends_a_session(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryWriter, "end", lambda self: None)


def has_space_for_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Content, "free", lambda self: 1 << 40)


def keeps_space_that_was_given_up(patch: pytest.MonkeyPatch) -> None:
    real = MemorySession.reserve

    @asynccontextmanager
    async def reserve(self: MemorySession, **given: Any) -> AsyncIterator[MemoryWriter]:
        async with real(self, **given) as writer:
            for blob in self.missing:
                self._content.reserved[blob.digest].append(blob.size)
            yield writer

    patch.setattr(MemorySession, "reserve", reserve)


def misses_nothing(patch: pytest.MonkeyPatch) -> None:
    real = MemorySession.__init__

    def init(self: MemorySession, content: Content, wanted: Collection[Descriptor]) -> None:
        real(self, content, wanted)
        self.missing = ()

    patch.setattr(MemorySession, "__init__", init)


SESSIONS: list[Defect] = [
    begins_what_no_lease_protects,
    records_before_the_blobs_are_there,
    refuses_a_name_after_it_replaced_another,
    never_ends_a_session,
    has_space_for_everything,
    keeps_space_that_was_given_up,
    misses_nothing,
]


def test_the_suites_pass_for_a_store_that_keeps_its_promises(tmp_path: Path) -> None:
    assert failures(Stores(), tmp_path) == []


@pytest.mark.parametrize("defect", STORES + SESSIONS, ids=lambda defect: defect.__name__)
def test_a_store_that_breaks_a_promise_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defect: Defect
) -> None:
    defect(monkeypatch)
    assert failures(Stores(), tmp_path) != []


KEPT: list[Buffer] = []


class Source:
    """A ``BlobSource`` in memory, with at most one flaw."""

    name = "memory"

    def __init__(self, blobs: Mapping[Descriptor, bytes], flaw: str) -> None:
        self._blobs = {blob.digest: data for blob, data in blobs.items()}
        self._flaw = flaw

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield what there is."""
        data = self._blobs.get(blob.digest)
        if data is None:
            if self._flaw == "what is absent is empty":
                return
            raise NotFoundError("no such blob", url="memory", status=404)
        if (len(data) > blob.size and self._flaw != "too many bytes") or (
            len(data) < blob.size and self._flaw != "too few"
        ):
            raise SizeMismatchError("size", subject=str(blob.digest), expected=blob.size, actual=len(data))
        offset = 0 if self._flaw == "the offset is ignored" else offset
        while offset < len(data):
            buffer = await buffers.take()
            offset += buffer.append(data, offset)
            if self._flaw == "a buffer is kept":
                KEPT.append(buffer.retain())
            yield buffer


class Sources(BlobSourceSuite):
    def __init__(self, flaw: str) -> None:
        self._flaw = flaw

    @asynccontextmanager
    async def open(self, blobs: Mapping[Descriptor, bytes]) -> AsyncIterator[BlobSource]:
        yield Source(blobs, self._flaw)


def test_the_suite_passes_for_a_source_that_keeps_its_promises(tmp_path: Path) -> None:
    assert failures(Sources(""), tmp_path) == []


@pytest.mark.parametrize(
    "flaw",
    ["what is absent is empty", "too many bytes", "too few", "the offset is ignored", "a buffer is kept"],
)
def test_a_source_that_breaks_a_promise_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flaw: str
) -> None:
    monkeypatch.setattr(filling, "TIMEOUT_S", 1.0)
    found = failures(Sources(flaw), tmp_path)
    while KEPT:
        KEPT.pop().release()
    assert found != []


class Documents:
    """An ``ImageSource`` in memory, with at most one flaw."""

    def __init__(self, images: Mapping[str, Image | Index], flaw: str) -> None:
        self._tags = {tag: list(image.documents())[-1] for tag, image in images.items()}
        self._documents = {
            descriptor.digest: (descriptor, data) for image in images.values() for descriptor, data in image.documents()
        }
        self._flaw = flaw

    async def resolve(
        self, reference: Reference, held: tuple[Descriptor, bytes] | None = None
    ) -> tuple[Descriptor, bytes]:
        """What a tag or digest leads to."""
        if held is not None and self._flaw == "what is held is never renewed":
            return held
        found = self._documents.get(reference.digest) if reference.digest else self._tags.get(reference.tag or "")
        if found is None:
            if self._flaw == "anything for what is absent" and self._tags:
                return next(iter(self._tags.values()))
            raise NotFoundError("no such manifest", url="memory", status=404)
        descriptor, data = found
        if self._flaw == "other bytes":
            data += b" "
        return Descriptor(descriptor.media_type, descriptor.digest, len(data)), data

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest."""
        if descriptor.digest not in self._documents:
            raise NotFoundError("no such manifest", url="memory", status=404)
        data = self._documents[descriptor.digest][1]
        if len(data) != descriptor.size and self._flaw != "the size is ignored":
            raise SizeMismatchError("size", subject="", expected=descriptor.size, actual=len(data))
        return data


class ImageSources(ImageSourceSuite):
    def __init__(self, flaw: str) -> None:
        self._flaw = flaw

    @asynccontextmanager
    async def open(self, images: Mapping[str, Image | Index]) -> AsyncIterator[tuple[ImageSource, str]]:
        yield Documents(images, self._flaw), "registry.test/team/app"


def test_the_suite_passes_for_an_image_source_that_keeps_its_promises(tmp_path: Path) -> None:
    assert failures(ImageSources(""), tmp_path) == []


@pytest.mark.parametrize(
    "flaw", ["what is held is never renewed", "anything for what is absent", "other bytes", "the size is ignored"]
)
def test_an_image_source_that_breaks_a_promise_is_found_out(tmp_path: Path, flaw: str) -> None:
    assert failures(ImageSources(flaw), tmp_path) != []


class Place:
    """An ``ImageCollection`` in memory, with at most one flaw."""

    def __init__(self, images: Mapping[str, Image], flaw: str) -> None:
        self._images = images
        self._flaw = flaw

    async def names(self) -> tuple[NamedImage, ...]:
        found = [NamedImage(name, image.descriptor) for name, image in self._images.items()]
        if self._flaw == "names in another order":
            found.reverse()
        return tuple(NamedImage("latest", image.top) if self._flaw == "a name for all" else image for image in found)

    async def manifest(self, descriptor: Descriptor) -> bytes:
        for image in self._images.values():
            if image.descriptor.digest == descriptor.digest:
                if self._flaw != "the size is ignored" and descriptor.size != len(image.manifest):
                    raise SizeMismatchError("wrong", subject="", expected=descriptor.size, actual=len(image.manifest))
                return image.manifest + b" " if self._flaw == "other bytes" else image.manifest
        if self._flaw == "anything for what is absent":
            return b"{}"
        raise BlobNotFoundError("absent", path="", subject=str(descriptor.digest))


class Collections(ImageCollectionSuite):
    def __init__(self, flaw: str) -> None:
        self._flaw = flaw

    @asynccontextmanager
    async def open(self, images: Mapping[str, Image]) -> AsyncIterator[ImageCollection]:
        yield Place(images, self._flaw)


def test_the_suite_passes_for_a_collection_that_keeps_its_promises(tmp_path: Path) -> None:
    assert failures(Collections(""), tmp_path) == []


@pytest.mark.parametrize(
    "flaw",
    ["names in another order", "a name for all", "the size is ignored", "other bytes", "anything for what is absent"],
)
def test_a_collection_that_breaks_a_promise_is_found_out(tmp_path: Path, flaw: str) -> None:
    assert failures(Collections(flaw), tmp_path) != []


class Sink:
    """An ``ImageSink`` in memory, with at most one flaw."""

    def __init__(self, flaw: str) -> None:
        self.names: dict[str, Descriptor] = {}
        self.blobs: dict[Digest, bytes] = {}
        self._flaw = flaw

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Writer]:
        """Take images."""
        writer = Writer(self, self._flaw)
        try:
            yield writer
        except Exception:
            if self._flaw == "an error is no matter":
                self.names |= writer.names
            raise
        self.names = writer.names if self._flaw == "others are dropped" else self.names | writer.names


class Writer:
    """Its ``ImageWriter``."""

    at_once = 2

    def __init__(self, sink: Sink, flaw: str) -> None:
        self.names: dict[str, Descriptor] = {}
        self._sink = sink
        self._flaw = flaw

    async def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """What is not there."""
        unique = {blob.digest: blob for blob in blobs}.values()
        return [blob for blob in unique if blob.digest not in self._sink.blobs or self._flaw == "all is missing"]

    async def put_blob(self, blob: Descriptor, source: BlobSource) -> Way:
        """Take one."""
        try:
            data = await filling.collect(source.fetch(blob, 0, Buffers(Pool(8 << 20))))
        except BlobNotFoundError:
            if self._flaw == "a missing blob is left out":
                return "sent"
            raise
        await self.put_document(blob, data)
        return "sent"

    async def put_document(self, descriptor: Descriptor, data: bytes) -> None:
        """Take one."""
        blob, actual = descriptor, Digest.of(data)
        if actual != blob.digest and self._flaw != "nothing is hashed":
            if self._flaw == "damaged bytes stay behind":
                self._sink.blobs[blob.digest] = data
            digests = {"expected": str(blob.digest), "actual": str(actual)}
            raise DigestMismatchError("damaged", subject=str(blob.digest), **digests)
        self._sink.blobs[blob.digest] = data

    async def name(self, image: WholeImage) -> None:
        """Name it at the end."""
        self.names[image.name] = image.top
        if self._flaw == "names come first":
            self._sink.names |= self.names


class Sinks(ImageSinkSuite):
    def __init__(self, flaw: str) -> None:
        self._flaw = flaw
        self._sinks: dict[Path, Sink] = {}

    def open(self, directory: Path) -> ImageSink:
        return self._sinks.setdefault(directory, Sink(self._flaw))

    def names(self, directory: Path) -> Mapping[str, Descriptor]:
        return self._sinks[directory].names

    def read(self, directory: Path, blob: Descriptor) -> bytes | None:
        return self._sinks[directory].blobs.get(blob.digest)


def test_the_suite_passes_for_a_sink_that_keeps_its_promises(tmp_path: Path) -> None:
    assert failures(Sinks(""), tmp_path) == []


@pytest.mark.parametrize(
    "flaw",
    [
        "others are dropped",
        "names come first",
        "an error is no matter",
        "all is missing",
        "a missing blob is left out",
        "nothing is hashed",
        "damaged bytes stay behind",
    ],
)
def test_a_sink_that_breaks_a_promise_is_found_out(tmp_path: Path, flaw: str) -> None:
    assert failures(Sinks(flaw), tmp_path) != []
