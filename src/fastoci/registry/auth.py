"""Authorization headers: Basic, and Bearer tokens fetched once for all that wait and kept until shortly before expiry.

It knows the token services' protocol and whom a secret may be told; it knows nothing of manifests and blobs.

Rules:
1. A token is kept by the registry's origin and the scope. One fetch runs for each, whoever waits.
2. An https registry may only name an https token service.
3. A credential goes to the registry's own origin, or over verified TLS to the service that the registry named over
   verified TLS. It never follows a redirect to another origin, a refresh token no redirect at all.
4. What a service answers is capped, typed and free of control characters before it becomes a header.

Spec: distribution-spec token authentication; RFC 6750; RFC 6749 section 6 (refresh tokens).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from yarl import URL

from fastoci.errors import FastociError, UnauthorizedError
from fastoci.registry.challenge import Challenge
from fastoci.registry.credentials import Credential
from fastoci.registry.refusals import printable, refusal
from fastoci.registry.transport import Origin, Reply, Transport, parse_url, redact

_BODY_SIZE: Final = 1 << 20  # bytes of a token service's answer
_LIFE_S: Final = 60.0  # of a token whose service does not say
_LIFE_MOST_S: Final = 86400.0
_USED_PART: Final = 0.8  # of a token's life, after which it is renewed
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

_Key = tuple[Origin, str]


@dataclass(frozen=True, slots=True)
class _Grant:
    header: str = field(repr=False)
    renew_at: float  # the loop's clock
    challenge: Challenge
    credential: Credential | None


class Authenticator:
    """The authorizations of one client."""

    def __init__(self, transport: Transport, *, tls_verify: bool) -> None:
        self._transport = transport
        self._tls_verify = tls_verify
        self._grants: dict[_Key, _Grant] = {}
        self._pending: dict[_Key, asyncio.Task[_Grant]] = {}

    async def aclose(self) -> None:
        """End token requests that are under way."""
        tasks = list(self._pending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def authorization(self, origin: Origin, scope: str) -> str | None:
        """The header to send first: None when the registry has not asked for one yet.

        Raises:
            RegistryError, TransportError: the token is due for renewal, and the service does not renew it.
        """
        grant = self._grants.get((origin, scope))
        if grant is None:
            return None
        if self._now() < grant.renew_at:
            return grant.header
        return await self._obtain(origin, scope, grant.challenge, grant.credential)

    async def answer(
        self,
        origin: Origin,
        scope: str,
        challenges: Sequence[Challenge],
        credential: Credential | None,
        *,
        rejected: str | None,
    ) -> str | None:
        """The header to send after a 401, or None when there is nothing to try.

        Args:
            rejected: the header that was sent; None when there was none.
        Raises:
            UnauthorizedError: the token service may not be asked, or answers nonsense.
            RegistryError, TransportError: the token service refuses or does not answer.
        """
        grant = self._grants.get((origin, scope))
        if grant is not None and grant.header != rejected and self._now() < grant.renew_at:
            return grant.header  # another task got it meanwhile
        bearer = [c for c in challenges if c.scheme == "bearer" and c.params.get("realm")]
        if bearer:
            return await self._obtain(origin, scope, bearer[0], credential)
        basic = [c for c in challenges if c.scheme == "basic"]
        if not basic or credential is None or not credential.username:
            return None
        header = _basic(credential)
        if header == rejected:
            return None
        self._grants[origin, scope] = _Grant(header, math.inf, basic[0], credential)
        return header

    async def _obtain(self, origin: Origin, scope: str, challenge: Challenge, credential: Credential | None) -> str:
        """Fetch a token, or wait for the fetch under way: it goes on when this waiter is cancelled."""
        key = (origin, scope)
        task = self._pending.get(key)
        if task is None:
            self._grants.pop(key, None)
            task = asyncio.create_task(self._fetch(origin, scope, challenge, credential))
            self._pending[key] = task
            task.add_done_callback(lambda done: self._settle(key, done))
        try:
            return (await asyncio.shield(task)).header
        except FastociError as error:
            raise _twin(error) from error

    def _settle(self, key: _Key, task: asyncio.Task[_Grant]) -> None:
        self._pending.pop(key, None)
        if not task.cancelled() and task.exception() is None:
            self._grants[key] = task.result()

    async def _fetch(self, origin: Origin, scope: str, challenge: Challenge, credential: Credential | None) -> _Grant:
        realm = _realm(challenge, origin)
        told = credential if self._may_tell(origin, Origin.of(realm)) else None
        hint = "" if told is credential else "the credentials were not sent: it is not reached over verified TLS"
        scopes = [scope]
        if challenge.params.get("error") == "insufficient_scope" and challenge.params.get("scope", scope) != scope:
            scopes.append(challenge.params["scope"])
        fields = [("service", challenge.params.get("service", "")), *(("scope", each) for each in scopes)]
        started = self._now()
        reply = await self._ask(realm, [pair for pair in fields if pair[1]], told, origin)
        if reply.status != 200:
            raise await refusal(reply, hint=hint)
        try:
            body = await reply.read(_BODY_SIZE)
        finally:
            reply.close()
        token, life_s = _token(body, reply.url)
        return _Grant(f"Bearer {token}", started + life_s * _USED_PART, challenge, credential)

    async def _ask(self, realm: URL, fields: list[tuple[str, str]], told: Credential | None, namer: Origin) -> Reply:
        if told is not None and told.identity_token:
            form = [("grant_type", "refresh_token"), ("client_id", "fastoci"), *fields]
            form.append(("refresh_token", told.identity_token))
            headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
            body = urlencode(form).encode()
            return await self._transport.request("POST", realm, headers=headers, body=body, named_by=namer)
        return await self._transport.request(
            "GET",
            realm.extend_query(fields),
            headers={"Accept": "application/json"},
            authorization=None if told is None else _basic(told),
            named_by=namer,
        )

    def _may_tell(self, registry: Origin, realm: Origin) -> bool:
        return realm == registry or (self._tls_verify and registry.scheme == realm.scheme == "https")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _realm(challenge: Challenge, origin: Origin) -> URL:
    registry = f"{origin.scheme}://{origin.host}:{origin.port}"
    try:
        realm = parse_url(challenge.params["realm"])
    except ValueError:
        raise UnauthorizedError(
            f"{registry}: names a token service that is no http(s) URL", url=registry, status=401
        ) from None
    if origin.scheme == "https" and realm.scheme != "https":
        raise UnauthorizedError(
            f"{registry}: names the token service {redact(realm)}, which is not https", url=registry, status=401
        )
    return realm


def _token(body: bytes, url: str) -> tuple[str, float]:
    """The token in a service's answer, and the seconds it lives."""
    document = None
    if len(body) <= _BODY_SIZE:
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(body)
    if not isinstance(document, dict):
        words = printable(body[:80].decode(errors="replace"))
        raise UnauthorizedError(f"{url}: the token service answers no JSON object but {words!r}", url=url, status=200)
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise UnauthorizedError(f"{url}: the token service answers without a usable token", url=url, status=200)
    life_s = document.get("expires_in")
    if isinstance(life_s, bool) or not isinstance(life_s, (int, float)) or not 0 < life_s < math.inf:
        life_s = _LIFE_S
    return token, min(float(life_s), _LIFE_MOST_S)


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()


def _twin(error: FastociError) -> FastociError:
    """The same error once more: each waiter gets its own, and may write the image it was for into it."""
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    return twin
