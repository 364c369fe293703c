"""Statuses and bodies of refusals as typed errors, with what the server says, capped and without secrets."""

from __future__ import annotations

import pytest

from fastoci.errors import (
    DeniedError,
    NotFoundError,
    RateLimitedError,
    RegistryError,
    UnauthorizedError,
    UnavailableError,
)
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.transport import RequestOptions, Transport
from fastoci.registry.http.urls import parse_url
from support.scripted_server import Raw, answer, as_json, serving


async def refused(raw: Raw) -> RegistryError:
    client = Transport(tls_verify=True, connect_s=5.0, read_s=5.0, connections=2)
    try:
        async with serving(lambda asked: raw) as server:
            return await error_of(
                await client.request("GET", parse_url(f"http://{server.address}/v2/x?s=1"), headers={})
            )
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnauthorizedError),
        (403, DeniedError),
        (404, NotFoundError),
        (429, RateLimitedError),
        (500, UnavailableError),
        (503, UnavailableError),
        (204, RegistryError),
        (304, RegistryError),
        (400, RegistryError),
        (418, RegistryError),
        (999, RegistryError),
    ],
)
async def test_the_status_decides_the_class(status: int, kind: type[RegistryError]) -> None:
    error = await refused(answer(status))
    assert type(error) is kind
    assert error.status == status
    assert error.url.endswith("/v2/x")
    assert str(status) in str(error)


async def test_the_registry_s_own_words_are_in_the_message() -> None:
    errors = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such tag", "detail": {"Tag": "x"}}]}
    error = await refused(as_json(errors, 404))
    assert error.code == "MANIFEST_UNKNOWN"
    assert str(error).endswith("404 MANIFEST_UNKNOWN: no such tag")


async def test_long_words_with_control_characters_are_cut_and_escaped() -> None:
    words = "\x1b[31mred\r\n" + "x" * 1000
    error = await refused(as_json({"errors": [{"code": "UNKNOWN", "message": words}]}, 500))
    assert "\\x1b[31mred\\r\\n" in str(error)
    assert "\x1b" not in str(error)
    assert "x" * 246 in str(error)
    assert "x" * 257 not in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>not here</html>",
        b"[]",
        b"null",
        b"{}",
        b'{"errors":[]}',
        b'{"errors":[5]}',
        b'{"errors":{"code":"X"}}',
        b'{"errors":[{"code":5,"message":[]}]}',
        b'{"errors":[{"code":"a b\\u0000","message":null}]}',
        b"\xff\xfe",
        b"[" * 60_000,
    ],
)
async def test_any_body_makes_the_same_error(body: bytes) -> None:
    error = await refused(answer(404, body))
    assert type(error) is NotFoundError
    assert error.code == ""
    assert str(error).endswith("404 Not Found")


async def test_an_endless_body_is_not_read_to_its_end() -> None:
    error = await refused(answer(404, b"x" * (32 << 20)))
    assert type(error) is NotFoundError


async def test_a_body_that_is_cut_changes_nothing() -> None:
    error = await refused(Raw(answer(404, b"x" * 100).data[:-50], "close"))
    assert type(error) is NotFoundError


async def test_429_carries_what_the_registry_asked_for() -> None:
    error = await refused(answer(429, headers={"Retry-After": "7"}))
    assert isinstance(error, RateLimitedError)
    assert error.retry_after_s == 7.0


@pytest.mark.parametrize(
    "told", ["q%2Fsigned", "q/signed", "tok.en", "user:pass word", "pass word", "dXNlcjpwYXNzIHdvcmQ=", "own header"]
)
@pytest.mark.parametrize("padding", [0, 250])
async def test_what_a_server_repeats_of_a_request_s_secrets_is_not_shown(told: str, padding: int) -> None:
    words = f"{'.' * padding}no {told} here"
    client = Transport(tls_verify=True, connect_s=5.0, read_s=5.0, connections=2)
    try:
        async with serving(lambda asked: as_json({"message": words}, status=403)) as server:
            url = parse_url(f"http://{server.address}/v2/x?scope=repository:app:pull&sig=q%2Fsigned")
            authorization = "Bearer tok.en" if told == "tok.en" else "Basic dXNlcjpwYXNzIHdvcmQ="
            options = RequestOptions(own={"X-Key": "own header"})
            reply = await client.request("GET", url, headers={}, authorization=authorization, options=options)
            error = await error_of(reply, hint="as asked")
    finally:
        await client.aclose()
    assert str(error).endswith(f"{('.' * padding + 'no *** here')[:256]}: as asked")
    assert not any(told[:size] in str(error).partition("no ")[2] for size in range(3, len(told) + 1))
