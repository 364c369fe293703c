"""TLS contexts: which authorities are trusted, and which certificate is shown. Reads files; call it off the loop."""

from __future__ import annotations

import errno
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from fastoci.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom a connection trusts, and who it says it is. ``ca`` is trusted beside the system's authorities."""

    verify: bool = True
    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path], ...] = ()  # certificate, key


def context(tls: Tls | None, *, verify: bool) -> ssl.SSLContext:
    """A client's context, for TLS 1.2 and up.

    Args:
        tls: whom to trust; None for the system's authorities alone.
        verify: without ``tls``, whether to check certificates.
    Raises:
        ConfigError: a file of ``tls`` cannot be used; names it.
    """
    made = ssl.create_default_context()  # honours SSL_CERT_FILE and SSL_CERT_DIR
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if not (verify if tls is None else tls.verify):
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if tls is None:
        return made
    for path in tls.ca:
        try:
            _demand_regular(path)
            made.load_verify_locations(path)
        except OSError as error:
            raise ConfigError(f"{path}: not an authority's certificate: {error.strerror or error}") from error
    for certificate, key in tls.client:
        try:
            _demand_regular(certificate)
            _demand_regular(key)
            made.load_cert_chain(certificate, key, password="")  # a key with a password is refused, not asked for
        except OSError as error:
            raise ConfigError(
                f"{certificate}, {key}: not a certificate and its key: {error.strerror or error}"
            ) from error
    return made


def _demand_regular(path: Path) -> None:
    """OpenSSL would wait for whoever writes to a pipe, for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
