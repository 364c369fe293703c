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
    FormatError,
    RegistryError,
    StoreError,
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
from support.scripted_server import Asked, Raw, answer, serving

BLOB = b"layer" * 1000
OF_BLOB = Descriptor.of(BLOB, "application/octet-stream")
SECRET = Credential("user", "password")
AT_ONCE = RetryPolicy(tries=3, first_s=0.0, maximum_s=0.0)


@asynccontextmanager
async def destination(
    address: str, *, credential: Credential | None = None, name: str = "team/app", limits: Limits | None = None
) -> AsyncIterator[PushRepository]:
    credentials = Credentials(explicit=credential)
    async with Registry(credentials=credentials, retry=AT_ONCE, limits=limits) as registry:
        yield registry.destination(Reference.parse(f"{address}/{name}:1"))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    """``opened(data)`` is a descriptor of a file with these bytes."""
    descriptors: list[int] = []

    def make(data: bytes) -> int:
        path = tmp_path / f"file-{len(descriptors)}"
        path.write_bytes(data)
        descriptors.append(os.open(path, os.O_RDONLY))
        return descriptors[-1]

    yield make
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "pushed").mkdir()
    return Uploads(tmp_path / "pushed")


def stored(uploads: Uploads, name: str, blob: Descriptor) -> bytes | None:
    path = uploads.blob(name, str(blob.digest))
    return None if path is None else path.read_bytes()


@pytest.mark.parametrize("location", ["relative", "absolute", "elsewhere"])
async def test_a_blob_is_uploaded_once_wherever_the_registry_says(
    location: Literal["relative", "absolute", "elsewhere"], uploads: Uploads, opened: Callable[[bytes], int]
) -> None:
    uploads.location = location
    async with Server(Basic("user", "password"), uploads=uploads) as server:
        async with destination(server.address, credential=Credential("user", "password")) as repository:
            assert await repository.put_blob(OF_BLOB, opened(BLOB)) == "uploaded"
            assert await repository.put_blob(OF_BLOB, opened(BLOB)) == "there"
        assert stored(uploads, "team/app", OF_BLOB) == BLOB
        put = next(record for record in server.log if record.method == "PUT")
        assert (put.host, put.authorization) == (("cdn", "") if location == "elsewhere" else ("registry", "Basic"))
        assert "_state=a%2Fb%3D&digest=sha256%3A" in put.path
        assert sum(record.method == "PUT" for record in server.log) == 1


async def test_a_blob_larger_than_a_piece_and_an_empty_one_arrive(
    uploads: Uploads, opened: Callable[[bytes], int]
) -> None:
    async with Server(uploads=uploads) as server, destination(server.address) as repository:
        for data in (os.urandom((5 << 20) + 17), b""):
            blob = Descriptor.of(data, "x")
            assert await repository.put_blob(blob, opened(data)) == "uploaded"
            assert stored(uploads, "team/app", blob) == data


async def test_a_token_is_asked_for_to_push(uploads: Uploads, opened: Callable[[bytes], int]) -> None:
    async with Server(Bearer("user", "password"), uploads=uploads) as server:
        async with destination(server.address, credential=Credential("user", "password")) as repository:
            assert await repository.put_blob(OF_BLOB, opened(BLOB)) == "uploaded"
        async with destination(server.address, credential=Credential("user", "wrong")) as repository:
            with pytest.raises(UnauthorizedError):
                await repository.put_blob(Descriptor.of(b"x", "x"), opened(b"x"))


async def test_a_blob_of_another_repository_is_mounted_or_else_uploaded(
    uploads: Uploads, opened: Callable[[bytes], int]
) -> None:
    async with Server(Bearer(), uploads=uploads) as server:
        async with destination(server.address, name="team/base") as base:
            await base.put_blob(OF_BLOB, opened(BLOB))
        before = len(server.log)
        async with destination(server.address) as repository:
            assert await repository.put_blob(OF_BLOB, opened(BLOB), mount_from="team/base") == "mounted"
            assert all(record.method != "PUT" for record in server.log[before:])
            other = Descriptor.of(b"other", "x")
            assert await repository.put_blob(other, opened(b"other"), mount_from="team/base") == "uploaded"
        assert stored(uploads, "team/app", OF_BLOB) == BLOB
        assert stored(uploads, "team/app", other) == b"other"


async def test_manifests_come_after_what_they_name(uploads: Uploads, opened: Callable[[bytes], int]) -> None:
    image = Image.build([Layer.build([Entry("file", data=b"data")])])
    index = Index.build([image])
    async with Server(uploads=uploads) as server, destination(server.address) as repository:
        (described, manifest), (top, document) = index.documents()
        with pytest.raises(RegistryError) as early:
            await repository.put_manifest(described, manifest)
        assert (early.value.status, early.value.code) == (400, "MANIFEST_BLOB_UNKNOWN")
        for blob, content in image.blobs():
            assert isinstance(content, bytes)
            await repository.put_blob(blob, opened(content))
        assert not await repository.has_manifest(described)
        await repository.put_manifest(described, manifest)
        assert await repository.has_manifest(described)
        await repository.put_manifest(top, document, "1")
        found = await server.manifest("team/app", "1")
        assert found is not None
        assert (found.media_type, found.data) == (OCI_INDEX, document)


async def test_bytes_that_are_not_the_blob_s_are_refused_by_the_registry(
    uploads: Uploads, opened: Callable[[bytes], int]
) -> None:
    async with Server(uploads=uploads) as server, destination(server.address) as repository:
        with pytest.raises(RegistryError) as refused:
            await repository.put_blob(OF_BLOB, opened(bytes(len(BLOB))))
        assert (refused.value.code, refused.value.blob) == ("DIGEST_INVALID", None)
        assert stored(uploads, "team/app", OF_BLOB) is None


async def test_a_file_that_is_too_short_is_the_store_s_fault_and_not_tried_again(
    uploads: Uploads, opened: Callable[[bytes], int]
) -> None:
    async with Server(uploads=uploads) as server, destination(server.address) as repository:
        with pytest.raises(StoreError, match=r"the file ends after 4999 of 5000 bytes"):
            await repository.put_blob(OF_BLOB, opened(BLOB[:-1]))
        assert [record.method for record in server.log] == ["HEAD", "POST"]  # a PUT that was cut is not answered


def script(*, begun: Raw, put: Callable[[int], Raw]) -> Callable[[Asked], Raw]:
    """No blob is there; ``put`` has the number of the PUT that it answers."""
    count = 0

    def say(asked: Asked) -> Raw:
        nonlocal count
        if asked.method == "HEAD":
            return answer(404)
        if asked.method == "POST":
            return begun
        count += 1
        return put(count)

    return say


PLACE = answer(202, headers={"Location": "/v2/team/app/blobs/uploads/1"})


@contextmanager
def whole(asked: list[Asked]) -> Iterator[None]:
    """Each PUT had all the bytes."""
    yield
    assert {each.body for each in asked if each.method == "PUT"} == {BLOB}


async def test_trouble_that_passes_begins_a_new_upload(opened: Callable[[bytes], int]) -> None:
    answers = {1: answer(503), 2: Raw(b"", "reset"), 3: answer(201)}
    async with serving(script(begun=PLACE, put=answers.__getitem__)) as server:
        with whole(server.asked):
            async with destination(server.address) as repository:
                assert await repository.put_blob(OF_BLOB, opened(BLOB)) == "uploaded"
        assert [asked.method for asked in server.asked] == ["HEAD", *["POST", "PUT"] * 3]


async def test_a_registry_in_trouble_is_given_up_in_the_end(opened: Callable[[bytes], int]) -> None:
    async with serving(script(begun=PLACE, put=lambda count: answer(503))) as server:
        async with destination(server.address) as repository:
            with pytest.raises(UnavailableError) as caught:
                await repository.put_blob(OF_BLOB, opened(BLOB))
        assert caught.value.tries == 3
        assert [asked.method for asked in server.asked].count("PUT") == 3


async def test_what_is_forbidden_is_not_tried_again(opened: Callable[[bytes], int]) -> None:
    async with serving(script(begun=answer(403), put=lambda count: answer(201))) as server:
        async with destination(server.address) as repository:
            with pytest.raises(DeniedError):
                await repository.put_blob(OF_BLOB, opened(BLOB))
        assert [asked.method for asked in server.asked] == ["HEAD", "POST"]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Location": "ftp://127.0.0.1/x"}, {"Location": "http://[::1]@/"}, {"Location": "http://\xff"}],
    ids=["none", "ftp", "no host", "no URL"],
)
async def test_an_upload_without_an_address_is_no_upload(
    headers: dict[str, str], opened: Callable[[bytes], int]
) -> None:
    async with serving(script(begun=answer(202, headers=headers), put=lambda count: answer(201))) as server:
        async with destination(server.address) as repository:
            with pytest.raises((FormatError, RegistryError)):
                await repository.put_blob(OF_BLOB, opened(BLOB))
        assert all(asked.method != "PUT" for asked in server.asked)


async def test_an_answer_about_another_blob_is_refused(opened: Callable[[bytes], int]) -> None:
    other = answer(201, headers={"Docker-Content-Digest": f"sha256:{'0' * 64}"})
    said = script(begun=PLACE, put=lambda count: other)
    async with serving(said) as server, destination(server.address) as repository:
        with pytest.raises(FormatError, match="says that it took"):
            await repository.put_blob(OF_BLOB, opened(BLOB))


async def test_a_redirect_of_an_upload_that_keeps_the_method_is_followed_without_credentials(
    opened: Callable[[bytes], int],
) -> None:
    async with serving(lambda asked: answer(201)) as other:
        moved = answer(307, headers={"Location": f"http://{other.address}/elsewhere"})
        said = script(begun=PLACE, put=lambda count: moved)
        async with serving(said) as server, destination(server.address, credential=SECRET) as repository:
            assert await repository.put_blob(OF_BLOB, opened(BLOB)) == "uploaded"
        assert [asked.body for asked in other.asked] == [BLOB]
        assert "authorization" not in other.asked[0].headers


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_would_make_something_else_of_an_upload_is_refused(
    status: int, opened: Callable[[bytes], int]
) -> None:
    moved = answer(status, headers={"Location": "/elsewhere"})
    async with serving(script(begun=PLACE, put=lambda count: moved)) as server:
        async with destination(server.address) as repository:
            with pytest.raises(RegistryError, match="redirects a PUT"):
                await repository.put_blob(OF_BLOB, opened(BLOB))
        assert "/elsewhere" not in server.paths()


async def test_a_registry_with_tls_may_not_name_a_host_without(
    opened: Callable[[bytes], int],
    trusted: None,
    certified: Callable[..., ssl.SSLContext],
) -> None:
    async with serving(lambda asked: answer(201)) as other:
        begun = answer(202, headers={"Location": f"http://{other.address}/x"})
        said, tls = script(begun=begun, put=lambda count: answer(201)), certified("127.0.0.1")
        async with serving(said, tls=tls) as server, destination(server.address) as repository:
            with pytest.raises(RegistryError, match="it is not https"):
                await repository.put_blob(OF_BLOB, opened(BLOB))
        assert other.asked == []


async def test_a_stranger_that_asks_for_credentials_gets_none(opened: Callable[[bytes], int]) -> None:
    refused = answer(401, headers={"WWW-Authenticate": "Basic realm=x"})
    async with serving(lambda asked: refused) as other:
        begun = answer(202, headers={"Location": f"http://{other.address}/x"})
        said = script(begun=begun, put=lambda count: answer(201))
        async with serving(said) as server, destination(server.address, credential=SECRET) as repository:
            with pytest.raises(UnauthorizedError, match=r"asked by the host that 127\.0\.0\.1 named"):
                await repository.put_blob(OF_BLOB, opened(BLOB))
        assert all("authorization" not in asked.headers for asked in other.asked)


async def test_a_server_that_takes_no_more_of_an_upload_is_given_up(opened: Callable[[bytes], int]) -> None:
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
                await repository.put_blob(Descriptor.of(data, "x"), opened(data))
        over.set()
    assert asked == 3
