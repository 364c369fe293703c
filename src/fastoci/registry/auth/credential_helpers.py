"""Credential helpers: the programs ``docker-credential-NAME`` that keep secrets in a keychain or get them from a cloud.

Knows their protocol; which helper is asked about which host is ``auth_file``' to say. What a helper writes is never
shown.

Spec: docker-credential-helpers, "Development" (get, store, erase).
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from typing import Final

from fastoci.errors import CredentialError
from fastoci.registry.auth.auth_file import HUB, HUB_KEY, named, normal
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.helper_process import run

_NONE: Final = b"credentials not found in native keychain"
_FIELDS: Final = ("Username", "Secret")
_TOKEN_USER: Final = "<token>"  # whose secret is an identity token
_TIMEOUT_S: Final = 30.0  # some open a dialog, or ask a cloud


class CredentialHelpers:
    """The helpers of one job: each is asked once about a server, whoever wants to know. Used on one loop.

    Args:
        environ: what they see; its ``PATH`` is where they are looked for.
    """

    def __init__(self, environ: Mapping[str, str], *, timeout_s: float = _TIMEOUT_S) -> None:
        self._environ = environ
        self._timeout_s = timeout_s
        self._answers: dict[tuple[str, str], Credential | CredentialError | None] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def get(self, name: str, domain: str) -> Credential | None:
        """What the helper ``name`` knows about a host; None when it knows nothing.

        Raises:
            CredentialError: it is not there, fails, or answers nonsense; so does every later call.
        """
        key = (name, server(domain))
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key not in self._answers:
                try:
                    self._answers[key] = await self._get(*key)
                except CredentialError as error:
                    self._answers[key] = error
        found = self._answers[key]
        if isinstance(found, CredentialError):
            # Each caller gets an error of its own, and may write the image it was for into it.
            raise CredentialError(found.message, program=found.program) from found
        return found

    async def store(self, name: str, domain: str, credential: Credential) -> None:
        """Give a credential into the helper's keeping.

        Raises:
            CredentialError: it does not take it.
        """
        where = server(domain)
        user, secret = credential.username, credential.password
        if credential.identity_token:
            user, secret = _TOKEN_USER, credential.identity_token
        given = json.dumps({"ServerURL": where, "Username": user, "Secret": secret}).encode()
        code, _ = await self._run(name, "store", given)
        if code:
            raise CredentialError(f"{_program(name)} store: it failed for {where}", program=_program(name))

    async def erase(self, name: str, domain: str) -> bool:
        """Make the helper forget a host; whether it knew it.

        Raises:
            CredentialError: it fails.
        """
        where = server(domain)
        code, output = await self._run(name, "erase", where.encode())
        if code and _NONE not in output:
            raise CredentialError(f"{_program(name)} erase: it failed for {where}", program=_program(name))
        return not code

    async def _get(self, name: str, where: str) -> Credential | None:
        program = _program(name)
        code, output = await self._run(name, "get", where.encode())
        if code:
            if _NONE in output:
                return None
            raise CredentialError(
                f"{program}: it failed for {where}; `echo {where} | {program} get` shows why", program=program
            )
        user, secret = _answer(output)
        if not isinstance(user, str) or not isinstance(secret, str):
            raise CredentialError(f"{program}: its answer for {where} has no Username and Secret", program=program)
        if user == _TOKEN_USER:
            return Credential("", identity_token=secret)
        return Credential(user, secret) if user or secret else None

    async def _run(self, name: str, action: str, given: bytes) -> tuple[int, bytes]:
        program = _program(name)
        path = await asyncio.to_thread(shutil.which, program, path=self._environ.get("PATH"))
        if path is None:
            raise CredentialError(f"{program}: not found; the auth file names it, put it on the PATH", program=program)
        return await run([path, action], given, environ=self._environ, timeout_s=self._timeout_s)


def server(domain: str) -> str:
    """A host as helpers know it."""
    host = normal(domain)
    return HUB_KEY if host == HUB else host


def _answer(output: bytes) -> tuple[object, object]:
    """The Username and Secret of the JSON object that an answer begins with; Go's reader wants no more of it."""
    try:
        found, _ = json.JSONDecoder().raw_decode(output.decode().lstrip(" \t\r\n"))
    except (ValueError, RecursionError):
        return None, None
    answer = named(found, _FIELDS) if isinstance(found, dict) else {}
    return answer.get("Username"), answer.get("Secret")


def _program(name: str) -> str:
    return f"docker-credential-{name}"
