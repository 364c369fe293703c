"""Who gets which token: one request for many waiters, one token a repository, no loop after a refusal."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from yarl import URL

from fastoci.errors import (
    DeniedError,
    FastociError,
    NotFoundError,
    RateLimitedError,
    RegistryError,
    UnauthorizedError,
    UnavailableError,
)
from fastoci.image.descriptor import Descriptor
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.config.endpoints import Endpoint
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.http.tls import Tls
from support.scripted_server import Asked, Buffers, Raw, Script, Server, answer, as_json, drain, serving, unauthorized

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
    }
).encode()
OK = answer(body=MANIFEST, headers={"Content-Type": "application/vnd.oci.image.index.v1+json"})
PAGE = answer(body=b"<html>sign in</html>", headers={"Content-Type": "text/html; charset=utf-8"})
BLOB = b"blob"
ME = Credential("me", "hunter2")
BASIC = "Basic " + base64.b64encode(b"me:hunter2").decode()


@asynccontextmanager
async def client(
    credential: Credential | None = None, *, tls_verify: bool = True, connections: int = 8
) -> AsyncIterator[Registry]:
    credentials = Credentials(explicit=credential)
    async with Registry(
        credentials=credentials,
        tls_verify=tls_verify,
        limits=Limits(read_s=5.0, connections=connections, max_wait_s=0.0),
        retry=RetryPolicy(tries=1),
    ) as made:
        yield made


async def resolve(registry: Registry, host: str, path: str = "team/app") -> bytes:
    reference = Reference.parse(f"{host}/{path}:1")
    return (await registry.repository(reference).resolve(reference))[1]


class Guarded:
    """A registry that wants Bearer tokens, and its token service on the same port."""

    def __init__(self, token: Callable[[Asked], Raw], *, realm: str = "http://{address}/token", more: str = "") -> None:
        self.token = token
        self.realm = realm
        self.more = more
        self.good: set[str] = set()
        self.server: Server | None = None

    def __call__(self, asked: Asked) -> Raw:
        assert self.server is not None
        if asked.path == "/token":
            return self.token(asked)
        if asked.headers.get("authorization", "").removeprefix("Bearer ") in self.good:
            return answer(body=BLOB) if "/blobs/" in asked.path else OK
        realm = self.realm.format(address=self.server.address)
        return unauthorized(f'Bearer realm="{realm}",service="svc",scope="repository:team/app:pull"{self.more}')

    def issue(self, name: str = "token", **fields: object) -> Raw:
        token = f"t{len(self.good)}"
        self.good.add(token)
        return as_json({name: token, **fields})

    def tokens(self) -> list[Asked]:
        assert self.server is not None
        return [asked for asked in self.server.asked if asked.path == "/token"]


@asynccontextmanager
async def guarded(guard: Guarded) -> AsyncIterator[Server]:
    async with serving(guard) as server:
        guard.server = server
        yield server


def issuing(name: str = "token", **fields: object) -> Guarded:
    guard = Guarded(lambda asked: guard.issue(name, **fields))
    return guard


@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_an_anonymous_token_is_fetched_and_used_again(name: str) -> None:
    guard = issuing(name)
    async with guarded(guard) as server, client() as registry:
        for _ in range(3):
            assert await resolve(registry, server.address) == MANIFEST
        (token,) = guard.tokens()
    assert token.method == "GET"
    assert token.query == (("service", "svc"), ("scope", "repository:team/app:pull"))
    assert "authorization" not in token.headers
    assert len(server.asked) == 5  # 401, token, and three manifests


async def test_a_token_is_asked_for_with_the_credentials_of_the_registry() -> None:
    guard = issuing()
    async with guarded(guard) as server, client(ME) as registry:
        await resolve(registry, server.address)
        assert [asked.headers.get("authorization") for asked in guard.tokens()] == [BASIC]


async def test_an_identity_token_is_posted_as_a_refresh_token() -> None:
    guard = issuing("access_token")
    async with guarded(guard) as server, client(Credential("", "", "refresh/me")) as registry:
        await resolve(registry, server.address)
        (asked,) = guard.tokens()
    assert asked.method == "POST"
    assert "authorization" not in asked.headers
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.body == (
        b"grant_type=refresh_token&client_id=fastoci&service=svc"
        b"&scope=repository%3Ateam%2Fapp%3Apull&refresh_token=refresh%2Fme"
    )


async def test_each_repository_has_a_token_of_its_own() -> None:
    guard = issuing()
    async with guarded(guard) as server, client() as registry:
        for path in ("team/app", "team/other", "team/app"):
            await resolve(registry, server.address, path)
        assert [dict(asked.query)["scope"] for asked in guard.tokens()] == [
            "repository:team/app:pull",
            "repository:team/other:pull",
        ]


async def test_many_that_wait_share_one_token_request() -> None:
    guard = issuing()
    async with guarded(guard) as server, client(connections=64) as registry:
        await asyncio.gather(*(resolve(registry, server.address) for _ in range(100)))
        assert len(guard.tokens()) == 1


async def test_a_waiter_that_is_cancelled_takes_the_token_from_nobody() -> None:
    guard = issuing()
    async with guarded(guard) as server, client(connections=64) as registry:
        tasks = [asyncio.create_task(resolve(registry, server.address)) for _ in range(20)]
        await server.until(1, "/token")
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [task.result() for task in tasks[1::2]] == [MANIFEST] * 10
        assert len(guard.tokens()) == 1


async def test_each_waiter_gets_an_error_of_its_own() -> None:
    guard = Guarded(lambda asked: answer(503))
    async with guarded(guard) as server, client(connections=64) as registry:
        results = await asyncio.gather(*(resolve(registry, server.address) for _ in range(10)), return_exceptions=True)
    errors = [result for result in results if isinstance(result, UnavailableError)]
    assert len(errors) == len({id(error) for error in errors}) == 10
    errors[0].image = "mine"
    assert errors[1].image is None
    assert {error.status for error in errors} == {503}
    assert all("/token: 503" in str(error) for error in errors)


async def test_a_token_that_is_refused_later_is_replaced_once() -> None:
    guard = issuing()
    async with guarded(guard) as server, client() as registry:
        await resolve(registry, server.address)
        guard.good = {"revoked", "others"}
        await asyncio.gather(*(resolve(registry, server.address) for _ in range(8)))
        assert len(guard.tokens()) == 2


async def test_a_token_is_renewed_before_it_expires() -> None:
    guard = issuing(expires_in=1e-9)
    async with guarded(guard) as server, client() as registry:
        await resolve(registry, server.address)
        await resolve(registry, server.address)
    # The second round meets no 401: the token goes first.
    assert [asked.path == "/token" for asked in server.asked] == [False, True, False, True, False]


async def test_401_with_a_fresh_token_ends_without_a_loop() -> None:
    guard = Guarded(lambda asked: as_json({"token": "never-good"}))
    async with guarded(guard) as server, client(ME) as registry:
        with pytest.raises(UnauthorizedError, match=r"the credentials for 127\.0\.0\.1:.* were not accepted") as caught:
            await resolve(registry, server.address)
        assert caught.value.code == "UNAUTHORIZED"
        assert len(guard.tokens()) == 1
        assert len(server.asked) == 3


async def test_insufficient_scope_asks_for_what_the_registry_wants() -> None:
    guard = issuing()
    guard.more = ',error="insufficient_scope"'

    def script(asked: Asked) -> Raw:
        raw = guard(asked)
        return Raw(raw.data.replace(b'repository:team/app:pull"', b'repository:team/app:pull,metadata_read"'), raw.end)

    async with serving(script) as server, client() as registry:
        guard.server = server
        await resolve(registry, server.address)
        (token,) = guard.tokens()
    assert [value for name, value in token.query if name == "scope"] == [
        "repository:team/app:pull",
        "repository:team/app:pull,metadata_read",
    ]


@pytest.mark.parametrize(
    "raw",
    [
        answer(body=b"<html>login</html>"),
        answer(body=b""),
        answer(body=b"[]"),
        answer(body=b"[" * 100_000),
        as_json({}),
        as_json({"token": ""}),
        as_json({"token": 5}),
        as_json({"token": "a\r\nX-Evil: 1"}),
        as_json({"token": "caf\u00e9"}),
        answer(body=b'{"token":"a"}' + b" " * (1 << 20)),
    ],
)
async def test_an_answer_that_is_no_token_is_an_authentication_error(raw: Raw) -> None:
    async with guarded(Guarded(lambda asked: raw)) as server, client() as registry:
        with pytest.raises(UnauthorizedError, match="token service"):
            await resolve(registry, server.address)


@pytest.mark.parametrize("life", [0, -1, 1e12, "300", True, None, 1e400, []])
async def test_an_odd_life_of_a_token_is_no_reason_to_fail(life: object) -> None:
    guard = issuing(expires_in=life)
    async with guarded(guard) as server, client() as registry:
        for _ in range(3):
            await resolve(registry, server.address)
        assert len(guard.tokens()) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnauthorizedError),
        (403, DeniedError),
        (429, RateLimitedError),
        (500, UnavailableError),
        (418, RegistryError),
    ],
)
async def test_a_token_service_that_says_no_is_a_typed_error(status: int, kind: type[RegistryError]) -> None:
    refused = as_json({"details": "incorrect username or password"}, status)
    async with guarded(Guarded(lambda asked: refused)) as server, client(ME) as registry:
        with pytest.raises(kind, match=f"/token: {status}.*incorrect username or password") as caught:
            await resolve(registry, server.address)
        assert type(caught.value) is kind
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "realm",
    ["gopher://127.0.0.1:6379/_x", "file:///etc/shadow", "/token", "http://", "http://169.254.169.254/latest", "//h/t"],
)
async def test_a_realm_that_may_not_be_asked_is_refused(realm: str) -> None:
    async with guarded(Guarded(lambda asked: as_json({}), realm=realm)) as server, client(ME) as registry:
        with pytest.raises(RegistryError):
            await resolve(registry, server.address)
        assert "/token" not in server.paths()


async def test_basic_is_used_when_it_is_asked_for() -> None:
    def script(asked: Asked) -> Raw:
        return OK if asked.headers.get("authorization") == BASIC else unauthorized('Basic realm="x"')

    async with serving(script) as server, client(ME) as registry:
        for _ in range(2):
            assert await resolve(registry, server.address) == MANIFEST
        assert len(server.asked) == 3


@pytest.mark.parametrize("challenge", ['Basic realm="x"', "Negotiate", "", "Bearer service=x", 'Digest realm="x"'])
async def test_without_a_way_in_the_error_says_what_is_missing(challenge: str) -> None:
    async with serving(lambda asked: unauthorized(challenge)) as server, client() as registry:
        with pytest.raises(UnauthorizedError, match=r"authentication required: no credentials for 127\.0\.0\.1"):
            await resolve(registry, server.address)
        asked_how = ["/v2/"] * (challenge != 'Basic realm="x"')
        assert server.paths() == ["/v2/team/app/manifests/1", *asked_how]


def hidden(refusal: Raw, challenge: str, token: Raw | None = None) -> Callable[[Asked], Raw]:
    """A registry that shows an image to those with a credential, and says only at /v2/ that it takes any."""

    def script(asked: Asked) -> Raw:
        if asked.path == "/token":
            return token or answer(404)
        if asked.headers.get("authorization") in (BASIC, "Bearer t0"):
            return OK
        if asked.path == "/users/sign_in":
            return PAGE
        return unauthorized(challenge) if asked.path == "/v2/" else refusal

    return script


@pytest.mark.parametrize("credential", [None, ME])
@pytest.mark.parametrize("top", [answer(200), unauthorized('Basic realm="x"')])
async def test_a_manifest_that_is_labelled_as_a_page_is_one(credential: Credential | None, top: Raw) -> None:
    labelled = answer(body=MANIFEST, headers={"Content-Type": "text/html"})
    async with (
        serving(lambda asked: top if asked.path == "/v2/" else labelled) as server,
        client(credential) as registry,
    ):
        assert await resolve(registry, server.address) == MANIFEST


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_what_is_said_to_everyone_alike_is_no_reason_for_credentials(status: int) -> None:
    async with serving(lambda asked: answer(status)) as server, client(ME) as registry:
        with pytest.raises(RegistryError):
            await resolve(registry, server.address)
        assert server.paths() == ["/v2/team/app/manifests/1"]


@pytest.mark.parametrize(
    "refusal",
    [
        answer(400),
        answer(401),
        answer(403),
        answer(404),
        unauthorized("Negotiate"),
        answer(404, b"x" * (1 << 20)),
        answer(404, end="close"),
        answer(405),
        answer(410),
        answer(451),
        PAGE,
        answer(302, headers={"Location": "/users/sign_in"}),
    ],
)
async def test_credentials_are_offered_to_a_registry_that_hides_from_strangers(refusal: Raw) -> None:
    script = hidden(refusal, 'Basic realm="x"')
    async with serving(script) as server, client(ME, connections=1) as registry:
        for path in ("team/app", "team/app", "team/other"):
            assert await resolve(registry, server.address, path) == MANIFEST
        app, other = "/v2/team/app/manifests/1", "/v2/team/other/manifests/1"
        asked = [path for path in server.paths() if path != "/users/sign_in"]
        assert asked == [app, "/v2/", app, app, other, other]  # /v2/ once


async def test_a_refusal_that_names_the_way_in_is_enough() -> None:
    refusal = answer(403, headers={"WWW-Authenticate": 'Basic realm="x"'})
    async with serving(hidden(refusal, "Negotiate")) as server, client(ME) as registry:
        assert await resolve(registry, server.address) == MANIFEST
        assert "/v2/" not in server.paths()


@pytest.mark.parametrize("credential", [None, ME])
async def test_a_token_is_asked_for_where_only_v2_names_the_service(credential: Credential | None) -> None:
    address = ""

    def script(asked: Asked) -> Raw:
        challenge = f'Bearer realm="http://{address}/token",service="svc"'
        return hidden(answer(404), challenge, as_json({"token": "t0"}))(asked)

    async with serving(script) as server, client(credential) as registry:
        address = server.address
        assert await resolve(registry, server.address) == MANIFEST
        (token,) = (asked for asked in server.asked if asked.path == "/token")
        assert ("scope", "repository:team/app:pull") in token.query
        assert token.headers.get("authorization") == (None if credential is None else BASIC)


@pytest.mark.parametrize("credential", [None, ME])
@pytest.mark.parametrize(
    "top", [answer(200), answer(404), unauthorized(""), unauthorized("Negotiate"), Raw(b"", "close")]
)
async def test_what_is_not_there_stays_so_where_nobody_asks_for_credentials(
    credential: Credential | None, top: Raw
) -> None:
    async with serving(lambda asked: top if asked.path == "/v2/" else answer(404)) as server:
        async with client(credential) as registry:
            with pytest.raises(NotFoundError):
                await resolve(registry, server.address)
        assert all("authorization" not in asked.headers for asked in server.asked)


async def test_a_stranger_without_a_token_is_told_what_the_registry_said() -> None:
    address = ""

    def script(asked: Asked) -> Raw:
        return hidden(answer(404), f'Bearer realm="http://{address}/token"', answer(401))(asked)

    async with serving(script) as server, client() as registry:
        address = server.address
        with pytest.raises(NotFoundError):
            await resolve(registry, server.address)


@pytest.mark.parametrize("status", [403, 404])
async def test_credentials_are_offered_on_no_word_of_another_host(status: int) -> None:
    async with serving(lambda asked: unauthorized('Basic realm="x"')) as evil:

        def redirected(asked: Asked) -> Raw:
            return answer(307, headers={"Location": f"http://{evil.address}{asked.path}"})

        async with serving(lambda asked: redirected(asked) if asked.path == "/v2/" else answer(status)) as server:
            async with client(ME) as registry:
                with pytest.raises(RegistryError):
                    await resolve(registry, server.address)
            assert all("authorization" not in asked.headers for asked in (*server.asked, *evil.asked))

        async with serving(lambda asked: answer(status)) as other:

            def moved(asked: Asked) -> Raw:
                return answer(307, headers={"Location": f"http://{other.address}/x"})

            async with serving(moved) as server, client(ME) as registry:
                with pytest.raises(RegistryError):
                    await resolve(registry, server.address)
                assert [asked.path for asked in (*server.asked, *other.asked)] == ["/v2/team/app/manifests/1", "/x"]


async def test_wrong_basic_credentials_are_sent_once() -> None:
    async with serving(lambda asked: unauthorized('Basic realm="x"')) as server, client(ME) as registry:
        for _ in range(2):
            with pytest.raises(UnauthorizedError, match="were not accepted"):
                await resolve(registry, server.address)
        assert [asked.headers.get("authorization") == BASIC for asked in server.asked] == [False, True, True]


async def test_the_host_of_a_redirect_gets_no_credentials_whatever_it_asks_for() -> None:
    async with serving(lambda asked: unauthorized('Basic realm="x"')) as evil:

        def script(asked: Asked) -> Raw:
            return answer(307, headers={"Location": f"http://{evil.address}/x"})

        async with serving(script) as server, client(ME) as registry:
            with pytest.raises(UnauthorizedError, match="asked by the host of a redirect"):
                await resolve(registry, server.address)
        assert len(evil.asked) == 1
        assert "authorization" not in evil.asked[0].headers


async def test_credentials_are_not_sent_to_a_token_service_elsewhere_over_http() -> None:
    async with serving(lambda asked: as_json({"token": "t0"})) as elsewhere:
        guard = Guarded(lambda asked: answer(404), realm=f"http://{elsewhere.address}/token")
        guard.good = {"t0"}
        async with guarded(guard) as server, client(ME) as registry:
            assert await resolve(registry, server.address) == MANIFEST
        assert "authorization" not in elsewhere.asked[0].headers


async def test_the_error_says_that_credentials_were_held_back() -> None:
    async with serving(lambda asked: answer(401)) as elsewhere:
        guard = Guarded(lambda asked: answer(404), realm=f"http://{elsewhere.address}/token")
        async with guarded(guard) as server, client(ME) as registry:
            with pytest.raises(UnauthorizedError, match="the credentials were not sent"):
                await resolve(registry, server.address)


async def test_credentials_do_not_follow_a_redirect_of_the_token_service() -> None:
    async with serving(lambda asked: as_json({"token": "t0"})) as elsewhere:
        guard = Guarded(lambda asked: answer(307, headers={"Location": f"http://{elsewhere.address}/t"}))
        guard.good = {"t0"}
        async with guarded(guard) as server, client(ME) as registry:
            assert await resolve(registry, server.address) == MANIFEST
        assert guard.tokens()[0].headers["authorization"] == BASIC
        assert "authorization" not in elsewhere.asked[0].headers


async def test_a_refresh_token_follows_no_redirect() -> None:
    guard = Guarded(lambda asked: answer(307, headers={"Location": "/elsewhere"}))
    async with guarded(guard) as server, client(Credential("", "", "refresh")) as registry:
        with pytest.raises(RegistryError, match="carries a secret"):
            await resolve(registry, server.address)
        assert "/elsewhere" not in server.paths()


class Secure:
    """An https registry at ``registry.test`` and a token service at ``auth.test``."""

    def __init__(self, names: dict[str, str], certified: Callable[..., ssl.SSLContext]) -> None:
        names |= {"registry.test": "127.0.0.1", "auth.test": "127.0.0.1"}
        self.tls = certified("registry.test", "auth.test")

    @asynccontextmanager
    async def __call__(self, auth: Script, *, scheme: str = "https") -> AsyncIterator[tuple[str, Server]]:
        async with serving(auth, tls=self.tls if scheme == "https" else None) as service:
            guard = Guarded(lambda asked: answer(404), realm=f"{scheme}://auth.test:{service.port}/token")
            guard.good = {"t0"}
            async with serving(guard, tls=self.tls) as server:
                guard.server = server
                yield f"registry.test:{server.port}", service


@pytest.fixture
def secure(names: dict[str, str], certified: Callable[..., ssl.SSLContext]) -> Secure:
    return Secure(names, certified)


async def test_credentials_go_to_a_service_named_and_reached_over_verified_tls(secure: Secure, trusted: None) -> None:
    async with secure(lambda asked: as_json({"token": "t0"})) as (host, service), client(ME) as registry:
        assert await resolve(registry, host) == MANIFEST
        assert service.asked[0].headers["authorization"] == BASIC


async def test_credentials_stay_when_certificates_are_not_verified(secure: Secure) -> None:
    async with (
        secure(lambda asked: as_json({"token": "t0"})) as (host, service),
        client(ME, tls_verify=False) as registry,
    ):
        assert await resolve(registry, host) == MANIFEST
        assert "authorization" not in service.asked[0].headers


async def test_credentials_stay_when_the_service_is_a_host_that_need_not_be_verified(
    secure: Secure, trusted: None
) -> None:
    async with secure(lambda asked: as_json({"token": "t0"})) as (host, service), client(ME) as registry:
        mirror = Endpoint(
            URL(f"https://auth.test:{service.port}/v2"), "team/app", "auth.test", False, Tls(verify=False)
        )
        with suppress(FastociError):
            reference = Reference.parse(f"{host}/other")
            await registry.repository_at(reference, [mirror]).resolve(reference)
        service.asked.clear()
        assert await resolve(registry, host) == MANIFEST
        assert service.asked
        assert not any("authorization" in asked.headers for asked in service.asked)


async def test_an_https_registry_may_not_name_an_http_service(secure: Secure, trusted: None) -> None:
    script = lambda asked: as_json({"token": "t0"})  # noqa: E731
    async with secure(script, scheme="http") as (host, service), client(ME) as registry:
        with pytest.raises(UnauthorizedError, match="which is not https"):
            await resolve(registry, host)
        assert not service.asked


async def test_a_blob_is_fetched_though_its_token_was_revoked_meanwhile(buffers: Buffers) -> None:
    guard = issuing()
    async with guarded(guard) as server, client() as registry:
        reference = Reference.parse(f"{server.address}/team/app:1")
        repository = registry.repository(reference)
        await repository.resolve(reference)
        guard.good = {"revoked"}
        assert await drain(repository.fetch(Descriptor.of(BLOB, "x"), 0, buffers)) == BLOB
        assert len(guard.tokens()) == 2
