"""How registries are asked, as one frozen value. Reads no file and imports nothing that does.

What each field leads to: docs/credentials.md and docs/mirrors.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from fastoci import path_walk

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How an engine asks registries. Paths are those of the working directory in which the value is made.

    Args:
        tls_verify: False accepts any certificate, and plain http.
        authfile: the only auth file, instead of the usual ones.
        creds: a user and password, for the registries that references name.
        credential_providers: the kubelet's CredentialProviderConfig and the directory of its plugins.
        registries_conf: mirrors in podman's form, instead of the usual files.
        hosts_dir: mirrors in containerd's form, instead of the usual files.
        cert_dir: certificates for every registry, instead of those of ``certs.d``.
        allow_private_redirects: ``HOST[:PORT]`` of registries and mirrors that may lead into private networks.
    Raises:
        StoreError: one of the paths cannot be a path.
    """

    tls_verify: bool = True
    authfile: StrPath | None = None
    creds: tuple[str, str] | None = field(default=None, repr=False)  # a secret belongs into no log
    credential_providers: tuple[StrPath, StrPath] | None = None
    registries_conf: StrPath | None = None
    hosts_dir: StrPath | None = None
    cert_dir: StrPath | None = None
    allow_private_redirects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("authfile", "registries_conf", "hosts_dir", "cert_dir"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, path_walk.absolute(given))
        if self.credential_providers is not None:
            object.__setattr__(self, "credential_providers", tuple(map(path_walk.absolute, self.credential_providers)))
