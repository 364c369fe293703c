"""What a server says, odd and at random: a typed error at worst, and never the end of a pull that has mirrors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci.errors import FastociError, NotFoundError, RegistryError
from fastoci.limits import Limits
from fastoci.registry.auth.auth_file import AuthFile
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch import repository, resuming_range
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.http.untrusted import parsed, typed
from fastoci.registry.http.urls import Origin, parse_url, redact
from support.scripted_mirrors import BLOB, BLOB_DESCRIPTOR, INDEX, MANIFEST, REFERENCE, between, endpoint, whole
from support.scripted_server import Asked, Buffers, Raw, Script, drain, serving

BAD_URLS = [
    "http://[::1]@",  # an IndexError of yarl's
    "http://[%zz]@/x",
    "https://%zz]:[%@",
    "http://xn--/",
    "http://xn--xn--?/",
    "//xn--:/:-1",
    "http://h:99999/",
    "http://h:-1/",
    "http://[::1",
    "http://[fe80::1%25eth0]:1/",
    "http://",
    "//",
    "?",
    "\x7f",
    "http://h/\u00e9",
    "http:///x",
    "x" * 9000,
]


@pytest.mark.attack
@pytest.mark.parametrize("url", BAD_URLS)
@pytest.mark.parametrize("where", ["redirect", "realm"])
async def test_a_mirror_that_names_no_url_is_passed_by(url: str, where: str, buffers: Buffers) -> None:
    def mirror(asked: Asked) -> Raw:
        if where == "redirect":
            return raw(307, f"Location: {url}")
        return raw(401, f'WWW-Authenticate: Bearer realm="{url}",service="x"')

    async with between(mirror, good) as (source, _, _):
        assert (await source.resolve(REFERENCE))[1] == INDEX
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB


@pytest.mark.attack
@pytest.mark.parametrize("service", ["\udcff", "a\udc80b", "\u20ac", "%", "&x=y", "\x01"])
@pytest.mark.parametrize("credential", [None, Credential("me", "pw"), Credential("", "", identity_token="id")])
async def test_a_mirror_whose_challenge_no_url_can_hold_is_passed_by(
    service: str, credential: Credential | None
) -> None:
    challenge = f'Bearer realm="http://$/token",service="{service}",scope="{service}"'
    address = ""

    def mirror(asked: Asked) -> Raw:
        return raw(401, "WWW-Authenticate: " + challenge.replace("$", address))

    async with serving(mirror) as first, serving(good) as last:
        address = first.address
        files = (AuthFile("auth.json", {first.address: credential}),) if credential else ()
        async with Registry(credentials=Credentials(files), retry=RetryPolicy(rng=lambda: 0.0)) as registry:
            where = [endpoint(first.address), endpoint(last.address, origin=True)]
            assert (await registry.repository_at(REFERENCE, where).resolve(REFERENCE))[1] == INDEX


# At random.

_HEADERS = [
    "Location",
    "WWW-Authenticate",
    "Content-Range",
    "Content-Length",
    "Content-Type",
    "Content-Encoding",
    "Transfer-Encoding",
    "Docker-Content-Digest",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "Link",
    "Set-Cookie",
    "Connection",
    "Date",
]
_WORDS = [
    *BAD_URLS[:10],
    "http://127.0.0.1:1/",
    "http://$/x",
    "$",
    'Bearer realm="http://$/token"',
    'Bearer realm="',
    'Basic realm="x"',
    ",",
    '"',
    "\\",
    "=",
    ";",
    "w=",
    "sha256:",
    "0" * 64,
    "bytes ",
    "0-",
    "/*",
    "-",
    "99999999999999999999",
    "1e400",
    "\u0663",
    "\u00b2",
    "Mon, 01 Jan 0000 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 -9999",
    "Sun, 06 Nov 1994 08:49:37 +99999999999999",
    "gzip",
    "identity",
    "chunked",
    "text/html",
    "application/vnd.oci.image.index.v1+json",
    "retry-after: 1.1.1ms",
    " ",
    "a=b; Path=[",
]
_VALUE = st.lists(st.sampled_from(_WORDS) | st.text(max_size=8) | st.binary(max_size=8), min_size=1, max_size=4).map(
    lambda parts: b"".join(each if isinstance(each, bytes) else each.encode(errors="surrogateescape") for each in parts)
)
_LINES = st.lists(st.tuples(st.sampled_from(_HEADERS), _VALUE), min_size=1, max_size=4)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["token", "access_token", "expires_in", "errors", "code", "message"]), inner)
    ),
    max_leaves=8,
)
_BODY = (
    st.just(INDEX)
    | st.binary(max_size=20)
    | _JSON.map(lambda document: json.dumps(document).encode())
    | st.sampled_from([b"[" * 100_000, b'{"expires_in":' + b"9" * 5000 + b"}", b'{"token":"\xff"}', b"null", b'{"a":'])
)
_STATUS = st.sampled_from([200, 200, 206, 301, 307, 401, 401, 403, 404, 416, 429, 503, 999])
_ANSWER = st.tuples(_STATUS, _LINES, _BODY)


def hostile(answers: list[tuple[int, list[tuple[str, bytes]], bytes]], address: Callable[[], str]) -> Script:
    """Each of the answers in turn; without lines in which its values would end."""
    count = 0

    def script(asked: Asked) -> Raw:
        nonlocal count
        status, lines, body = answers[count % len(answers)]
        count += 1
        named = {name for name, _ in lines}
        head = b"HTTP/1.1 %d X\r\n" % status
        if not named & {"Content-Length", "Transfer-Encoding"}:
            head += b"Content-Length: %d\r\n" % len(body)
        for name, value in lines:
            value = value.replace(b"$", address().encode()).translate(None, b"\r\n\0")
            head += name.encode() + b": " + value + b"\r\n"
        return Raw(head + b"\r\n" + body, "close")

    return script


def raw(status: int, *lines: str, body: bytes = b"") -> Raw:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *lines))
    return Raw(head.encode(errors="surrogateescape") + b"\r\n" + body)


def good(asked: Asked) -> Raw:
    return MANIFEST if "/manifests/" in asked.path else whole(asked)


async def both(source: Repository, buffers: Buffers) -> tuple[bytes, bytes]:
    return (await source.resolve(REFERENCE))[1], await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers))


@pytest.mark.attack
@settings(max_examples=80, deadline=None, database=None, derandomize=True)
@given(st.lists(_ANSWER, min_size=1, max_size=3))
def test_whatever_a_mirror_says_the_image_comes(answers: list[tuple[int, list[tuple[str, bytes]], bytes]]) -> None:
    async def run() -> None:
        address = ""
        async with serving(hostile(answers, lambda: address)) as first, serving(good) as last:
            address = first.address
            files = (AuthFile("auth.json", {address: Credential("me", "pw")}),)
            client = Registry(
                credentials=Credentials(files),
                limits=Limits(read_s=0.3, max_wait_s=0.1),
                retry=RetryPolicy(rng=lambda: 0.0),
            )
            async with client:
                where = [endpoint(address), endpoint(last.address, origin=True)]
                source, buffers = client.repository_at(REFERENCE, where), Buffers(4 << 20)
                assert (await source.resolve(REFERENCE))[1] == INDEX
                if await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) != BLOB:  # which a digest shows
                    source.report_corrupt(BLOB_DESCRIPTOR, source.served_by(BLOB_DESCRIPTOR))
                    assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB

    asyncio.run(run())


@pytest.mark.attack
@settings(max_examples=80, deadline=None, database=None, derandomize=True)
@given(st.lists(_ANSWER, min_size=1, max_size=3))
def test_whatever_a_registry_says_alone_is_a_typed_error_at_worst(
    answers: list[tuple[int, list[tuple[str, bytes]], bytes]],
) -> None:
    async def run() -> None:
        address = ""
        async with serving(hostile(answers, lambda: address)) as server:
            address = server.address
            client = Registry(
                credentials=Credentials(explicit=Credential("me", "pw")),
                limits=Limits(read_s=0.3, max_wait_s=0.1),
                retry=RetryPolicy(tries=2, rng=lambda: 0.0),
            )
            async with client:
                source = client.repository_at(REFERENCE, [endpoint(address, origin=True)])
                with suppress(FastociError):
                    await source.resolve(REFERENCE)
                with suppress(FastociError):
                    await drain(source.fetch(BLOB_DESCRIPTOR, 0, Buffers(4 << 20)))

    asyncio.run(run())


_URL_TEXT = st.lists(st.sampled_from([*"[]@:/%?#x.-0", "http://", "https://", "//", "::1", "xn--", "%zz"]) | st.text())


@settings(max_examples=500, deadline=None, database=None, derandomize=True)
@given(_URL_TEXT.map("".join), st.booleans())
def test_any_text_is_a_url_or_a_value_error(text: str, relative: bool) -> None:
    with suppress(ValueError):
        url = parse_url(text, base=parse_url("http://registry.test:5000/v2/x") if relative else None)
        assert Origin.named(redact(url)) == Origin.of(url)
        assert str(url.extend_query([("a", "b")]))
        assert url.host


# A fault of our own.


@pytest.mark.attack
async def test_an_exception_that_nobody_expected_rules_out_a_mirror_and_not_the_pull(
    buffers: Buffers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with between(good, good) as (source, mirror, origin):
        monkeypatch.setattr(repository, "content_type", failing_at(mirror.address))
        monkeypatch.setattr(resuming_range, "label_of", failing_at(mirror.address, returns=None))
        assert await both(source, buffers) == (INDEX, BLOB)
        assert (len(mirror.asked), len(origin.asked)) == (2, 2)
    assert "unexpected ZeroDivisionError" in caplog.text


async def test_an_exception_that_nobody_expected_is_the_cause_of_the_error_in_the_end(
    buffers: Buffers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with between(good, lambda asked: raw(404)) as (source, mirror, _):
        monkeypatch.setattr(repository, "content_type", failing_at(mirror.address))
        with pytest.raises(NotFoundError) as caught:
            await source.resolve(REFERENCE)
    mirrors = caught.value.__cause__
    assert isinstance(mirrors, RegistryError)
    assert isinstance(mirrors.__cause__, ZeroDivisionError)


async def test_a_lack_of_memory_is_no_mirrors_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async with between(good, good) as (source, mirror, origin):
        monkeypatch.setattr(repository, "content_type", failing_at(mirror.address, MemoryError))
        with pytest.raises(MemoryError):
            await source.resolve(REFERENCE)
        assert not origin.asked


def test_what_cannot_be_read_is_as_if_nothing_was_said() -> None:
    assert parsed(int, "7") == 7
    assert parsed(int, "x") is None
    with pytest.raises(MemoryError), typed("http://registry.test"):
        raise MemoryError
    with pytest.raises(asyncio.CancelledError), typed("http://registry.test"):
        raise asyncio.CancelledError


def failing_at(
    address: str, kind: type[Exception] = ZeroDivisionError, *, returns: str | None = ""
) -> Callable[..., Any]:
    """A function that a fault hits for answers of one server."""

    def function(reply: Any, *_: object) -> str | None:
        if address in reply.url:
            raise kind
        return returns

    return function
