"""Blobs and manifests on their way into the loopback registry, and into servers that answer as no registry should."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

import pytest

from fastoci.errors import (
    DeniedError,
    DigestMismatchError,
    FormatError,
    RegistryError,
    SizeMismatchError,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
)
from fastoci.image.descriptor import Descriptor
from fastoci.image.mediatype import OCI_INDEX
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.push.repository import PushRepository
from fastoci.testing.auth import Basic, Bearer
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry as Server
from fastoci.testing.uploads import Uploads
from fastoci.transfer.scheduler import BytesSource
from support.scripted_server import Asked, Raw, answer, serving
from support.streaming import streams

BLOB = b"layer" * 1000
OF_BLOB = Descriptor.of(BLOB, "application/octet-stream")
SECRET = Credential("user", "password")
AT_ONCE = RetryPolicy(tries=3, first_s=0.0, maximum_s=0.0)


@asynccontextmanager
async def destination(
    address: str,
    *,
    credential: Credential | None = None,
    name: str = "team/app",
    limits: Limits | None = None,
    mount_from: str = "",
) -> AsyncIterator[PushRepository]:
    credentials = Credentials(explicit=credential)
    async with streams() as streaming, Registry(credentials=credentials, retry=AT_ONCE, limits=limits) as registry:
        yield registry.destination(Reference.parse(f"{address}/{name}:1"), streaming, mount_from=mount_from)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "pushed").mkdir()
    return Uploads(tmp_path / "pushed")


def stored(uploads: Uploads, name: str, blob: Descriptor) -> bytes | None:
    path = uploads.blob(name, str(blob.digest))
    return None if path is None else path.read_bytes()


@pytest.mark.parametrize("location", ["relative", "absolute", "elsewhere"])
async def test_a_blob_is_uploaded_once_wherever_the_registry_says(
    location: Literal["relative", "absolute", "elsewhere"], uploads: Uploads
) -> None:
    uploads.location = location
    async with Server(Basic("user", "password"), uploads=uploads) as server:
        async with destination(server.address, credential=Credential("user", "password")) as repository:
            assert await repository.put_blob(OF_BLOB, BytesSource(BLOB)) == "sent"
            assert await repository.put_blob(OF_BLOB, BytesSource(BLOB)) == "there"
        assert stored(uploads, "team/app", OF_BLOB) == BLOB
        put = next(record for record in server.log if record.method == "PUT")
        assert (put.host, put.authorization) == (("cdn", "") if location == "elsewhere" else ("registry", "Basic"))
        assert "_state=a%2Fb%3D&digest=sha256%3A" in put.path
        assert sum(record.method == "PUT" for record in server.log) == 1


async def test_a_blob_larger_than_a_piece_and_an_empty_one_arrive(uploads: Uploads) -> None:
    async with Server(uploads=uploads) as server, destination(server.address) as repository:
        for data in (os.urandom((5 << 20) + 17), b""):
            blob = Descriptor.of(data, "x")
            assert await repository.put_blob(blob, BytesSource(data)) == "sent"
            assert stored(uploads, "team/app", blob) == data


async def test_a_token_is_asked_for_to_push(uploads: Uploads) -> None:
    async with Server(Bearer("user", "password"), uploads=uploads) as server:
        async with destination(server.address, credential=Credential("user", "password")) as repository:
            assert await repository.put_blob(OF_BLOB, BytesSource(BLOB)) == "sent"
        async with destination(server.address, credential=Credential("user", "wrong")) as repository:
            with pytest.raises(UnauthorizedError):
                await repository.put_blob(Descriptor.of(b"x", "x"), BytesSource(b"x"))


async def test_a_blob_of_another_repository_is_mounted_or_else_uploaded(uploads: Uploads) -> None:
    async with Server(Bearer(), uploads=uploads) as server:
        async with destination(server.address, name="team/base") as base:
            await base.put_blob(OF_BLOB, BytesSource(BLOB))
        before = len(server.log)
        async with destination(server.address, mount_from="team/base") as repository:
            assert await repository.put_blob(OF_BLOB, BytesSource(BLOB)) == "mounted"
            assert all(record.method != "PUT" for record in server.log[before:])
            other = Descriptor.of(b"other", "x")
            assert await repository.put_blob(other, BytesSource(b"other")) == "sent"
        assert stored(uploads, "team/app", OF_BLOB) == BLOB
        assert stored(uploads, "team/app", other) == b"other"


async def test_manifests_come_after_what_they_name(uploads: Uploads) -> None:
    image = Image.build([Layer.build([Entry("file", data=b"data")])])
    index = Index.build([image])
    async with Server(uploads=uploads) as server, destination(server.address) as repository:
        (described, manifest), (top, document) = index.documents()
        with pytest.raises(RegistryError) as early:
            await repository.put_manifest(described, manifest)
        assert (early.value.status, early.value.code) == (400, "MANIFEST_BLOB_UNKNOWN")
        for blob, content in image.blobs():
            assert isinstance(content, bytes)
            await repository.put_blob(blob, BytesSource(content))
        assert not await repository.has_manifest(described)
        await repository.put_manifest(described, manifest)
        assert await repository.has_manifest(described)
        await repository.put_manifest(top, document, "1")
        found = await server.manifest("team/app", "1")
        assert found is not None
        assert (found.media_type, found.data) == (OCI_INDEX, document)


async def test_bytes_that_are_not_the_blob_s_are_never_sent_whole(uploads: Uploads) -> None:
    async with Server(uploads=uploads) as server, destination(server.address) as repository:
        with pytest.raises(DigestMismatchError):
            await repository.put_blob(OF_BLOB, BytesSource(bytes(len(BLOB))))
        assert [record.method for record in server.log] == ["HEAD", "POST"]  # a PUT that was cut is not answered
        assert stored(uploads, "team/app", OF_BLOB) is None


async def test_a_source_that_has_too_few_bytes_is_not_tried_again(uploads: Uploads) -> None:
    async with Server(uploads=uploads) as server, destination(server.address) as repository:
        with pytest.raises(SizeMismatchError, match="expected 5000 bytes, got 4999"):
            await repository.put_blob(OF_BLOB, BytesSource(BLOB[:-1]))
        assert [record.method for record in server.log] == ["HEAD", "POST"]


def script(*, begun: Raw, put: Callable[[int], Raw]) -> Callable[[Asked], Raw]:
    """The blob is there after a PUT that was taken; ``put`` has the number of the PUT that it answers."""
    count, taken = 0, False

    def say(asked: Asked) -> Raw:
        nonlocal count, taken
        if asked.method == "HEAD":
            return answer(200 if taken else 404, headers={"Content-Length": str(len(BLOB))})
        if asked.method == "POST":
            return begun
        count += 1
        said = put(count)
        taken |= b" 201 " in said.data[:20] or b" 307 " in said.data[:20]
        return said

    return say


PLACE = answer(202, headers={"Location": "/v2/team/app/blobs/uploads/1"})


@contextmanager
def whole(asked: list[Asked]) -> Iterator[None]:
    """Each PUT had all the bytes."""
    yield
    assert {each.body for each in asked if each.method == "PUT"} == {BLOB}


async def test_trouble_that_passes_begins_a_new_upload() -> None:
    answers = {1: answer(503), 2: Raw(b"", "reset"), 3: answer(201)}
    async with serving(script(begun=PLACE, put=answers.__getitem__)) as server:
        with whole(server.asked):
            async with destination(server.address) as repository:
                assert await repository.put_blob(OF_BLOB, BytesSource(BLOB)) == "sent"
        assert [asked.method for asked in server.asked] == ["HEAD", *["POST", "PUT"] * 3, "HEAD"]


async def test_a_registry_in_trouble_is_given_up_in_the_end() -> None:
    async with serving(script(begun=PLACE, put=lambda count: answer(503))) as server:
        async with destination(server.address) as repository:
            with pytest.raises(UnavailableError) as caught:
                await repository.put_blob(OF_BLOB, BytesSource(BLOB))
        assert caught.value.tries == 3
        assert [asked.method for asked in server.asked].count("PUT") == 3


async def test_what_is_forbidden_is_not_tried_again() -> None:
    async with serving(script(begun=answer(403), put=lambda count: answer(201))) as server:
        async with destination(server.address) as repository:
            with pytest.raises(DeniedError):
                await repository.put_blob(OF_BLOB, BytesSource(BLOB))
        assert [asked.method for asked in server.asked] == ["HEAD", "POST"]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Location": "ftp://127.0.0.1/x"}, {"Location": "http://[::1]@/"}, {"Location": "http://\xff"}],
    ids=["none", "ftp", "no host", "no URL"],
)
async def test_an_upload_without_an_address_is_no_upload(headers: dict[str, str]) -> None:
    async with serving(script(begun=answer(202, headers=headers), put=lambda count: answer(201))) as server:
        async with destination(server.address) as repository:
            with pytest.raises((FormatError, RegistryError)):
                await repository.put_blob(OF_BLOB, BytesSource(BLOB))
        assert all(asked.method != "PUT" for asked in server.asked)


async def test_an_answer_about_another_blob_is_refused() -> None:
    other = answer(201, headers={"Docker-Content-Digest": f"sha256:{'0' * 64}"})
    said = script(begun=PLACE, put=lambda count: other)
    async with serving(said) as server, destination(server.address) as repository:
        with pytest.raises(FormatError, match="says that it took"):
            await repository.put_blob(OF_BLOB, BytesSource(BLOB))


async def test_a_redirect_of_an_upload_that_keeps_the_method_is_followed_without_credentials() -> None:
    async with serving(lambda asked: answer(201)) as other:
        moved = answer(307, headers={"Location": f"http://{other.address}/elsewhere"})
        said = script(begun=PLACE, put=lambda count: moved)
        async with serving(said) as server, destination(server.address, credential=SECRET) as repository:
            assert await repository.put_blob(OF_BLOB, BytesSource(BLOB)) == "sent"
        assert [asked.body for asked in other.asked] == [BLOB]
        assert "authorization" not in other.asked[0].headers


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_would_make_something_else_of_an_upload_is_refused(status: int) -> None:
    moved = answer(status, headers={"Location": "/elsewhere"})
    async with serving(script(begun=PLACE, put=lambda count: moved)) as server:
        async with destination(server.address) as repository:
            with pytest.raises(RegistryError, match="redirects a PUT"):
                await repository.put_blob(OF_BLOB, BytesSource(BLOB))
        assert "/elsewhere" not in server.paths()


async def test_a_registry_with_tls_may_not_name_a_host_without(
    trusted: None,
    certified: Callable[..., ssl.SSLContext],
) -> None:
    async with serving(lambda asked: answer(201)) as other:
        begun = answer(202, headers={"Location": f"http://{other.address}/x"})
        said, tls = script(begun=begun, put=lambda count: answer(201)), certified("127.0.0.1")
        async with serving(said, tls=tls) as server, destination(server.address) as repository:
            with pytest.raises(RegistryError, match="it is not https"):
                await repository.put_blob(OF_BLOB, BytesSource(BLOB))
        assert other.asked == []


async def test_a_stranger_that_asks_for_credentials_gets_none() -> None:
    refused = answer(401, headers={"WWW-Authenticate": "Basic realm=x"})
    async with serving(lambda asked: refused) as other:
        begun = answer(202, headers={"Location": f"http://{other.address}/x"})
        said = script(begun=begun, put=lambda count: answer(201))
        async with serving(said) as server, destination(server.address, credential=SECRET) as repository:
            with pytest.raises(UnauthorizedError, match=r"asked by the host that 127\.0\.0\.1 named"):
                await repository.put_blob(OF_BLOB, BytesSource(BLOB))
        assert all("authorization" not in asked.headers for asked in other.asked)


async def test_a_server_that_takes_no_more_of_an_upload_is_given_up() -> None:
    data = bytes(16 << 20)  # more than the system takes on the way
    asked = 0

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while head := await reader.readuntil(b"\r\n\r\n"):
            asked += head.startswith(b"PUT")
            if head.startswith(b"PUT"):
                await over.wait()
                break
            place = b"404 X\r\n" if head.startswith(b"HEAD") else b"202 X\r\nLocation: /x\r\n"
            writer.write(b"HTTP/1.1 " + place + b"Content-Length: 0\r\n\r\n")
        writer.close()

    over = asyncio.Event()
    async with await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1 << 16) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with destination(address, limits=Limits(read_s=0.1)) as repository:
            with pytest.raises(TimedOutError):
                await repository.put_blob(Descriptor.of(data, "x"), BytesSource(data))
        over.set()
    assert asked == 3
