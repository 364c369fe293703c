"""Requests and their redirects: who gets credentials, which connections are used again, and what is refused.

Covers: registry/http/aiohttp_errors.py, registry/http/connector.py, registry/http/name_lookup.py, registry/http/tls.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from fastoci.errors import ConnectError, FastociError, RegistryError, TimedOutError, TransportError, TruncatedError
from fastoci.registry.http.address_policy import AddressScope, scope_of
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.tls import Tls
from fastoci.registry.http.transport import RequestOptions, Transport
from fastoci.registry.http.urls import Origin, parse_url, redact
from support.scripted_server import Asked, Raw, Server, answer, serving

PUBLIC = Origin("https", "8.8.8.8", 443)


@asynccontextmanager
async def transport(
    *, tls_verify: bool = True, connect_s: float = 10.0, read_s: float = 10.0, connections: int = 4
) -> AsyncIterator[Transport]:
    made = Transport(tls_verify=tls_verify, connect_s=connect_s, read_s=read_s, connections=connections)
    try:
        yield made
    finally:
        await made.aclose()


async def get(client: Transport, url: str, **options: object) -> Reply:
    return await client.request("GET", parse_url(url), headers={}, **options)  # type: ignore[arg-type]


async def body(client: Transport, url: str, **options: object) -> bytes:
    reply = await get(client, url, **options)
    try:
        return await reply.read(1 << 20)
    finally:
        reply.close()


def redirect(to: str, status: int = 307) -> Raw:
    return answer(status, b"moved", {"Location": to})


async def test_requests_say_who_asks_and_want_plain_bytes() -> None:
    async with serving(lambda asked: answer(body=b"ok")) as server, transport() as client:
        assert await body(client, f"http://{server.address}/x") == b"ok"
        (asked,) = server.asked
    assert asked.headers["user-agent"].startswith("fastoci/")
    assert asked.headers["accept-encoding"] == "identity"
    assert "cookie" not in asked.headers


async def test_one_authorization_is_sent_whatever_the_user_s_own_header_is_called() -> None:
    async with serving(lambda asked: answer(body=b"ok")) as server, transport() as client:
        options = RequestOptions(own={"authorization": "Basic b3duOnNlY3JldA=="})
        await body(client, f"http://{server.address}/x", authorization="Bearer token", options=options)
        await body(client, f"http://{server.address}/x", options=options)
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer token", "Basic b3duOnNlY3JldA=="]


async def test_encoded_bodies_stay_as_they_are() -> None:
    raw = answer(body=b"\x1f\x8bnot gzip at all", headers={"Content-Encoding": "gzip"})
    async with serving(lambda asked: raw) as server, transport() as client:
        assert await body(client, f"http://{server.address}/x") == b"\x1f\x8bnot gzip at all"


async def test_a_connection_is_used_again_after_a_body_was_read() -> None:
    async with serving(lambda asked: answer(body=b"x" * 100_000)) as server, transport() as client:
        for _ in range(5):
            await body(client, f"http://{server.address}/x")
        assert server.connections == 1


async def test_a_connection_is_not_used_again_when_a_body_was_not_read() -> None:
    async with serving(lambda asked: answer(body=b"x" * 1_000_000)) as server, transport() as client:
        for _ in range(3):
            reply = await get(client, f"http://{server.address}/x")
            reply.close()
        assert server.connections == 3


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody() -> None:
    size = 1 << 20

    def script(asked: Asked) -> Raw:
        good = answer(body=b"x" * size)
        return Raw(good.data + answer(body=b"planted").data) if asked.path == "/first" else answer(body=b"real")

    async with serving(script) as server, transport() as client:
        assert len(await body(client, f"http://{server.address}/first")) == size
        assert await body(client, f"http://{server.address}/second") == b"real"


async def test_a_server_that_closed_an_idle_connection_is_asked_again() -> None:
    async with serving(lambda asked: answer(body=b"ok", end="close")) as server, transport() as client:
        for _ in range(3):
            assert await body(client, f"http://{server.address}/x") == b"ok"


async def test_cookies_are_forgotten() -> None:
    async with (
        serving(lambda asked: answer(body=b"ok", headers={"Set-Cookie": "a=b; Path=/"})) as server,
        transport() as client,
    ):
        for _ in range(2):
            await body(client, f"http://{server.address}/x")
        assert all("cookie" not in asked.headers for asked in server.asked)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_credentials_stay_on_their_origin_and_end_at_another_port(status: int) -> None:
    async with serving(lambda asked: answer(body=b"blob")) as other:

        def script(asked: Asked) -> Raw:
            return (
                redirect("/b", status) if asked.path == "/a" else redirect(f"http://{other.address}/c?sig=%2B", status)
            )

        async with serving(script) as server, transport() as client:
            assert await body(client, f"http://{server.address}/a", authorization="Basic c2VjcmV0") == b"blob"
            assert [asked.headers.get("authorization") for asked in server.asked] == ["Basic c2VjcmV0"] * 2
            assert "authorization" not in other.asked[0].headers
            assert other.asked[0].query == (("sig", "+"),)


async def test_credentials_do_not_come_back_with_a_redirect_home() -> None:
    home: list[Server] = []
    async with serving(lambda asked: redirect(f"http://{home[0].address}/back")) as other:

        def script(asked: Asked) -> Raw:
            return answer(body=b"ok") if asked.path == "/back" else redirect(f"http://{other.address}/away")

        async with serving(script) as server, transport() as client:
            home.append(server)
            assert await body(client, f"http://{server.address}/a", authorization="Basic c2VjcmV0") == b"ok"
            assert "authorization" not in server.asked[1].headers


async def test_users_in_redirects_are_not_sent() -> None:
    servers: list[Server] = []

    def script(asked: Asked) -> Raw:
        return redirect(f"http://u:p@{servers[0].address}/b") if asked.path == "/a" else answer(body=b"ok")

    async with serving(script) as server, transport() as client:
        servers.append(server)
        assert await body(client, f"http://{server.address}/a") == b"ok"
        assert "authorization" not in server.asked[1].headers


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/shadow",
        "ftp://x/",
        "data:,x",
        "unix:///run/docker.sock",
        "javascript:alert(1)",
        "http:///nohost",
        "http://[::1",
        "http://h:99999/",
        "http://a b/",
        "http://ex\\ample/",
    ],
)
async def test_redirects_to_anything_but_http_are_refused(location: str) -> None:
    async with serving(lambda asked: redirect(location)) as server, transport() as client:
        with pytest.raises(RegistryError, match="redirects to something"):
            await get(client, f"http://{server.address}/a")


async def test_eleven_redirects_are_refused_and_ten_followed() -> None:
    def script(asked: Asked) -> Raw:
        left = int(asked.path[1:])
        return redirect(f"/{left - 1}") if left else answer(body=b"end")

    async with serving(script) as server, transport() as client:
        assert await body(client, f"http://{server.address}/10") == b"end"
        with pytest.raises(RegistryError, match="more than 10 redirects"):
            await get(client, f"http://{server.address}/11")


async def test_a_redirect_without_location_is_an_answer() -> None:
    async with serving(lambda asked: answer(302)) as server, transport() as client:
        reply = await get(client, f"http://{server.address}/a")
        assert reply.status == 302
        reply.close()


async def test_a_form_is_not_redirected() -> None:
    async with serving(lambda asked: redirect("/b")) as server, transport() as client:
        with pytest.raises(RegistryError, match="carries a secret"):
            await client.request("POST", parse_url(f"http://{server.address}/a"), headers={}, body=b"refresh_token=x")
        assert server.paths() == ["/a"]


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[fe80::1%25eth0]",
        "[fd00:ec2::254]",
        "metadata.test",
        "2852039166",
    ],
)
async def test_no_redirect_leads_to_a_metadata_address(host: str, names: dict[str, str]) -> None:
    names["metadata.test"] = "169.254.169.254"
    async with serving(lambda asked: redirect(f"http://{host}/latest")) as server, transport() as client:
        with pytest.raises(RegistryError):
            await get(client, f"http://{server.address}/a")


async def test_a_public_server_leads_to_no_address_of_the_table_that_is_blocked(
    shared: Path, names: dict[str, str]
) -> None:
    names |= {
        "169.254.169.254.nip.io": "169.254.169.254",
        "metadata.google.internal": "169.254.169.254",
        "localhost.": "127.0.0.1",
    }
    cases = json.loads((shared / "corpora/tables/outbound_urls.json").read_text())["cases"]
    # Judged by other rules: userinfo is stripped, and http on loopback is the user's own choice there.
    others = ("https://user:pw@evil.example/", "http://127.0.0.1:5000/auth", "http://127.0.0.1:8080/auth")
    rows = [case for case in cases if case["reject"] and case["url"] not in others]
    assert len(rows) > 18
    async with transport(connect_s=2.0) as client:
        for case in rows:
            with pytest.raises((RegistryError, ValueError)):
                await get(client, case["url"], named_by=Origin("https", "registry.example.com", 443))


async def test_a_public_server_may_not_lead_to_loopback_even_where_the_user_goes() -> None:
    async with serving(lambda asked: answer(body=b"ok")) as server, transport() as client:
        url = f"http://{server.address}/a"
        assert await body(client, url) == b"ok"  # and leaves a connection behind
        with pytest.raises(RegistryError, match="a loopback, link-local or metadata address"):
            await get(client, url, named_by=PUBLIC)
        assert len(server.asked) == 1


async def test_a_name_that_the_user_gave_counts_as_near_as_it_resolves(names: dict[str, str]) -> None:
    names["registry.test"] = "127.0.0.1"
    async with serving(lambda asked: answer(body=b"blob")) as other:

        def script(asked: Asked) -> Raw:
            return redirect(f"http://{other.address}/b")

        async with serving(script) as server, transport() as client:
            assert await body(client, f"http://registry.test:{server.port}/a") == b"blob"


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:169.254.169.254]", "127.1"])
async def test_a_proxy_is_not_led_to_metadata_or_loopback(host: str) -> None:
    async with serving(lambda asked: redirect(f"http://{host}/b")) as proxy:
        client = Transport(
            tls_verify=True, connect_s=5.0, read_s=5.0, connections=1, proxy=lambda url: URL(f"http://{proxy.address}")
        )
        async with aclosing(client):
            with pytest.raises(RegistryError, match="a loopback, link-local or metadata address"):
                await get(client, "http://registry.test/a")
    assert len(proxy.asked) == 1


async def test_a_request_is_trusted_as_it_says_whatever_another_said_meanwhile(
    certified: Callable[..., ssl.SSLContext], names: dict[str, str]
) -> None:
    names["registry.test"] = "127.0.0.1"
    async with serving(lambda asked: answer(body=b"ok"), tls=certified("registry.test")) as server:
        url = f"https://registry.test:{server.port}/a"
        async with transport() as client:  # the authority is one that the system does not know
            client.servers.of(Origin.of(parse_url(url))).pause(0.05)  # both wait where trust was settled too early
            first, _ = await asyncio.gather(
                get(client, url, options=RequestOptions(tls=Tls(True))),
                get(client, url, options=RequestOptions(tls=Tls(False))),
                return_exceptions=True,
            )
    assert isinstance(first, ConnectError)


def test_reach_orders_addresses_from_far_to_near() -> None:
    assert scope_of("8.8.8.8") < scope_of("10.0.0.1") < scope_of("127.0.0.1") < scope_of("169.254.1.1")
    assert max(AddressScope) is AddressScope.FORBIDDEN


async def test_a_refused_connection_says_what_to_look_at() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with transport() as client:
            with pytest.raises(ConnectError, match=f"connection refused by 127.0.0.1:{port}: is the registry running"):
                await get(client, f"http://127.0.0.1:{port}/a?token=secret")


async def test_an_unknown_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with transport() as client:
        with pytest.raises(ConnectError, match=r"unknown host nowhere\.test"):
            await get(client, "https://nowhere.test/a")


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test"])
async def test_a_host_that_no_name_service_takes_is_refused(host: str) -> None:
    async with transport() as client:
        with pytest.raises(FastociError):
            await get(client, f"http://{host}/a")


async def test_a_server_that_never_answers_times_out() -> None:
    async with serving(lambda asked: Raw(b"", "hold")) as server, transport(read_s=0.2) as client:
        with pytest.raises(TimedOutError):
            await get(client, f"http://{server.address}/a")


async def test_a_body_that_stops_times_out_with_its_count() -> None:
    raw = Raw(answer(body=b"x" * 1000).data[:-400], "hold")
    async with serving(lambda asked: raw) as server, transport(read_s=0.2) as client:
        with pytest.raises(TimedOutError) as caught:
            await body(client, f"http://{server.address}/a")
        assert caught.value.received == 600


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
)
async def test_broken_framing_is_a_transport_error(data: bytes) -> None:
    async with serving(lambda asked: Raw(data, "close")) as server, transport(read_s=5.0) as client:
        with pytest.raises(TransportError):
            await body(client, f"http://{server.address}/a")


async def test_broken_framing_in_the_body_does_not_hang() -> None:
    # Two segments, so that the headers are read before the bad chunk comes.
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = head + b"100000\r\n" + b"x" * (1 << 20) + b"\r\nZZ\r\nabc\r\n0\r\n\r\n"
    async with serving(lambda asked: Raw(data, "hold")) as server, transport(read_s=0.5) as client:
        with pytest.raises(TransportError):
            await body(client, f"http://{server.address}/a")


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_cut_body_is_truncated(end: str) -> None:
    raw = Raw(answer(body=b"x" * 1000).data[:-400], "close" if end == "close" else "reset")
    async with serving(lambda asked: raw) as server, transport() as client:
        with pytest.raises((TruncatedError, TransportError)):
            await body(client, f"http://{server.address}/a")


async def test_a_cut_chunked_body_is_truncated() -> None:
    raw = Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "close")
    async with serving(lambda asked: raw) as server, transport() as client:
        with pytest.raises(TruncatedError):
            await body(client, f"http://{server.address}/a")


async def test_reading_stops_one_byte_after_the_limit() -> None:
    async with serving(lambda asked: answer(body=b"x" * 1_000_000)) as server, transport() as client:
        reply = await get(client, f"http://{server.address}/a")
        assert len(await reply.read(1000)) == 1001
        reply.close()


async def test_a_trusted_certificate_is_accepted(
    certified: Callable[..., ssl.SSLContext], trusted: None, names: dict[str, str]
) -> None:
    names["registry.test"] = "127.0.0.1"
    async with (
        serving(lambda asked: answer(body=b"ok"), tls=certified("registry.test")) as server,
        transport() as client,
    ):
        assert await body(client, f"https://registry.test:{server.port}/a") == b"ok"


async def test_a_certificate_of_an_unknown_authority_is_refused(
    certified: Callable[..., ssl.SSLContext], names: dict[str, str]
) -> None:
    names["registry.test"] = "127.0.0.1"
    async with serving(lambda asked: answer(body=b"ok"), tls=certified("registry.test")) as server:
        async with transport() as client:
            with pytest.raises(ConnectError, match=r"certificate not trusted.*SSL_CERT_FILE.*--tls-verify=false"):
                await get(client, f"https://registry.test:{server.port}/a")
        async with transport(tls_verify=False) as client:
            assert await body(client, f"https://registry.test:{server.port}/a") == b"ok"


async def test_a_certificate_for_another_host_is_refused(
    certified: Callable[..., ssl.SSLContext], trusted: None, names: dict[str, str]
) -> None:
    names["registry.test"] = "127.0.0.1"
    async with serving(lambda asked: answer(), tls=certified("other.test")) as server, transport() as client:
        with pytest.raises(ConnectError, match="certificate not trusted"):
            await get(client, f"https://registry.test:{server.port}/a")


async def test_an_http_server_is_told_from_a_tls_one() -> None:
    async with serving(lambda asked: answer()) as server, transport() as client:
        with pytest.raises(ConnectError, match="does not speak TLS; --tls-verify=false also tries plain http"):
            await get(client, f"https://{server.address}/a")


async def test_https_does_not_fall_to_http(
    certified: Callable[..., ssl.SSLContext], trusted: None, names: dict[str, str]
) -> None:
    names["registry.test"] = "127.0.0.1"
    async with serving(lambda asked: answer()) as plain:
        to = redirect(f"http://{plain.address}/b")
        async with serving(lambda asked: to, tls=certified("registry.test")) as server, transport() as client:
            with pytest.raises(RegistryError, match="from https to http"):
                await get(client, f"https://registry.test:{server.port}/a")
        assert not plain.asked


async def test_no_error_shows_a_query_or_user(names: dict[str, str]) -> None:
    async with serving(lambda asked: Raw(b"", "hold")) as server, transport(read_s=0.2) as client:
        with pytest.raises(TimedOutError) as caught:
            await get(client, f"http://u:hunter2@{server.address}/a?X-Signature=hunter2#hunter2")
        error = caught.value
        assert "hunter2" not in str(error) + repr(error.__dict__)
        assert error.__cause__ is None
        assert error.__suppress_context__


def test_redact_keeps_what_identifies() -> None:
    url = parse_url("https://u:p@h.test:5000/v2/a/blobs/x?sig=1#f")
    assert redact(url) == "https://h.test:5000/v2/a/blobs/x"


async def test_cancelled_requests_leave_nothing_behind() -> None:
    async with serving(lambda asked: Raw(b"", "hold")) as server, transport(connections=2) as client:
        tasks = [asyncio.create_task(get(client, f"http://{server.address}/{n}")) for n in range(10)]
        await server.until(2)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert len(server.asked) <= 2


@pytest.mark.parametrize(
    "line",
    [
        b"Location: https://cdn.test/x?sig=s3cret" + b"a" * (1 << 20),
        b"Location https//cdn.test/x?sig=s3cret",
        b"Content-Length : https://cdn.test/x?sig=s3cret",
    ],
)
async def test_a_header_that_cannot_be_read_is_not_shown(line: bytes) -> None:
    raw = Raw(b"HTTP/1.1 307 X\r\n" + line + b"\r\n\r\n", "close")
    async with serving(lambda asked: raw) as server, transport() as client:
        with pytest.raises(TransportError, match="not HTTP") as caught:
            await body(client, f"http://{server.address}/a")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
