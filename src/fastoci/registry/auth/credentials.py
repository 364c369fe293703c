"""Where the credential for a repository comes from: what the user gave, auth files, credential helpers, the kubelet's.

It knows the order of these sources and nothing of tokens or HTTP. ``load`` reads files, ``find`` may run programs.

The order, the first that has one wins:

1. what a list says of the registry;
2. what the user gave for this job;
3. the auth files in their order (``auth_file.read_all``); in each the host's helper, then the most specific entry;
   the machine's ``registries.conf`` may put helpers for all hosts before, behind or instead of them;
4. the kubelet's image credential providers, when they were asked for.

Spec: containers-auth.json(5), containers-registries.conf(5); docker's ``config.json``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastoci.registry.auth.auth_file import AuthFile, helper_name, normal, read_all
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credential_helpers import CredentialHelpers

if TYPE_CHECKING:
    from fastoci.registry.auth.kubelet import Providers

_LOG: Final = logging.getLogger(__name__)
_FILES: Final = "containers-auth.json"  # in registries.conf's list of helpers: all auth files


class Credentials:
    """All sources that apply to one job, in the order in which they are asked. Used on one loop.

    Args:
        files: auth files.
        explicit: what the user gave for the registries that references name; no file is asked about these.
        order: the names of helpers that are asked about all hosts, and where among them the files are.
        helpers: runs the helpers.
        providers: the kubelet's plugins.
        by_registry: what lists say, by ``host[:port]``; goes to that one alone.
    """

    def __init__(
        self,
        files: tuple[AuthFile, ...] = (),
        *,
        explicit: Credential | None = None,
        order: tuple[str, ...] = (_FILES,),
        helpers: CredentialHelpers | None = None,
        providers: Providers | None = None,
        by_registry: Mapping[str, Credential] | None = None,
    ) -> None:
        self._files = files
        self._by_registry = by_registry or {}
        self._explicit = explicit
        self._order = order
        self._helpers = helpers or CredentialHelpers(os.environ)
        self._providers = providers

    def __repr__(self) -> str:
        return f"<Credentials from {', '.join(file.where for file in self._files) or 'no files'}>"

    @property
    def headers(self) -> dict[str, str]:
        """Headers that docker's configuration adds to requests to every registry; the first file wins."""
        return {name: value for file in reversed(self._files) for name, value in file.headers.items()}

    async def find(self, domain: str, path: str, *, mirror: bool = False) -> Credential | None:
        """The credential for ``domain/path``. Runs a helper or plugin where one is configured, each once for a job.

        The host and port must be the very same; ``host`` and ``host:443`` are two names.

        Args:
            mirror: the host is not the one that the reference names: what the user gave is not for it.
        Raises:
            CredentialError: a helper or plugin fails; that it knows nothing is not a failure.
        """
        found, source = await self.explain(domain, path, mirror=mirror)
        _LOG.debug("%s/%s: credentials: %s", domain, path, source)
        return found

    async def explain(self, domain: str, path: str, *, mirror: bool) -> tuple[Credential | None, str]:
        """What ``find`` finds, and who has it, in words. Raises: as ``find``."""
        if (listed := self._by_registry.get(domain)) is not None:
            return listed, "those of a list"
        if self._explicit is not None and not mirror:
            return self._explicit, "those that were given for this job"
        for name in self._order:
            if name == _FILES:
                found, source = await self._in_files(domain, path)
            else:
                found, source = await self._helpers.get(name, domain), f"docker-credential-{name}"
            if found is not None:
                return found, source
        if self._providers is not None:
            found = await self._providers.get(f"{normal(domain)}/{path}")
            if found is not None:
                return found, "a plugin of the kubelet"
        return None, "none"

    async def _in_files(self, domain: str, path: str) -> tuple[Credential | None, str]:
        for file in self._files:
            helper = file.helper(domain)
            if helper and (found := await self._helpers.get(helper, domain)) is not None:
                return found, f"docker-credential-{helper}, which {file.where} names"
            if (entry := file.entry(domain, path)) is not None:
                return entry, file.where
        return None, ""


def load(
    authfile: Path | None = None,
    *,
    explicit: Credential | None = None,
    machine: tuple[str, ...] = (),
    providers: tuple[Path, Path] | None = None,
    by_registry: Mapping[str, Credential] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Credentials:
    """Read the files that apply; runs nothing.

    Args:
        authfile: the only auth file to read; else ``REGISTRY_AUTH_FILE`` is, when set; else the usual files are.
        explicit: what the user gave for this job; wins over every file.
        machine: ``credential-helpers`` of ``registries.conf``, where ``containers-auth.json`` stands for the files.
        providers: the kubelet's CredentialProviderConfig, and the directory of its plugins.
        by_registry: what lists say.
    Raises:
        ConfigError: a file is not what it should be, or one that was asked for by name cannot be read.
    """
    files = read_all(authfile, environ)
    plugins = None
    if providers is not None:
        from fastoci.registry.auth import kubelet  # when it is asked for

        plugins = kubelet.load(*providers, environ)
    order = tuple(name if name == _FILES else helper_name(name, "credential-helpers") for name in machine) or (_FILES,)
    return Credentials(
        files,
        explicit=explicit,
        order=order,
        helpers=CredentialHelpers(environ),
        providers=plugins,
        by_registry=by_registry,
    )
