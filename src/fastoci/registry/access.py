"""Which configuration counts for an image: where it is asked for, and who knows its credentials. Asks no registry.

Secrets are left out: passwords and tokens, the values of headers, what addresses hold of users.
"""

from __future__ import annotations

import asyncio

import msgspec

from fastoci.errors import ConfigError
from fastoci.image.reference import Reference
from fastoci.registry.config.endpoints import Endpoint, endpoints
from fastoci.registry.http.tls import context
from fastoci.registry.http.urls import redact
from fastoci.registry.opening import credentials_of, mirrors_of
from fastoci.registry.options import RegistryOptions


class Access(msgspec.Struct, frozen=True):
    """One server that an image is asked for, and what goes with the requests."""

    url: str
    repository: str
    resolves: bool  # is asked for tags
    pulls: bool  # is asked for blobs, and for manifests by digest
    verifies: bool  # demands a certificate that an authority signed
    certificates: tuple[str, ...]  # files of authorities, and of the client
    headers: tuple[str, ...]  # names
    user: str | None  # None without credentials
    source: str  # who has the credentials


async def access(reference: str, registry: RegistryOptions | None = None) -> tuple[Access, ...]:
    """Where an image would be asked for, in the order to ask, by the options and the machine's files.

    Credential helpers are run.

    Raises:
        ReferenceSyntaxError: it is not a reference.
        ConfigError, StoreError, DeniedError, CredentialError: as for a pull.
    """
    options = registry or RegistryOptions()
    parsed = Reference.parse(reference)
    mirrors = await asyncio.to_thread(mirrors_of, options)
    credentials = await asyncio.to_thread(credentials_of, options, mirrors)
    found = []
    for endpoint in endpoints(parsed, mirrors, tls_verify=options.tls_verify):
        held, source = await credentials.explain(endpoint.domain, endpoint.path, mirror=not endpoint.origin)
        user = None if held is None else held.username or "<token>"
        found.append(_access(endpoint, user, source))
    return tuple(found)


def check_access(reference: str, registry: RegistryOptions | None = None) -> None:
    """Read all that counts for an image's registry, as a pull does before it asks one. Runs no credential helper.

    Blocks on the disk.

    Raises:
        ReferenceSyntaxError: it is not a reference.
        ConfigError, StoreError: a file is wrong, or one that was named is not there; a certificate, when nobody can be
            asked without it.
        DeniedError: the configuration blocks it.
    """
    options = registry or RegistryOptions()
    mirrors = mirrors_of(options)
    credentials_of(options, mirrors)
    found = endpoints(Reference.parse(reference), mirrors, tls_verify=options.tls_verify)
    wrong = [error for error in map(_certificate_error, found) if error is not None]
    if len(wrong) == len(found):
        raise wrong[0]


def _certificate_error(endpoint: Endpoint) -> ConfigError | None:
    """What is wrong with the certificates of a server that is asked by https alone."""
    if endpoint.either_scheme or endpoint.base.scheme != "https" or not (endpoint.tls.ca or endpoint.tls.client):
        return None
    try:
        context(endpoint.tls, verify=True)
    except ConfigError as error:
        return error
    return None


def _access(endpoint: Endpoint, user: str | None, source: str) -> Access:
    certificates = (*endpoint.tls.ca, *(path for pair in endpoint.tls.client for path in pair))
    return Access(
        redact(endpoint.base),
        endpoint.path,
        endpoint.resolve,
        endpoint.pull,
        endpoint.tls.verify,
        tuple(map(str, certificates)),
        tuple(endpoint.fields),
        user,
        source,
    )
