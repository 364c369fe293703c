"""Uploads that break, are lost, refused or sent in chunks, into the loopback registry with faults.

Covers: registry/push/upload.py, registry/push/body.py, registry/push/remembered.py, registry/push/session.py,
testing/upload_faults.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from fastoci._core import Buffer
from fastoci.errors import (
    DigestMismatchError,
    IntegrityError,
    NotFoundError,
    SizeMismatchError,
    StoreError,
    TransportError,
    UnauthorizedError,
)
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.interfaces import BufferSource, UploadNotes
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.push.repository import PushRepository
from fastoci.testing.auth import Bearer
from fastoci.testing.registry import Record
from fastoci.testing.registry import Registry as Server
from fastoci.testing.uploads import Uploads
from fastoci.transfer.scheduler import BytesSource
from support.file_source import InFile
from support.streaming import streams

MIB = 1 << 20
DATA = os.urandom(1 << 20) * 40 + b"the end"
BLOB = Descriptor.of(DATA, "application/octet-stream")
AT_ONCE = RetryPolicy(tries=4, first_s=0.0, maximum_s=0.0)


class Counted:
    """A source that says from which offsets it was read."""

    name = "counted"

    def __init__(self, data: bytes) -> None:
        self.offsets: list[int] = []
        self.sent = asyncio.Event()  # more than 20 MiB of it
        self.data = data

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        self.offsets.append(offset)
        async for buffer in BytesSource(self.data).fetch(blob, offset, buffers):
            yield buffer
            offset += len(buffer)
            if offset > 20 * MIB:
                self.sent.set()


class Notes:
    """``UploadNotes`` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def take(self, key: str) -> bytes | None:
        return self.kept.pop(key, None)

    async def keep(self, key: str, data: bytes) -> None:
        self.kept[key] = data

    async def drop(self, key: str) -> None:
        self.kept.pop(key, None)


class Truncating(Notes):
    """Makes a file shorter as soon as the upload is under way."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    async def keep(self, key: str, data: bytes) -> None:
        os.truncate(self.path, 20 * MIB)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "pushed").mkdir()
    return Uploads(tmp_path / "pushed")


@asynccontextmanager
async def destination(
    server: Server, *, notes: UploadNotes | None = None, mount_from: str = "", credential: Credential | None = None
) -> AsyncIterator[PushRepository]:
    credentials = Credentials(explicit=credential)
    reference = Reference.parse(f"{server.address}/team/app:1")
    async with streams() as streaming, Registry(credentials=credentials, retry=AT_ONCE) as registry:
        yield registry.destination(reference, streaming, notes=notes, mount_from=mount_from)


def stored(uploads: Uploads, blob: Descriptor = BLOB) -> bytes | None:
    path = uploads.blob("team/app", str(blob.digest))
    return None if path is None else path.read_bytes()


def methods(log: list[Record]) -> list[str]:
    return [record.method for record in log if "/blobs/" in record.path]


async def test_a_blob_goes_in_one_request_and_is_asked_for_afterwards(uploads: Uploads) -> None:
    async with Server(uploads=uploads) as server, destination(server) as repository:
        assert await repository.put_blob(BLOB, BytesSource(DATA)) == "sent"
        assert methods(server.log) == ["HEAD", "POST", "PUT", "HEAD"]
        assert stored(uploads) == DATA


async def test_what_broke_goes_on_where_the_registry_has_come(uploads: Uploads) -> None:
    uploads.faults.cuts = [5 * MIB + 3, 21 * MIB]
    source = Counted(DATA)
    async with Server(uploads=uploads) as server, destination(server) as repository:
        assert await repository.put_blob(BLOB, source) == "sent"
        assert methods(server.log) == ["HEAD", "POST", "GET", "GET", "PATCH", "PUT", "HEAD"]
    assert stored(uploads) == DATA
    assert uploads.received == len(DATA), "nothing is sent twice"
    assert source.offsets == [0, 0, 16 * MIB], "hashing goes on at the last point before the break"


async def test_an_upload_that_is_lost_with_its_connection_begins_anew_in_chunks(uploads: Uploads) -> None:
    uploads.faults.cuts, uploads.faults.keeps = [3 * MIB], False
    async with Server(uploads=uploads) as server, destination(server) as repository:
        assert await repository.put_blob(BLOB, BytesSource(DATA)) == "sent"
        assert methods(server.log) == ["HEAD", "POST", "GET", "POST", "PATCH", "PATCH", "PUT", "HEAD"]
    assert stored(uploads) == DATA


async def test_a_registry_that_wants_chunks_gets_them(uploads: Uploads) -> None:
    uploads.faults.least_chunk = 33 * MIB
    async with Server(uploads=uploads) as server, destination(server) as repository:
        assert await repository.put_blob(BLOB, BytesSource(DATA)) == "sent"
        assert methods(server.log) == ["HEAD", "POST", "PATCH", "PATCH", "PUT", "HEAD"]
        small = Descriptor.of(b"small", "x")
        assert await repository.put_blob(small, BytesSource(b"small")) == "sent"
        assert methods(server.log)[6:] == ["HEAD", "POST", "PUT", "HEAD"]
    assert stored(uploads) == DATA


async def test_who_takes_no_large_requests_gets_smaller_ones(uploads: Uploads) -> None:
    uploads.faults.largest = 12 * MIB
    async with Server(uploads=uploads) as server, destination(server) as repository:
        assert await repository.put_blob(BLOB, BytesSource(DATA)) == "sent"
    assert stored(uploads) == DATA


async def test_who_takes_no_chunks_gets_one_request(uploads: Uploads) -> None:
    uploads.faults.cuts, uploads.faults.keeps, uploads.faults.chunks = [3 * MIB], False, False
    async with Server(uploads=uploads) as server, destination(server) as repository:
        assert await repository.put_blob(BLOB, BytesSource(DATA)) == "sent"
    assert stored(uploads) == DATA


async def test_an_upload_that_the_registry_forgot_begins_anew_a_few_times(uploads: Uploads) -> None:
    uploads.faults.loses = 2
    async with Server(uploads=uploads) as server, destination(server) as repository:
        assert await repository.put_blob(BLOB, BytesSource(DATA)) == "sent"
        uploads.faults.loses = 100
        other = Descriptor.of(b"other", "x")
        with pytest.raises(NotFoundError, match="BLOB_UPLOAD_UNKNOWN"):
            await repository.put_blob(other, BytesSource(b"other"))
    assert stored(uploads) == DATA


@pytest.mark.parametrize(
    ("holds", "error"), [("less", SizeMismatchError), ("other", SizeMismatchError), ("nothing", NotFoundError)]
)
async def test_a_registry_that_stores_something_else_is_found_out(
    holds: Literal["less", "other", "nothing"], error: type[Exception], uploads: Uploads
) -> None:
    uploads.faults.holds = holds
    blob = Descriptor.of(b"data" * 100, "x")
    async with Server(uploads=uploads) as server, destination(server) as repository:
        with pytest.raises(error, match=f"the registry (has|took).*{blob.digest}|{blob.digest}.*the registry took"):
            await repository.put_blob(blob, BytesSource(b"data" * 100))
        assert not await repository.has_blob(blob)


@pytest.mark.parametrize("mounts", [False, "refused"], ids=["unmounted", "refused"])
async def test_who_mounts_nothing_gets_the_bytes(mounts: Literal[False, "refused"], uploads: Uploads) -> None:
    uploads.faults.mounts = mounts
    async with Server(uploads=uploads) as server, destination(server, mount_from="team/base") as repository:
        assert await repository.put_blob(BLOB, BytesSource(DATA)) == "sent"
        assert await repository.take_blob(Descriptor.of(b"x", "x")) is None
    assert stored(uploads) == DATA


async def test_a_token_to_mount_reads_both_repositories(uploads: Uploads) -> None:
    small = Descriptor.of(b"small", "x")
    async with Server(Bearer(), uploads=uploads) as server:
        async with streams() as streaming, Registry(credentials=Credentials()) as registry:
            base = registry.destination(Reference.parse(f"{server.address}/team/base:1"), streaming)
            await base.put_blob(small, BytesSource(b"small"))
        async with destination(server, mount_from="team/base") as repository:
            assert await repository.take_blob(small) == "mounted"
        asked = next(each.path for each in server.log[::-1] if each.path.startswith("/token"))
        assert "scope=repository:team/app:pull,push&scope=repository:team/base:pull" in asked.replace(
            "%3A", ":"
        ).replace("%2C", ",").replace("%2F", "/")


async def test_credentials_that_may_only_read_are_named(uploads: Uploads) -> None:
    auth = Bearer("user", "password", pushes=False)
    secret = Credential("user", "password")
    async with Server(auth, uploads=uploads) as server, destination(server, credential=secret) as repository:
        with pytest.raises(UnauthorizedError, match="do not allow pull,push of team/app"):
            await repository.put_blob(BLOB, BytesSource(DATA))


async def test_a_process_after_this_one_goes_on_with_the_upload(uploads: Uploads) -> None:
    notes, source = Notes(), Counted(DATA)
    async with Server(uploads=uploads) as server:
        async with destination(server, notes=notes) as repository:
            pushing = asyncio.create_task(repository.put_blob(BLOB, source))
            await source.sent.wait()
            pushing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pushing
        assert len(notes.kept) == 1
        async with destination(server, notes=notes) as repository:
            assert await repository.put_blob(BLOB, source) == "sent"
    assert (stored(uploads) == DATA, notes.kept) == (True, {})
    assert uploads.received == len(DATA)


@pytest.mark.parametrize("damage", ["no note", "another state", "no such upload"])
async def test_a_note_that_leads_nowhere_costs_a_new_upload(damage: str, uploads: Uploads) -> None:
    notes = Notes()
    async with Server(uploads=uploads) as server:
        async with destination(server, notes=notes) as repository:
            uploads.faults.cuts = [20 * MIB + at for at in range(9)]
            with pytest.raises(TransportError):
                await repository.put_blob(BLOB, BytesSource(DATA))
        (key, note), *_ = notes.kept.items()
        notes.kept[key] = {
            "no note": b"{",
            "another state": note.replace(note[note.index(b'"state":"') + 9 :][:8], b"AAAAAAAA"),
            "no such upload": note.replace(b"/uploads/", b"/uploads/f"),
        }[damage]
        uploads.faults.cuts.clear()
        async with destination(server, notes=notes) as repository:
            assert await repository.put_blob(BLOB, BytesSource(DATA)) == "sent"
    assert stored(uploads) == DATA


async def test_wrong_bytes_never_make_a_blob_whatever_was_noted(uploads: Uploads) -> None:
    wrong = bytearray(DATA)
    wrong[30 * MIB] ^= 1
    async with Server(uploads=uploads) as server, destination(server, notes=Notes()) as repository:
        with pytest.raises(IntegrityError):
            await repository.put_blob(BLOB, BytesSource(bytes(wrong)))
        assert stored(uploads) is None
        assert uploads.received < len(DATA), "the last piece is never sent"


async def test_a_file_that_is_pushed_goes_on_after_breaks(uploads: Uploads, tmp_path: Path) -> None:
    uploads.faults.cuts = [5 * MIB + 3, 21 * MIB]
    async with Server(uploads=uploads) as server, destination(server) as repository:
        assert await repository.put_blob(BLOB, InFile(tmp_path / "blob", DATA)) == "sent"
    assert stored(uploads) == DATA
    assert uploads.received == len(DATA), "nothing is sent twice"


@pytest.mark.parametrize("at", [0, 30 * MIB, len(DATA) - 1])
async def test_a_damaged_file_never_makes_a_blob(at: int, uploads: Uploads, tmp_path: Path) -> None:
    wrong = bytearray(DATA)
    wrong[at] ^= 1
    async with Server(uploads=uploads) as server, destination(server) as repository:
        with pytest.raises(DigestMismatchError):
            await repository.put_blob(BLOB, InFile(tmp_path / "blob", bytes(wrong)))
    assert stored(uploads) is None
    assert uploads.received < len(DATA), "the last piece is never sent"


async def test_a_file_that_becomes_shorter_while_it_is_pushed_makes_no_blob(uploads: Uploads, tmp_path: Path) -> None:
    source = InFile(tmp_path / "blob", DATA)
    notes = Truncating(source.path)
    async with Server(uploads=uploads) as server, destination(server, notes=notes) as repository:
        with pytest.raises(StoreError, match=f"ends after {20 * MIB} of {len(DATA)} bytes"):
            await repository.put_blob(BLOB, source)
    assert stored(uploads) is None


async def test_a_blob_by_sha512_is_pushed_and_checked(uploads: Uploads) -> None:
    data = DATA[: 3 * MIB]
    blob = Descriptor("x", Digest.of(data, "sha512"), len(data))
    uploads.faults.cuts = [2 * MIB]
    async with Server(uploads=uploads) as server, destination(server) as repository:
        assert await repository.put_blob(blob, BytesSource(data)) == "sent"
        with pytest.raises(DigestMismatchError):
            await repository.put_blob(Descriptor("x", Digest.of(b"y", "sha512"), 1), BytesSource(b"x"))
    assert stored(uploads, blob) == data
