"""TLS contexts: which authorities are trusted, and which certificate is shown. Reads files; call it off the loop.

Each certificate that a user or the system trusts is an anchor, as for Go's programs: an intermediate authority's, a
server's own, and an authority's without the extensions that RFC 5280 asks for. Python 3.13 and later refuse the last by
default, earlier ones the others.
"""

from __future__ import annotations

import base64
import binascii
import errno
import logging
import os
import re
import ssl
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from fastoci.errors import ConfigError

_LOG: Final = logging.getLogger(__name__)
_CERTIFICATE: Final = re.compile(  # its kind, and what is between its lines
    rb"-----BEGIN ((?:TRUSTED |X509 )?)CERTIFICATE-----([^-]*(?:-(?!----)[^-]*)*)-----END \1CERTIFICATE-----"
)
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # of c_rehash


class Tls(msgspec.Struct, frozen=True):
    """Whom a connection trusts, and who it says it is. ``ca`` is trusted beside the system's authorities.

    ``ca_named``: somebody named each file of ``ca``, so each has a certificate; those that lie in a directory may not.
    """

    verify: bool = True
    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path], ...] = ()  # certificate, key
    ca_named: bool = True


def context(tls: Tls | None, *, verify: bool) -> ssl.SSLContext:
    """A client's context, for TLS 1.2 and up.

    Args:
        tls: whom to trust; None for the system's authorities alone.
        verify: without ``tls``, whether to check certificates.
    Raises:
        ConfigError: a file of ``tls`` cannot be used; names it.
    """
    made = _checking() if (verify if tls is None else tls.verify) else _trusting()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION  # as Go's programs: who is asked may not become another
    made.set_alpn_protocols(["http/1.1"])
    if tls is None:
        return made
    for path in tls.ca:
        try:
            _demand_regular(path)
            found = _trust(made, path)
        except OSError as error:
            raise ConfigError(f"{path}: not an authority's certificate: {error.strerror or error}") from error
        if not found and tls.ca_named:
            raise ConfigError(f"{path}: not an authority's certificate: it holds none, in PEM or DER")
        if not found:
            _LOG.warning("%s: passed over: it holds no certificate, in PEM or DER", path)
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


def _checking() -> ssl.SSLContext:
    """A context that trusts the system's authorities."""
    made = ssl.create_default_context()
    _trust_environment(made)
    made.verify_flags = (made.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return made


def _trusting() -> ssl.SSLContext:
    """A context that checks no certificate, so that it needs no authority: to read them takes 20 ms of CPU."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
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


def _trust(made: ssl.SSLContext, path: Path) -> bool:
    """Make each certificate in a file an anchor, and say whether there is any. What cannot be read is passed over.

    Raises:
        OSError: the file cannot be read.
    """
    with suppress(ssl.SSLError):
        made.load_verify_locations(path)  # OpenSSL takes all of the file, or nothing
        return True
    data = path.read_bytes()
    found = _CERTIFICATE.findall(data)
    return any([_trusted(made, kind, body) for kind, body in found]) if found else _loaded(made, data)


def _trusted(made: ssl.SSLContext, kind: bytes, body: bytes) -> bool:
    """Whether one certificate could be made an anchor; ``body`` is what is between its lines, headers included."""
    _, colon, after = body.rpartition(b":")
    try:
        der = binascii.a2b_base64(after.partition(b"\n")[2] if colon else after)
    except binascii.Error:
        return False
    if kind != b"TRUSTED ":
        return _loaded(made, der)
    # Behind it is for what it is trusted, which OpenSSL reads from files alone; it may say that it is not.
    pem = b"-----BEGIN TRUSTED CERTIFICATE-----\n%b-----END TRUSTED CERTIFICATE-----\n" % base64.encodebytes(der)
    with open(os.memfd_create("certificate"), "wb", buffering=0) as file, suppress(OSError):
        file.write(pem)
        made.load_verify_locations(f"/proc/self/fd/{file.fileno()}")
        return True
    return False


def _loaded(made: ssl.SSLContext, der: bytes) -> bool:
    """Whether these bytes are certificates, which are anchors now."""
    try:
        made.load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _demand_regular(path: Path) -> None:
    """OpenSSL would wait for whoever writes to a pipe, for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
