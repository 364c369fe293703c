"""Logging in and out: credentials are checked at the registry, then kept in an auth file or by the helper it names.

It knows the auth flow and where credentials are kept; it asks nobody for a password.

Spec: containers-auth.json(5); distribution-spec v1.1, "Endpoints" end-1.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final

from fastoci.aio import when_free
from fastoci.errors import (
    ConfigError,
    CredentialError,
    FastociError,
    ReferenceSyntaxError,
    RegistryError,
    TransportError,
)
from fastoci.image.reference import Reference
from fastoci.path_walk import absolute
from fastoci.registry.auth import auth_file
from fastoci.registry.auth.auth_file import AuthFile
from fastoci.registry.auth.auth_file_edit import edit
from fastoci.registry.auth.authenticator import Authenticator
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credential_helpers import CredentialHelpers
from fastoci.registry.auth.credentials import load
from fastoci.registry.config import endpoints
from fastoci.registry.config.endpoints import Endpoint
from fastoci.registry.fetch.failover import Candidate, candidates
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.proxy import proxy_for
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.transport import RequestOptions, Transport
from fastoci.registry.http.urls import redact

StrPath = str | os.PathLike[str]
_LOCK_S: Final = 10.0  # for another process that changes the file, which takes milliseconds


async def login(
    host: str,
    user: str,
    password: str,
    *,
    authfile: StrPath | None = None,
    tls_verify: bool = True,
    cert_dir: StrPath | None = None,
    environ: Mapping[str, str] = os.environ,
) -> bool:
    """Check credentials at a registry and keep them for later; whether the registry asked for any.

    Args:
        host: ``HOST[:PORT]``, or with ``/PATH`` for the repositories below it.
        authfile: where they are kept; by default ``REGISTRY_AUTH_FILE``, or where podman and skopeo keep theirs.
        cert_dir: certificates, instead of those of ``certs.d``.
    Raises:
        ReferenceSyntaxError: ``host`` is not a registry.
        UnauthorizedError: the registry does not take them, or they may not be sent to its token service.
        RegistryError, TransportError: it cannot be asked.
        CredentialError: the file names a helper that does not keep them, or would keep them for more than ``host``.
        ConfigError, StoreError: a file is not what it should be (docs/mirrors.md), or the auth file cannot be written.
    """
    key, there = _key(host)
    credential = Credential(user, password)
    path = absolute(auth_file.writable(None if authfile is None else Path(authfile), environ))
    file = await asyncio.to_thread(_file, path)
    helper = file.helper(there.domain)
    if helper and "/" in key:
        text = f"{key}: docker-credential-{helper} keeps credentials of whole registries; log in to {there.domain}"
        raise CredentialError(text, program=f"docker-credential-{helper}")
    certificates = None if cert_dir is None else absolute(cert_dir)
    mirrors = await asyncio.to_thread(lambda: endpoints.load(environ, os.geteuid(), cert_dir=certificates))
    asked = await _check(there, credential, endpoints.own(there, mirrors, tls_verify=tls_verify), environ)
    if helper:
        await CredentialHelpers(environ).store(helper, there.domain, credential)
    await when_free(lambda: asyncio.to_thread(keep, path, key, credential, helper=helper), within_s=_LOCK_S)
    return asked


async def logout(
    host: str | None, *, authfile: StrPath | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Forget what ``login`` kept; what was forgotten.

    Args:
        host: as for ``login``; None for all that the file has, or has in the keeping of helpers.
    Raises:
        ReferenceSyntaxError: ``host`` is not a registry.
        CredentialError: a helper fails.
        ConfigError, StoreError: the file is not an auth file, or cannot be written.
    """
    path = absolute(auth_file.writable(None if authfile is None else Path(authfile), environ))
    wanted = None if host is None else _key(host)[0]
    if not await asyncio.to_thread(path.exists):
        return ()
    file = await asyncio.to_thread(_file, path)
    gone: list[str] = []
    removing = partial(edit, path, lambda found: _remove(found, wanted, path, gone))
    await when_free(lambda: asyncio.to_thread(removing), within_s=_LOCK_S)
    helpers = CredentialHelpers(environ)
    for domain in dict.fromkeys([*gone, *_hosts(file)] if wanted is None else [wanted]):
        helper = "" if "/" in domain else file.helper(domain)
        if helper and await helpers.erase(helper, domain):
            gone.append(domain)
    return tuple(dict.fromkeys(gone))


async def logged_in(
    host: str, *, authfile: StrPath | None = None, environ: Mapping[str, str] = os.environ
) -> str | None:
    """The user that a pull from ``host`` logs in as, found in all sources of credentials; None without one.

    Raises:
        ReferenceSyntaxError, CredentialError, ConfigError: as for ``login``.
    """
    key, there = _key(host)
    machine = (await asyncio.to_thread(endpoints.load, environ, os.geteuid())).registries.credential_helpers
    named = None if authfile is None else absolute(authfile)
    credentials = await asyncio.to_thread(load, named, machine=machine, environ=environ)
    found = await credentials.find(there.domain, key.partition("/")[2])
    return None if found is None else found.username or "<token>"


def keep(path: Path, key: str, credential: Credential, *, helper: str) -> None:
    """Write the entry for ``key``, which is ``normal``, into an auth file; an empty one when a helper has the secret.

    Raises:
        ConfigError, StoreError: as for ``auth_file_edit.edit``.
    """
    pair = f"{credential.username}:{credential.password}"
    entry = {} if helper else {"auth": base64.b64encode(pair.encode()).decode()}
    hub = auth_file.HUB_KEY if path.name == "config.json" else auth_file.HUB  # docker knows no other

    def change(found: dict[str, object]) -> bool:
        auths = auth_file.member(found, "auths", str(path))
        same = [old for old in auths if auth_file.normal(old) == key]
        for old in same[1:]:
            del auths[old]
        auths[same[0] if same else hub if key == auth_file.HUB else key] = entry
        found["auths"] = auths
        return True

    edit(path, change)


def _key(text: str) -> tuple[str, Reference]:
    """The key of an auth file for a registry, and some repository there."""
    key = auth_file.normal(text)
    try:
        there = Reference.parse(f"{key}/x")
    except ReferenceSyntaxError:
        there = None
    if there is None or there.tag != "latest" or there.domain != key.partition("/")[0]:
        raise ReferenceSyntaxError(f"{text[:200]!r} is not a registry: expected HOST[:PORT], with a dot or port in it")
    return key, there


def _hosts(file: AuthFile) -> list[str]:
    """The hosts that a file names a helper for; which hosts a wildcard means, only a registry's name tells."""
    return [host for host in file.helpers if "*" not in host]


def _file(path: Path) -> AuthFile:
    try:
        return auth_file.parse(auth_file.read(path), str(path))
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return AuthFile(str(path))
        raise


async def _check(there: Reference, credential: Credential, endpoint: Endpoint, environ: Mapping[str, str]) -> bool:
    transport = Transport(
        tls_verify=endpoint.tls.verify,
        connect_s=10.0,
        read_s=60.0,
        connections=1,
        proxy=lambda url: proxy_for(url, environ),
    )
    async with aclosing(transport):
        auth = Authenticator(transport, tls_verify=endpoint.tls.verify, strict=True)
        try:
            failed: FastociError | None = None
            for candidate in candidates([endpoint], transport.servers):
                try:
                    return await _ask(transport, auth, candidate, there.domain, credential)
                except (RegistryError, TransportError) as error:
                    if transport.servers.of(candidate.origin).speaks_scheme:
                        raise
                    failed = failed or error
            assert failed is not None
            raise failed
        finally:
            await auth.aclose()


async def _ask(
    transport: Transport, auth: Authenticator, candidate: Candidate, name: str, credential: Credential
) -> bool:
    url = candidate.base / ""
    endpoint = candidate.endpoint
    asked = False

    async def send(authorization: str | None) -> Reply:
        return await transport.request(
            "GET",
            url,
            headers={},
            authorization=authorization,
            options=RequestOptions(
                own=endpoint.fields,
                tls=endpoint.tls,
                connect_s=endpoint.connect_s,
                private_redirects=endpoint.private_redirects,
            ),
        )

    async def find() -> Credential:
        nonlocal asked
        asked = True
        return credential

    reply = await auth.request(candidate.origin, "", send, find, name=name, verified=endpoint.tls.verify, ping=None)
    if reply.status != 200:
        raise await error_of(reply, hint=f"{redact(url)} is not a registry" if reply.status == 404 else "")
    reply.close()
    return asked


def _remove(found: dict[str, object], key: str | None, path: Path, gone: list[str]) -> bool:
    auths = auth_file.member(found, "auths", str(path))
    names = [old for old in auths if key is None or auth_file.normal(old) == key]
    for name in names:
        del auths[name]
    gone += [auth_file.normal(name) for name in names]
    if names:
        found["auths"] = auths
    return bool(names)
