"""TLS contexts: which authorities are trusted, and which certificate is shown. Reads files; call it off the loop.

Each certificate that a user or the system trusts is an anchor, as for Go's programs: an intermediate authority's, a
server's own, and an authority's without the extensions that RFC 5280 asks for. Python 3.13 and later refuse the last by
default, earlier ones the others.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from fastoci.errors import ConfigError

_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # of c_rehash


class Tls(msgspec.Struct, frozen=True):
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
    made = ssl.create_default_context()
    _trust_environment(made)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_flags = (made.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    made.set_alpn_protocols(["http/1.1"])
    if not (verify if tls is None else tls.verify):
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if tls is None:
        return made
    for path in tls.ca:
        try:
            _demand_regular(path)
            _trust(made, path)
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


def _trust_environment(made: ssl.SSLContext) -> None:
    """Trust what Go's programs do of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.

    OpenSSL takes nothing of a file with a certificate that it cannot read, and of a directory only files whose names
    are hashes. What is not there is nobody's anchor, and no error.
    """
    file, directories = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    paths = [Path(file)] if file and not made.cert_store_stats()["x509"] else []
    for directory in filter(None, (directories or "").split(":")):
        with suppress(OSError):
            paths += (Path(directory, name) for name in os.listdir(directory) if not _HASHED.fullmatch(name))
    for path in paths:
        with suppress(OSError):
            _demand_regular(path)
            _trust(made, path)


def _trust(made: ssl.SSLContext, path: Path) -> None:
    """Make each certificate in a file an anchor. Like Go's, the reader passes over those that it cannot read.

    Raises:
        OSError: there is none that can be read.
    """
    try:
        made.load_verify_locations(path)  # OpenSSL takes all of the file, or nothing
    except ssl.SSLError:
        found = _CERTIFICATE.findall(path.read_text("ascii", "replace"))
        if not any([_trusted(made, certificate) for certificate in found]):
            raise


def _trusted(made: ssl.SSLContext, certificate: str) -> bool:
    """Whether one certificate could be made an anchor."""
    try:
        made.load_verify_locations(cadata=ssl.PEM_cert_to_DER_cert(certificate))
    except (ssl.SSLError, ValueError):
        return False
    return True


def _demand_regular(path: Path) -> None:
    """OpenSSL would wait for whoever writes to a pipe, for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
