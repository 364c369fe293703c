"""Who may read the loopback registry: anybody, those with a password, or those with a token from ``/token``; and the
signed addresses of its content network.

Spec: RFC 7617 (Basic); distribution "Token Authentication Specification" and "OAuth2 Token Authentication" (Bearer).
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

from fastoci.server.http import Request
from fastoci.server.pull_api import Answer, refusal

_SCOPE: Final = re.compile(r"repository:(?P<name>[^:]+):(?P<actions>[a-z,*]+)")


@dataclass(frozen=True, slots=True)
class Basic:
    """Every request carries this user and password."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Bearer:
    """Every request carries a token. ``/token`` gives it for Basic credentials by GET, for a password or the
    ``identity_token`` by POST, and to anybody when ``user`` is empty.

    ``uses`` is the number of requests that a token is good for, 0 for any. With ``once`` an identity token is good for
    one token, and the answer brings the next. Without ``pushes`` a token is good to read, whatever is asked for.
    """

    user: str = ""
    password: str = ""
    life_s: float = 300.0
    clock: Callable[[], float] = field(default=time.monotonic)
    identity_token: str = ""
    uses: int = 0
    once: bool = False
    pushes: bool = True


@dataclass(slots=True)
class _Token:
    allowed: frozenset[tuple[str, str]]  # repositories, and what may be done there
    until: float
    used: int = 0


class Gate:
    """Checks the Authorization header of requests, and gives out tokens. ``secrets`` has all that nobody may see."""

    def __init__(self, auth: Basic | Bearer | None) -> None:
        self.secrets: set[str] = set()
        self._auth = auth
        self._tokens: dict[str, _Token] = {}
        self._identity = auth.identity_token if isinstance(auth, Bearer) else ""
        if auth is not None and auth.password:
            pair = base64.b64encode(f"{auth.user}:{auth.password}".encode()).decode()
            self.secrets.update({auth.password, pair})
        if self._identity:
            self.secrets.add(self._identity)

    @property
    def open(self) -> bool:
        """Anybody may do anything."""
        return self._auth is None

    def allows(self, authorization: str, name: str) -> bool:
        """Whether who asks may read a repository, too."""
        token = self._tokens.get(authorization.partition(" ")[2].strip())
        return not isinstance(self._auth, Bearer) or (token is not None and (name, "pull") in token.allowed)

    def refuse(self, origin: str, name: str, authorization: str, *, action: str = "pull") -> Answer | None:
        """Why a request may not be answered; None when it may.

        Args:
            origin: ``http://HOST:PORT`` or its https.
            name: the repository that it is about, empty for none.
            action: what it does there, "pull" or "push".
        """
        if isinstance(self._auth, Basic):
            if _basic(authorization) == (self._auth.user, self._auth.password):
                return None
            return _unauthorized('Basic realm="fastoci.testing"')
        if self._auth is None:
            return None
        error = self._fault(authorization, name, action)
        if error is None:
            return None
        challenge = f'Bearer realm="{origin}/token",service="fastoci.testing"'
        if name:
            challenge += f',scope="repository:{name}:{"pull" if action == "pull" else "pull,push"}"'
        return _unauthorized(challenge + (f',error="{error}"' if error else ""))

    def _fault(self, authorization: str, name: str, action: str) -> str | None:
        assert isinstance(self._auth, Bearer)
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return ""
        token = self._tokens.get(text.strip())
        if token is None or self._auth.clock() >= token.until:
            return "invalid_token"
        if name and (name, action) not in token.allowed:
            return "insufficient_scope"
        token.used += 1
        return "invalid_token" if self._auth.uses and token.used > self._auth.uses else None

    def token(self, request: Request) -> Answer:
        """Answer a request for a token to do in repositories what its scopes name."""
        if not isinstance(self._auth, Bearer):
            return refusal(404, "UNSUPPORTED", "no such endpoint")
        if request.method == "POST":
            fields = request.form
            if not self._may_post(fields):
                return refusal(401, "UNAUTHORIZED", "no such credentials")
        else:
            fields = request.query
            credentials = _basic(request.headers.get("authorization", ""))
            if self._auth.user and credentials != (self._auth.user, self._auth.password):
                return _unauthorized('Basic realm="fastoci.testing"')
        token = self.issue(fields.get("scope", []))
        document: dict[str, object] = {"token": token, "access_token": token}
        document["expires_in"] = max(1, int(self._auth.life_s))
        if request.method == "POST" and self._auth.once:
            self._identity = self._secret()
            document["refresh_token"] = self._identity
        body = json.dumps(document).encode()
        return Answer(200, {"Content-Type": "application/json"}, body, 0, len(body))

    def issue(self, scopes: Sequence[str]) -> str:
        """A new token for these scopes."""
        assert isinstance(self._auth, Bearer)
        matches = [match for scope in scopes for part in scope.split(" ") if (match := _SCOPE.fullmatch(part))]
        allowed = frozenset((match["name"], action) for match in matches for action in match["actions"].split(","))
        allowed = frozenset(each for each in allowed if self._auth.pushes or each[1] == "pull")
        token = self._secret()
        self._tokens[token] = _Token(allowed, self._auth.clock() + self._auth.life_s)
        return token

    def _may_post(self, fields: dict[str, list[str]]) -> bool:
        assert isinstance(self._auth, Bearer)
        if fields.get("grant_type") == ["refresh_token"]:
            return bool(self._identity) and fields.get("refresh_token") == [self._identity]
        given = (fields.get("username"), fields.get("password"))
        return fields.get("grant_type") == ["password"] and given == ([self._auth.user], [self._auth.password])

    def _secret(self) -> str:
        made = secrets.token_urlsafe(32)
        self.secrets.add(made)
        return made


class Cdn:
    """Signed addresses of blobs: each is good for ``uses`` requests, 0 for any number, and for no other digest."""

    def __init__(self, uses: int = 0) -> None:
        self.secrets: set[str] = set()
        self._uses = uses
        self._used: dict[str, int] = {}  # by target

    def target(self, digest: str) -> str:
        """A new signed path and query for a blob."""
        signature = secrets.token_urlsafe(32)
        self.secrets.add(signature)
        target = f"/blobs/{digest}?expires=300&signature={signature}"
        self._used[target] = 0
        return target

    def refuse(self, target: str) -> Answer | None:
        """Why a request may not be answered; None when it may, once more."""
        if target not in self._used:
            return refusal(403, "DENIED", "no such signature")
        self._used[target] += 1
        return refusal(403, "DENIED", "the request has expired") if 0 < self._uses < self._used[target] else None


def _unauthorized(challenge: str) -> Answer:
    return refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})


def _basic(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if scheme.lower() == "basic" and colon else None
