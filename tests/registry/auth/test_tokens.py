"""Tokens over time: lives, refusals, scopes, and many workers; the clock is the test's, nobody sleeps."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import pytest

from fastoci.errors import CredentialError, DeniedError, RegistryError, UnauthorizedError
from fastoci.registry.auth.authenticator import Authenticator
from fastoci.registry.auth.credential import Credential
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.urls import Origin, parse_url
from support.scripted_server import Asked, Raw, Server, answer, as_json, serving, unauthorized

ME = Credential("me", "hunter2")
SCOPE = "repository:team/app:pull"


@dataclass(slots=True)
class Realm:
    """A registry whose tokens live by its own clock, and its token service on the same port."""

    life_s: float = 300.0
    said_s: float | None = None  # what it says of their life, when that is not true
    step_s: float = 0.0  # by which the clock goes on with each request
    needs: str = SCOPE  # the scope that a token must have
    challenge: str = f'scope="{SCOPE}"'
    status: int = 401  # for a token that does not suffice
    accepts: bool = True
    says: bytes | None = None  # what its token service answers in place of a token
    now: float = 0.0
    issued: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)
    server: Server = field(default_factory=Server)

    def __call__(self, asked: Asked) -> Raw:
        self.now += self.step_s
        if asked.path == "/token" and self.says is not None:
            return answer(body=self.says)
        if asked.path == "/token":
            form = parse_qs(asked.body.decode())
            scopes = [value for name, value in asked.query if name == "scope"] or form.get("scope", [""])[0].split(" ")
            token = f"t{len(self.issued)}"
            self.issued[token] = (self.now + self.life_s, frozenset(scopes))
            return as_json({"token": token, "expires_in": self.said_s or self.life_s})
        until, scopes_held = self.issued.get(asked.headers.get("authorization", "")[7:], (0.0, frozenset[str]()))
        challenge = f'Bearer realm="http://{self.server.address}/token",service="svc",{self.challenge}'
        if self.now >= until or not self.accepts:
            return unauthorized(challenge)
        if self.needs not in scopes_held:
            return Raw(unauthorized(challenge).data.replace(b" 401 ", f" {self.status} ".encode(), 1))
        return answer(body=b"ok")

    def tokens(self) -> list[Asked]:
        return [asked for asked in self.server.asked if asked.path == "/token"]


@dataclass(slots=True)
class Client:
    """Asks a realm through an authenticator."""

    realm: Realm
    transport: Transport
    auth: Authenticator
    credential: Credential | None = None
    finds: int = 0

    async def get(self, path: str = "/v2/x", scope: str = SCOPE) -> bytes:
        url = parse_url(f"http://{self.realm.server.address}{path}")

        async def send(authorization: str | None) -> Reply:
            return await self.transport.request("GET", url, headers={}, authorization=authorization)

        reply = await self.auth.request(Origin.of(url), scope, send, self.find, name="r.test", verified=True, ping=None)
        if reply.status != 200:
            raise await error_of(reply)
        body = await reply.read(100)
        reply.close()
        return body

    async def find(self) -> Credential | None:
        self.finds += 1
        return self.credential


@asynccontextmanager
async def asking(realm: Realm, credential: Credential | None = None, *, strict: bool = False) -> AsyncIterator[Client]:
    async with serving(realm) as realm.server:
        transport = Transport(tls_verify=True, connect_s=5, read_s=5, connections=8)
        auth = Authenticator(transport, tls_verify=True, strict=strict, clock=lambda: realm.now)
        try:
            yield Client(realm, transport, auth, credential)
        finally:
            await auth.aclose()
            await transport.aclose()


async def test_tokens_that_live_2_s_carry_200_workers_through_a_job() -> None:
    realm = Realm(life_s=2.0, step_s=0.004)
    async with asking(realm, ME) as client:

        async def work() -> None:
            for _ in range(10):
                assert await client.get() == b"ok"

        await asyncio.gather(*(work() for _ in range(200)))
    lived = realm.now / (0.8 * realm.life_s)  # the tokens that this time needs
    assert lived > 5
    assert len(realm.tokens()) <= 1.3 * lived + 1


async def test_a_token_is_renewed_before_its_end_and_nobody_is_refused() -> None:
    realm = Realm(life_s=100.0)
    async with asking(realm) as client:
        for now in (0.0, 50.0, 79.0, 81.0, 150.0):
            realm.now = now
            await client.get()
    assert [asked.path for asked in realm.server.asked].count("/token") == 2
    assert len(realm.server.asked) == 1 + 5 + 2  # one 401, at the very first


async def test_tokens_that_die_before_their_time_are_replaced_once_for_all_that_wait() -> None:
    realm = Realm(life_s=2.0, said_s=300.0)
    async with asking(realm) as client:
        for round_ in range(5):
            realm.now = 10.0 * round_
            await asyncio.gather(*(client.get() for _ in range(20)))
            assert len(realm.tokens()) == round_ + 1


async def test_a_token_that_is_never_good_is_fetched_once_in_a_whole_job() -> None:
    realm = Realm(accepts=False)
    async with asking(realm, ME) as client:
        results = await asyncio.gather(*(client.get() for _ in range(50)), return_exceptions=True)
        for _ in range(5):
            with pytest.raises(UnauthorizedError, match=r"the credentials for r\.test were not accepted"):
                await client.get()
    assert all(isinstance(result, UnauthorizedError) for result in results)
    assert len(realm.tokens()) == 1


async def test_a_token_that_was_good_and_is_refused_for_ever_is_replaced_once() -> None:
    realm = Realm()
    async with asking(realm, ME) as client:
        await client.get()
        realm.accepts = False
        for _ in range(5):
            with pytest.raises(UnauthorizedError):
                await client.get()
    assert len(realm.tokens()) == 2


async def test_a_token_that_was_never_good_is_replaced_when_it_is_due() -> None:
    realm = Realm(accepts=False)
    async with asking(realm) as client:
        with pytest.raises(UnauthorizedError):
            await client.get()
        realm.accepts, realm.now = True, 290.0
        assert await client.get() == b"ok"
    assert len(realm.tokens()) == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_a_wider_scope_is_fetched_once_and_kept(status: int) -> None:
    wider = f"{SCOPE},metadata_read"
    realm = Realm(needs=wider, challenge=f'scope="{wider}",error="insufficient_scope"', status=status)
    async with asking(realm) as client:
        await client.get()
        await client.get()
        realm.now = 299.0  # the renewed token has the wider scope, too
        await client.get()
    scopes = [[value for name, value in asked.query if name == "scope"] for asked in realm.tokens()]
    assert scopes == [[SCOPE, wider]] * 2


async def test_a_registry_that_names_a_repository_otherwise_gets_a_token_for_both_names() -> None:
    # A caching proxy, say: the scope is not what the path says.
    other = "repository:proxy/team/app:pull"
    realm = Realm(needs=other, challenge=f'scope="{other}"', status=401)
    async with asking(realm) as client:
        await client.get()
    scopes = [[value for name, value in asked.query if name == "scope"] for asked in realm.tokens()]
    assert scopes == [[SCOPE], [SCOPE, other]]


async def test_403_without_a_wider_scope_is_final() -> None:
    realm = Realm(needs="nobody has it", status=403)
    async with asking(realm) as client:
        for _ in range(3):
            with pytest.raises(DeniedError):
                await client.get()
    assert len(realm.tokens()) == 1


async def test_a_registry_that_wants_ever_more_scopes_is_given_up() -> None:
    realm = Realm(needs="nobody has it", status=403)
    calls = 0

    def script(asked: Asked) -> Raw:
        nonlocal calls
        calls += 1
        realm.challenge = f'scope="repository:s{calls}:pull"'
        return realm(asked)

    async with asking(realm) as client, serving(script) as realm.server:
        for _ in range(20):
            with pytest.raises(RegistryError):
                await client.get()
    assert len(realm.tokens()) <= 8
    assert max(len(asked.query) for asked in realm.tokens()) <= 1 + 8


async def test_a_refresh_token_is_posted_with_all_scopes_in_one_parameter() -> None:
    wider = f"{SCOPE},metadata_read"
    realm = Realm(needs=wider, challenge=f'scope="{wider}",error="insufficient_scope"')
    async with asking(realm, Credential("", identity_token="refresh")) as client:
        assert await client.get() == b"ok"
    (asked,) = realm.tokens()
    assert parse_qs(asked.body.decode())["scope"] == [f"{SCOPE} {wider}"]


async def test_a_request_without_a_scope_asks_for_none() -> None:
    realm = Realm(needs="", challenge="")
    async with asking(realm, Credential("", identity_token="refresh")) as client:
        assert await client.get("/v2/", scope="") == b"ok"
    assert b"scope" not in realm.tokens()[0].body


async def test_a_registry_token_is_sent_as_it_is_and_asked_of_nobody() -> None:
    realm = Realm()
    realm.issued["mine"] = (300.0, frozenset({SCOPE}))
    async with asking(realm, Credential("", registry_token="mine")) as client:
        for _ in range(2):
            assert await client.get() == b"ok"
        assert len(realm.server.asked) == 3
        realm.now = 300.0
        with pytest.raises(UnauthorizedError, match="were not accepted"):
            await client.get()
    assert realm.tokens() == []


async def test_credentials_are_not_looked_for_while_nobody_asks() -> None:
    async with serving(lambda asked: answer(body=b"ok")) as server:
        realm = Realm(server=server)
        async with asking(realm) as client:
            realm.server = server
            assert await client.get() == b"ok"
            assert client.finds == 0


async def test_a_search_for_credentials_that_fails_ends_the_request() -> None:
    realm = Realm()
    async with asking(realm) as client:

        async def fail() -> Credential | None:
            raise CredentialError("docker-credential-x: broken")

        url = parse_url(f"http://{realm.server.address}/v2/x")

        async def send(authorization: str | None) -> Reply:
            return await client.transport.request("GET", url, headers={}, authorization=authorization)

        with pytest.raises(CredentialError):
            await client.auth.request(Origin.of(url), SCOPE, send, fail, name="r.test", verified=True, ping=None)


async def test_a_strict_one_asks_nobody_for_a_token_without_the_credential() -> None:
    async with serving(lambda asked: as_json({"token": "t"})) as elsewhere:

        def script(asked: Asked) -> Raw:
            return unauthorized(f'Bearer realm="http://{elsewhere.address}/token"')

        realm = Realm()
        async with asking(realm, ME, strict=True) as client, serving(script) as realm.server:
            with pytest.raises(UnauthorizedError, match="the credentials were not sent"):
                await client.get()
        assert elsewhere.asked == []


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest", "gopher://127.0.0.1:1/", "file:///etc/shadow", "//[fe80::1]/x"]
)
async def test_a_token_service_may_not_redirect_everywhere(location: str) -> None:
    realm = Realm()

    def script(asked: Asked) -> Raw:
        return answer(302, headers={"Location": location}) if asked.path == "/token" else realm(asked)

    async with asking(realm, ME) as client, serving(script) as realm.server:
        with pytest.raises(RegistryError) as caught:
            await client.get()
    assert "hunter2" not in str(caught.value)


async def test_no_secret_is_in_any_error_of_the_flow() -> None:
    secrets = ("hunter2", base64.b64encode(b"me:hunter2").decode(), "t0", "refresh")
    for credential in (ME, Credential("", identity_token="refresh"), Credential("", registry_token="hunter2")):
        realm = Realm(accepts=False)
        async with asking(realm, credential) as client:
            with pytest.raises(UnauthorizedError) as caught:
                await client.get()
        told = json.dumps([str(caught.value), repr(caught.value), vars(caught.value), repr(credential)], default=str)
        assert not any(secret in told for secret in secrets)


async def test_a_token_that_ran_out_while_its_first_request_waited_is_replaced() -> None:
    realm = Realm(life_s=2.0)
    sends = 0
    async with asking(realm) as client:
        url = parse_url(f"http://{realm.server.address}/v2/x")

        async def send(authorization: str | None) -> Reply:
            nonlocal sends
            sends += 1
            if sends == 2:
                realm.now += 3.0
            return await client.transport.request("GET", url, headers={}, authorization=authorization)

        reply = await client.auth.request(
            Origin.of(url), SCOPE, send, client.find, name="r.test", verified=True, ping=None
        )
        assert await reply.read(10) == b"ok"
        reply.close()
    assert len(realm.tokens()) == 2


@pytest.mark.parametrize("said", [b'{"token":"s3cret",', b'"s3cret"', b"s3cret"])
async def test_what_a_token_service_answers_is_not_shown(said: bytes) -> None:
    async with asking(Realm(says=said)) as client:
        with pytest.raises(UnauthorizedError, match="not a JSON object") as caught:
            await client.get()
    assert "s3cret" not in str(caught.value)


async def test_a_life_beyond_all_numbers_is_a_long_one() -> None:
    async with asking(Realm(says=b'{"token":"t","expires_in":1' + b"0" * 400 + b"}")) as client:
        with pytest.raises(UnauthorizedError):  # the token is of nobody
            await client.get()
