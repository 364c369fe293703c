"""Who may read the loopback registry: anybody, those with a password, or those with a token from ``/token``.

Spec: RFC 7617 (Basic); distribution "Token Authentication Specification" (Bearer).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from fastoci.testing.reader import Answer, refusal, repository

_SCOPE: Final = re.compile(r"repository:(?P<name>[^:]+):(?P<actions>[a-z,*]+)")


@dataclass(frozen=True, slots=True)
class Basic:
    """Every request carries this user and password."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Bearer:
    """Every request carries a token; ``/token`` gives it for Basic credentials, to anybody when ``user`` is empty."""

    user: str = ""
    password: str = ""
    life_s: float = 300.0
    clock: Callable[[], float] = field(default=time.monotonic)


class Gate:
    """Checks the Authorization header of requests, and gives out tokens."""

    def __init__(self, auth: Basic | Bearer | None) -> None:
        self._auth = auth
        self._tokens: dict[str, tuple[frozenset[str], float]] = {}  # repositories, and until when

    def refuse(self, address: str, path: str, authorization: str) -> Answer | None:
        """Why a request may not be answered; None when it may."""
        if isinstance(self._auth, Basic):
            if _basic(authorization) == (self._auth.user, self._auth.password):
                return None
            return _unauthorized('Basic realm="fastoci.testing"')
        if self._auth is None:
            return None
        name = repository(path)
        error = self._fault(authorization, name)
        if error is None:
            return None
        challenge = f'Bearer realm="http://{address}/token",service="fastoci.testing"'
        if name:
            challenge += f',scope="repository:{name}:pull"'
        return _unauthorized(challenge + (f',error="{error}"' if error else ""))

    def _fault(self, authorization: str, name: str) -> str | None:
        assert isinstance(self._auth, Bearer)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return ""
        names, until = self._tokens.get(token.strip(), (frozenset[str](), 0.0))
        if self._auth.clock() >= until:
            return "invalid_token"
        return "insufficient_scope" if name and name not in names else None

    def token(self, authorization: str, scopes: Sequence[str]) -> Answer:
        """Answer a request for a token to pull from the repositories that ``scopes`` name."""
        if not isinstance(self._auth, Bearer):
            return refusal(404, "UNSUPPORTED", "no such endpoint")
        if self._auth.user and _basic(authorization) != (self._auth.user, self._auth.password):
            return _unauthorized('Basic realm="fastoci.testing"')
        matches = [match for scope in scopes for part in scope.split(" ") if (match := _SCOPE.fullmatch(part))]
        names = frozenset(match["name"] for match in matches if "pull" in match["actions"].split(","))
        token = secrets.token_urlsafe(32)
        self._tokens[token] = (names, self._auth.clock() + self._auth.life_s)
        body = json.dumps({"token": token, "expires_in": max(1, int(self._auth.life_s))}).encode()
        return Answer(200, {"Content-Type": "application/json"}, body, 0, len(body))


def _unauthorized(challenge: str) -> Answer:
    return refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})


def _basic(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if scheme.lower() == "basic" and colon else None
