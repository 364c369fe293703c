"""A proxy that refuses, or cannot be reached, is said to be what is wrong; and what to do about it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from fastoci.errors import ConnectError, ProxyError, TransportError
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.urls import parse_url
from support.scripted_server import Asked, Raw, Script, answer, serving


@asynccontextmanager
async def through(proxy: str) -> AsyncIterator[Transport]:
    made = Transport(tls_verify=True, connect_s=5.0, read_s=5.0, connections=1, proxy=lambda url: URL(proxy))
    try:
        yield made
    finally:
        await made.aclose()


async def refused(script: Script, url: str, *, user: str = "") -> ProxyError:
    async with serving(script) as proxy, through(f"http://{user}{proxy.address}") as client:
        with pytest.raises(ProxyError) as caught:
            await client.request("GET", parse_url(url), headers={})
        assert f"the proxy http://{proxy.address} " in str(caught.value)
        assert len(proxy.asked) == 1
        return caught.value


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_credentials_is_named_with_the_variable_for_them(scheme: str) -> None:
    error = await refused(lambda asked: answer(407, b"log in"), f"{scheme}://r.test/v2/?q=hunter2")
    assert "wants a user and password: give them in " in str(error)
    assert f"{scheme.upper()}_PROXY, as http://USER:PASSWORD@HOST:PORT" in str(error)
    assert (error.status, error.retryable, error.exit_code) == (407, False, 5)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_the_credentials_says_so_without_them(scheme: str) -> None:
    error = await refused(lambda asked: answer(407), f"{scheme}://r.test/v2/", user="me:hunter2@")
    assert "does not accept the user and password" in str(error)
    assert "hunter2" not in str(error)
    assert error.__cause__ is None


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("challenge", "offered"),
    [
        ("NTLM", "NTLM"),
        ("Negotiate, NTLM", "Negotiate or NTLM"),
        ("Negotiate YIIab==", "Negotiate"),
        ('Digest realm="a, b", nonce="c"', "Digest"),
    ],
)
async def test_a_proxy_that_takes_no_password_is_not_given_one(scheme: str, challenge: str, offered: str) -> None:
    def wants(asked: Asked) -> Raw:
        return answer(407, headers={"Proxy-Authenticate": challenge})

    for user in ("", "me:hunter2@"):
        error = await refused(wants, f"{scheme}://r.test/v2/", user=user)
        assert f"takes no user and password, only {offered}, which fastoci does not speak" in str(error)
        assert "give them in" not in str(error)
        assert (error.status, error.retryable, error.exit_code) == (407, False, 5)
        assert "hunter2" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_takes_a_password_as_well_is_given_one(scheme: str) -> None:
    both = b"HTTP/1.1 407 X\r\nContent-Length: 0\r\nProxy-Authenticate: Negotiate\r\nPROXY-AUTHENTICATE: NTLM\r\n"
    for line in (b"Proxy-Authenticate: basic realm=x\r\n", b'proxy-authenticate: X a="b", Basic realm="x"\r\n'):
        error = await refused(lambda asked: Raw(both + line + b"\r\n"), f"{scheme}://r.test/v2/")  # noqa: B023
        assert "wants a user and password: give them in " in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("said", [b"SSH-2.0-hunter2\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"\x05\xff"])
async def test_a_proxy_that_does_not_speak_http_is_said_to_be_what_answers(scheme: str, said: bytes) -> None:
    async with serving(lambda asked: Raw(said, "close")) as proxy, through(f"http://{proxy.address}") as client:
        with pytest.raises(TransportError) as caught:
            await client.request("GET", parse_url(f"{scheme}://r.test/v2/"), headers={})
    assert f"the answer of the proxy http://{proxy.address} is not HTTP" in str(caught.value)
    assert isinstance(caught.value, ProxyError) is (scheme == "https")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "again"), [(403, False), (404, False), (502, True), (503, True), (599, True), (589, False)]
)
async def test_a_proxy_that_opens_no_tunnel_is_not_the_registry(status: int, again: bool) -> None:
    error = await refused(lambda asked: answer(status, b"hunter2"), "https://r.test:5000/v2/")
    assert f"does not connect to r.test:5000: {status}" in str(error)
    assert (error.status, error.retryable) == (status, again)


async def test_what_comes_through_a_proxy_by_http_names_it() -> None:
    async with serving(lambda asked: answer(403)) as proxy, through(f"http://me:hunter2@{proxy.address}") as client:
        reply = await client.request("GET", parse_url("http://r.test/v2/"), headers={})
        error = await error_of(reply)
        assert str(error).endswith(f"403 Forbidden: asked through the proxy http://{proxy.address}")


async def test_a_proxy_that_cannot_be_reached_is_not_the_registry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with through(f"http://me:hunter2@127.0.0.1:{port}") as client:
        with pytest.raises(ProxyError, match="connection refused") as caught:
            await client.request("GET", parse_url("https://r.test/v2/"), headers={})
    assert "registry" not in str(caught.value)
    assert f"the proxy http://127.0.0.1:{port}: " in str(caught.value)
    assert caught.value.retryable
    async with through("http://no-such-host.invalid:3128") as client:
        with pytest.raises(ProxyError, match=r"the proxy http://no-such-host\.invalid:3128: ") as unknown:
            await client.request("GET", parse_url("https://r.test/v2/"), headers={})
    assert "registry" not in str(unknown.value)


async def test_without_a_proxy_it_is_the_registry_that_does_not_run() -> None:
    made = Transport(tls_verify=True, connect_s=5.0, read_s=5.0, connections=1)
    try:
        with pytest.raises(ConnectError, match="is the registry running there") as caught:
            await made.request("GET", parse_url("https://127.0.0.1:1/v2/"), headers={})
        assert type(caught.value) is ConnectError
    finally:
        await made.aclose()
