"""Token services: who may be asked for a token, who is sent a credential, and what an answer may hold.

Rules:
1. An https registry may only name an https token service.
2. A credential goes to the registry's own origin, or over verified TLS to the service that the registry named over
   verified TLS. It never follows a redirect to another origin, a refresh token no redirect at all.
3. What a service answers is capped, typed and free of control characters before it becomes a header.

When a token is needed, and how long it is kept, is ``authenticator``'s.

Spec: distribution-spec token authentication; RFC 6749 section 6 (refresh tokens).
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import math
import re
from typing import Final
from urllib.parse import urlencode

from yarl import URL

from fastoci.errors import UnauthorizedError
from fastoci.registry.auth.challenge import Challenge
from fastoci.registry.auth.credential import Credential
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.throughput import drips
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.untrusted import typed
from fastoci.registry.http.urls import Origin, parse_url, redact

_LOG: Final = logging.getLogger(__name__)
_BODY_SIZE: Final = 1 << 20  # bytes of a token service's answer
_LIFE_S: Final = 60.0  # of a token whose service does not say
_LIFE_MOST_S: Final = 86400.0
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


class TokenServices:
    """Asks the services that registries name.

    Args:
        tls_verify: their certificates are checked.
        strict: none is asked without the credential, where there is one that may not be sent.
    """

    def __init__(self, transport: Transport, *, tls_verify: bool, strict: bool) -> None:
        self._transport = transport
        self._tls_verify = tls_verify
        self._strict = strict

    async def fetch(
        self,
        origin: Origin,
        bearer: Challenge,
        scopes: tuple[str, ...],
        credential: Credential | None,
        *,
        verified: bool,
    ) -> tuple[str, float]:
        """A token for the registry at ``origin``, and the seconds it lives.

        Args:
            bearer: what the registry asked for; has a realm.
            verified: the registry's certificate was checked.
        Raises:
            UnauthorizedError: the service may not be asked, or answers nonsense.
            RegistryError, TransportError: it refuses, or does not answer.
        """
        with typed(f"{origin.scheme}://{origin.host}:{origin.port}"):
            return await self._fetch(origin, bearer, scopes, credential, verified)

    async def _fetch(
        self, origin: Origin, bearer: Challenge, scopes: tuple[str, ...], credential: Credential | None, verified: bool
    ) -> tuple[str, float]:
        realm = _realm(bearer, origin)
        sent = credential if self._may_send(origin, Origin.of(realm), verified) else None
        hint = "" if sent is credential else "the credentials were not sent: it is not reached over verified TLS"
        if hint and self._strict:
            raise UnauthorizedError(f"{redact(realm)}: {hint}", url=redact(realm), status=401)
        reply = await self._ask(realm, bearer.params.get("service", ""), scopes, sent, origin)
        if reply.status != 200:
            raise await error_of(reply, hint=hint)
        try:
            body = await reply.read(_BODY_SIZE, drips)
        finally:
            reply.close()
        token, life_s = _token(body, reply.url)
        how = "without credentials" if sent is None else "with the credentials"
        _LOG.debug("%s: token for %s from %s, %s, good for %.0f s", origin.host, scopes, reply.url, how, life_s)
        return token, life_s

    async def _ask(
        self, realm: URL, service: str, scopes: tuple[str, ...], sent: Credential | None, namer: Origin
    ) -> Reply:
        fields = [("service", service)] if service else []
        if sent is not None and sent.identity_token:
            # RFC 6749 has one scope parameter, a list with spaces; the GET form has one for each.
            form = [("grant_type", "refresh_token"), ("client_id", "fastoci"), *fields]
            form += [("scope", " ".join(scopes)), ("refresh_token", sent.identity_token)]
            headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
            body = urlencode([pair for pair in form if pair[1]]).encode()
            return await self._transport.request("POST", realm, headers=headers, body=body, named_by=namer)
        fields += [("scope", scope) for scope in scopes if scope]
        return await self._transport.request(
            "GET",
            realm.extend_query(fields),
            headers={"Accept": "application/json"},
            authorization=None if sent is None else basic(sent),
            named_by=namer,
        )

    def _may_send(self, registry: Origin, realm: Origin, verified: bool) -> bool:
        secure = verified and self._tls_verify and self._transport.verifies(realm)
        return realm == registry or (secure and registry.scheme == realm.scheme == "https")


def basic(credential: Credential) -> str:
    """The header that carries a name and password."""
    pair = f"{credential.username}:{credential.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()


def _realm(challenge: Challenge, origin: Origin) -> URL:
    registry = f"{origin.scheme}://{origin.host}:{origin.port}"
    try:
        realm = parse_url(challenge.params["realm"])
    except ValueError:
        raise UnauthorizedError(
            f"{registry}: names a token service that is not an http(s) URL", url=registry, status=401
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
        # None of the body is shown: it may be a token in another form, or a JSON object that was cut.
        text = f"{url}: the token service answers with {len(body)} bytes that are not a JSON object"
        raise UnauthorizedError(text, url=url, status=200)
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise UnauthorizedError(f"{url}: the token service answers without a usable token", url=url, status=200)
    life_s = document.get("expires_in")
    if isinstance(life_s, bool) or not isinstance(life_s, (int, float)) or not 0 < life_s < math.inf:
        life_s = _LIFE_S
    return token, float(min(life_s, _LIFE_MOST_S))  # an int may be too large for a float
