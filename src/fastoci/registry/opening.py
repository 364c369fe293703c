"""A client of registries made from options: reads the configuration of mirrors, certificates and credentials."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

import msgspec

from fastoci import path_walk
from fastoci.events import Observer
from fastoci.limits import Limits
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials, load
from fastoci.registry.client import Registry
from fastoci.registry.config import endpoints
from fastoci.registry.config.endpoints import Mirrors
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.http.proxy import proxy_for
from fastoci.registry.options import RegistryOptions, StrPath


async def open_registry(options: RegistryOptions, limits: Limits, observer: Observer) -> Registry:
    """The client that asks registries as ``options`` say, within ``limits``.

    Raises:
        ConfigError, StoreError: a configuration or auth file is wrong, or one that was named is not there.
    """
    mirrors = await asyncio.to_thread(mirrors_of, options)
    return Registry(
        mirrors=mirrors,
        proxy=partial(proxy_for, environ=dict(os.environ)),  # asked twice a request: os.environ is slow
        credentials=await asyncio.to_thread(credentials_of, options, mirrors),
        tls_verify=options.tls_verify,
        limits=limits,
        retry=RetryPolicy().asked(options.retries, options.retry_delay_s),
        observer=observer,
    )


def mirrors_of(options: RegistryOptions) -> Mirrors:
    """Read the configuration of mirrors and certificates; blocks on the disk. Raises: as ``endpoints.load``."""
    machine = endpoints.load(
        os.environ,
        os.geteuid(),
        registries=_path(options.registries_conf),
        hosts_dir=_path(options.hosts_dir),
        cert_dir=_path(options.cert_dir),
        private_redirects=options.allow_private_redirects,
    )
    machine = msgspec.structs.replace(machine, foreign=options.download_foreign_layers)
    return endpoints.with_access(machine, options.access)


def credentials_of(options: RegistryOptions, mirrors: Mirrors) -> Credentials:
    """Read the files of credentials; blocks on the disk. Raises: as ``credentials.load``."""
    if options.no_creds:
        return Credentials()
    providers = options.credential_providers
    return load(
        _path(options.authfile),
        explicit=None if options.creds is None else Credential(*options.creds),
        machine=mirrors.registries.credential_helpers,
        providers=None if providers is None else (path_walk.absolute(providers[0]), path_walk.absolute(providers[1])),
        by_registry={
            each.registry: Credential(each.username, each.password)
            for each in reversed(options.access)
            if each.username
        },
    )


def _path(given: StrPath | None) -> Path | None:
    return None if given is None else path_walk.absolute(given)
