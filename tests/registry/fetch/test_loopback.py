"""Registries of this machine: they speak http or TLS, and what they speak is found out once.

Covers: registry/config/endpoints.py, registry/fetch/failover.py, registry/http/servers.py.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from fastoci.errors import ConnectError, FastociError, NotFoundError, TimedOutError, TransportError, UnauthorizedError
from fastoci.image import mediatype
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.config.certs_d import read
from fastoci.registry.config.endpoints import Mirrors
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.login import login
from support.scripted_server import Asked, Raw, Script, Server, answer, as_json, serving, unauthorized

INDEX = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}).encode()
ME = Credential("me", "hunter2")
# What servers that speak TLS say to a request without: Go's, nginx, routers, and those that say nothing.
GO = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
NGINX = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\nConnection: close\r\n\r\n<html></html"
ROUTER = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 18\r\n\r\n404 page not found"
UPGRADE = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
REDIRECT = (
    b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://HERE\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"


def manifest(asked: Asked) -> Raw:
    return answer(body=INDEX, headers={"Content-Type": mediatype.OCI_INDEX})


def private(asked: Asked) -> Raw:
    return manifest(asked) if "authorization" in asked.headers else unauthorized('Basic realm="x"')


@asynccontextmanager
async def speaking_tls(script: Script, tls: ssl.SSLContext, to_plain: bytes = b"") -> AsyncIterator[Server]:
    """A server that speaks TLS, and says this to a request without."""
    async with serving(script, tls=tls) as server:
        behind, tasks = server.port, set[asyncio.Task[None]]()

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            begin = await reader.read(1 << 16)
            if not begin.startswith(b"\x16"):
                here = b"127.0.0.1:%d%s" % (server.port, begin.split()[1])
                writer.write(to_plain.replace(b"HERE", here))
                await writer.drain()
                writer.close()
                return
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", behind)
            inner_writer.write(begin)
            try:
                await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
            except ConnectionError:
                pass
            finally:
                inner_writer.close()
                writer.close()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(talk(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        listener = await asyncio.start_server(connected, "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]
        try:
            yield server
        finally:
            listener.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await listener.wait_closed()


@asynccontextmanager
async def client(mirrors: Mirrors | None = None, *, tls_verify: bool = True) -> AsyncIterator[Registry]:
    async with Registry(
        credentials=Credentials(explicit=ME),
        mirrors=mirrors,
        limits=Limits(read_s=1.0, connect_s=1.0),
        retry=RetryPolicy(tries=2, first_s=0.01),
        tls_verify=tls_verify,
    ) as registry:
        yield registry


async def resolve(registry: Registry, host: str) -> bytes:
    reference = Reference.parse(f"{host}/team/app:1")
    return (await registry.repository(reference).resolve(reference))[1]


@pytest.fixture
def secure(certified: Callable[..., ssl.SSLContext]) -> ssl.SSLContext:
    return certified("localhost", "127.0.0.1")


@pytest.fixture
def certificates(authority: trustme.CA, tmp_path: Path) -> Path:
    directory = tmp_path / "certs"
    directory.mkdir()
    authority.cert_pem.write_to_path(directory / "ca.crt")
    return directory


@pytest.mark.parametrize(
    "to_plain",
    [GO, NGINX, ROUTER, UPGRADE, ALERT, b""],
    ids=["go", "nginx", "router", "upgrade", "alert", "nothing"],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_registry_of_this_machine_may_speak_tls(
    secure: ssl.SSLContext, trusted: None, to_plain: bytes, host: str
) -> None:
    async with speaking_tls(private, secure, to_plain) as server, client() as registry:
        for _ in range(3):
            assert await resolve(registry, f"{host}:{server.port}") == INDEX
        with_credentials = ["authorization" in asked.headers for asked in server.asked]
        assert with_credentials == [False, True, True, True]


async def test_a_registry_may_redirect_to_tls_and_gets_credentials_there(secure: ssl.SSLContext, trusted: None) -> None:
    async with speaking_tls(private, secure, REDIRECT) as server, client() as registry:
        for _ in range(2):
            assert await resolve(registry, f"127.0.0.1:{server.port}") == INDEX
        with_credentials = ["authorization" in asked.headers for asked in server.asked]
        assert with_credentials == [False, False, True, True]  # the first came by the redirect


async def test_what_a_registry_speaks_is_found_out_once(secure: ssl.SSLContext, trusted: None) -> None:
    async with speaking_tls(manifest, secure, GO) as server, client() as registry:
        host = f"127.0.0.1:{server.port}"
        for _ in range(3):
            assert await resolve(registry, host) == INDEX
        assert server.connections == 1
    async with serving(manifest) as server, client() as registry:
        for _ in range(3):
            assert await resolve(registry, server.address) == INDEX
        assert server.connections == 1  # nobody tried TLS


async def test_the_certificates_of_a_directory_are_trusted(secure: ssl.SSLContext, certificates: Path) -> None:
    mirrors = Mirrors(cert_dir=read(certificates))
    async with speaking_tls(manifest, secure, GO) as server, client(mirrors) as registry:
        assert await resolve(registry, server.address) == INDEX
    async with serving(manifest) as server, client(mirrors) as registry:  # they are for every registry
        assert await resolve(registry, server.address) == INDEX


async def test_without_verification_any_certificate_will_do(certified: Callable[..., ssl.SSLContext]) -> None:
    tls = certified("elsewhere.test")
    async with speaking_tls(manifest, tls, GO) as server, client(tls_verify=False) as registry:
        assert await resolve(registry, server.address) == INDEX


@pytest.mark.attack
@pytest.mark.parametrize("to_plain", [GO, b""], ids=["go", "nothing"])
async def test_a_certificate_that_is_not_trusted_is_what_the_error_names(
    secure: ssl.SSLContext, to_plain: bytes
) -> None:
    async with speaking_tls(manifest, secure, to_plain) as server, client() as registry:
        with pytest.raises(ConnectError, match="certificate not trusted") as caught:
            await resolve(registry, server.address)
        assert not caught.value.others
        assert not server.asked


@pytest.mark.parametrize("status", [404, 401, 403])
async def test_what_a_registry_without_tls_refuses_is_not_asked_for_by_tls(status: int) -> None:
    async with serving(lambda asked: as_json({"errors": []}, status)) as server, client() as registry:
        with pytest.raises((NotFoundError, UnauthorizedError, FastociError)) as caught:
            await resolve(registry, server.address)
        assert caught.value.status == status  # type: ignore[attr-defined]
        assert not caught.value.others
        assert server.connections == 1


async def test_what_somebody_without_tls_refuses_is_what_the_error_names() -> None:
    async with serving(lambda asked: answer(404)) as server, client() as registry:
        with pytest.raises(NotFoundError, match="http://") as caught:
            await resolve(registry, server.address)
        assert not caught.value.others


async def test_a_registry_that_is_not_there_is_named_once(unused_port: int) -> None:
    async with client() as registry:
        with pytest.raises(TransportError, match=rf"http://127\.0\.0\.1:{unused_port}/v2/.*refused") as caught:
            await resolve(registry, f"127.0.0.1:{unused_port}")
        assert not caught.value.others


async def test_a_registry_that_is_silent_is_not_asked_by_tls() -> None:
    async with serving(lambda asked: Raw(b"", "hold")) as server, client() as registry:
        with pytest.raises(TimedOutError, match="http://"):
            await resolve(registry, server.address)
        assert server.connections == len(server.asked)  # else there were handshakes


@pytest.fixture
async def unused_port() -> int:
    async with serving(manifest) as server:
        return server.port


@pytest.mark.attack
async def test_a_registry_elsewhere_is_never_asked_without_tls(names: dict[str, str]) -> None:
    names["registry.test"] = "127.0.0.1"
    async with serving(manifest) as server, client() as registry:
        with pytest.raises(ConnectError, match="does not speak TLS"):
            await resolve(registry, f"registry.test:{server.port}")
        assert not server.asked


@pytest.mark.attack
async def test_what_https_answers_is_not_asked_for_by_http_even_without_verification(
    certified: Callable[..., ssl.SSLContext], names: dict[str, str]
) -> None:
    names["registry.test"] = "127.0.0.1"
    tls = certified("registry.test")
    async with speaking_tls(lambda asked: answer(404), tls, GO) as server, client(tls_verify=False) as registry:
        with pytest.raises(NotFoundError) as caught:
            await resolve(registry, f"registry.test:{server.port}")
        assert not caught.value.others


@pytest.mark.parametrize("to_plain", [GO, b""], ids=["go", "nothing"])
async def test_a_login_finds_out_as_a_pull_does(
    secure: ssl.SSLContext, certificates: Path, tmp_path: Path, to_plain: bytes
) -> None:
    kept = tmp_path / "auth.json"
    async with speaking_tls(private, secure, to_plain) as server:
        with pytest.raises(ConnectError, match="certificate not trusted"):
            await login(server.address, "me", "hunter2", authfile=kept)
        assert await login(server.address, "me", "hunter2", authfile=kept, cert_dir=certificates) is True
        assert await login(server.address, "me", "hunter2", authfile=kept, tls_verify=False) is True
    async with serving(private) as server:
        assert await login(server.address, "me", "hunter2", authfile=kept) is True
