"""How registries are asked, as one frozen value. Reads no file and imports nothing that does.

What each field leads to: docs/credentials.md and docs/mirrors.md.
"""

from __future__ import annotations

import math
import os
from typing import ClassVar

import msgspec

from fastoci import path_walk
from fastoci.discreet import Discreet
from fastoci.lists.request import RegistryAccess

StrPath = str | os.PathLike[str]


class RegistryOptions(Discreet, frozen=True):
    """How an engine asks registries. Paths are those of the working directory in which the value is made.

    Args:
        tls_verify: False accepts any certificate, and plain http.
        authfile: the only auth file, instead of the usual ones.
        creds: a user and password, for the registries that references name.
        no_creds: nobody is logged in anywhere, whatever files and helpers have.
        credential_providers: the kubelet's CredentialProviderConfig and the directory of its plugins.
        registries_conf: mirrors in podman's form, instead of the usual files.
        hosts_dir: mirrors in containerd's form, instead of the usual files.
        cert_dir: certificates for every registry, instead of those of ``certs.d``.
        allow_private_redirects: ``HOST[:PORT]`` of registries and mirrors that may lead into private networks.
        download_foreign_layers: a layer that its registry does not have is fetched from the https addresses that its
            descriptor names, without credentials, and is verified as any other.
        access: how single registries are asked, as lists say it; goes before what is said of all. Of two for one
            registry the first counts.
        retries: how often a request is sent again that made no progress; None: 7 times, twice after a timeout.
        retry_delay_s: seconds before each; None: random ones, more each time.
    Raises:
        StoreError: one of the paths cannot be a path.
        ValueError: a number is below 0; ``creds`` with ``no_creds``.
    """

    hidden: ClassVar = frozenset({"creds"})

    tls_verify: bool = True
    authfile: StrPath | None = None
    creds: tuple[str, str] | None = None
    credential_providers: tuple[StrPath, StrPath] | None = None
    registries_conf: StrPath | None = None
    hosts_dir: StrPath | None = None
    cert_dir: StrPath | None = None
    allow_private_redirects: tuple[str, ...] = ()
    retries: int | None = None
    retry_delay_s: float | None = None
    download_foreign_layers: bool = False
    access: tuple[RegistryAccess, ...] = ()
    no_creds: bool = False

    def __post_init__(self) -> None:
        if self.no_creds and self.creds is not None:
            raise ValueError("no_creds: creds are given")
        if self.retries is not None and self.retries < 0:
            raise ValueError(f"retries: {self.retries} is less than 0")
        if self.retry_delay_s is not None and not 0 <= self.retry_delay_s < math.inf:
            raise ValueError(f"retry_delay_s: {self.retry_delay_s} is no time to wait")
        for name in ("authfile", "registries_conf", "hosts_dir", "cert_dir"):
            given = getattr(self, name)
            if given is not None:
                msgspec.structs.force_setattr(self, name, path_walk.absolute(given))
        if self.credential_providers is not None:
            msgspec.structs.force_setattr(
                self, "credential_providers", tuple(map(path_walk.absolute, self.credential_providers))
            )
