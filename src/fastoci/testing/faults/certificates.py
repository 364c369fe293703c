"""Certificates for the hosts of a scenario, good and bad, of an authority that lives as long as the server.

trustme is imported only here, and only when TLS is asked for.
"""

from __future__ import annotations

import ssl
import tempfile
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import trustme

Kind = Literal["good", "expired", "name", "unknown", "self", "old"]


class Authority:
    """A certificate authority; ``pem`` is what a client must trust."""

    def __init__(self) -> None:
        import trustme

        self._authority: trustme.CA = trustme.CA()
        self.pem: bytes = self._authority.cert_pem.bytes()

    def context(self, hosts: Sequence[str], kind: Kind = "good") -> ssl.SSLContext:
        """A server's context with a certificate for these addresses, or one that is wrong as ``kind`` says."""
        import trustme

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer = trustme.CA() if kind in ("unknown", "self") else self._authority
        if kind == "self":  # an authority's own certificate, with no name of a host
            with tempfile.NamedTemporaryFile() as file:
                file.write(issuer.private_key_pem.bytes() + issuer.cert_pem.bytes())
                file.flush()
                context.load_cert_chain(file.name)
            return context
        names = ["elsewhere.example"] if kind == "name" else hosts
        past = datetime.now(UTC) - timedelta(days=1)
        leaf = issuer.issue_cert(*names, not_after=past) if kind == "expired" else issuer.issue_cert(*names)
        leaf.configure_cert(context)
        if kind == "old":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 is what this is about
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                context.maximum_version = ssl.TLSVersion.TLSv1
            context.set_ciphers("ALL:@SECLEVEL=0")
        return context
