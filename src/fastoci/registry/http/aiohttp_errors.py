"""aiohttp's, ssl's and the socket's errors as fastoci's: translated here and nowhere else in this folder."""

from __future__ import annotations

import re
import socket
import ssl

import aiohttp

from fastoci.errors import ConnectError, FastociError, RegistryError, TimedOutError, TransportError, TruncatedError


class BlockedAddressError(OSError):
    """A server's word led to an address that it may not name. All are equal, so that the connector keeps the class."""

    def __init__(self) -> None:
        super().__init__("this address may not be reached on a server's word")


def translate(error: Exception, url: str, *, received: int = 0, answered: bool = False) -> FastociError:
    """The error to raise for one of aiohttp's or the system's.

    Args:
        url: what was asked, redacted.
        received: bytes of the body that had arrived.
        answered: the headers had arrived, so this happened in the body.
    """
    if isinstance(error, TimeoutError):
        if answered or isinstance(error, aiohttp.SocketTimeoutError):
            return TimedOutError(f"{url}: silence for too long after {received} bytes", url=url, received=received)
        return TimedOutError(f"{url}: no connection in time", url=url)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ConnectError(f"{url}: {_certificate(error.certificate_error)}", url=url, retryable=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connect(error, url)
    if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):
        return RegistryError(f"{url}: this is not an address to connect to", url=url)
    if answered:
        return _body(error, url, received)
    if isinstance(error, aiohttp.ClientResponseError):
        return TransportError(f"{url}: the answer is not HTTP: {_short(_unquoted(error.message))}", url=url)
    return TransportError(f"{url}: the connection was closed before an answer came", url=url)


def blocked(url: str) -> RegistryError:
    """The error for a URL that a server named and that may not be asked."""
    return RegistryError(
        f"{url}: refused, the server sends this request to a local, private or metadata address", url=url
    )


def _connect(error: aiohttp.ClientConnectorError, url: str) -> FastociError:
    where = f"{error.host}:{error.port}"
    cause = error.os_error
    if isinstance(cause, BlockedAddressError):
        return blocked(url)
    if isinstance(cause, socket.gaierror):
        if cause.errno == socket.EAI_AGAIN:
            return ConnectError(f"{url}: the name server does not answer for {error.host}", url=url)
        return ConnectError(
            f"{url}: unknown host {error.host}: check the name of the registry", url=url, retryable=False
        )
    if isinstance(cause, ssl.SSLError):
        return ConnectError(f"{url}: {_tls(cause, where)}", url=url, retryable=False)
    if isinstance(cause, ConnectionRefusedError):
        return ConnectError(f"{url}: connection refused by {where}: is the registry running there?", url=url)
    return ConnectError(f"{url}: cannot connect to {where}: {_short(cause.strerror or str(cause))}", url=url)


def _certificate(error: Exception) -> str:
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "not valid"
    return (
        f"certificate not trusted: {_short(reason)}; put its authority into SSL_CERT_FILE, "
        "or accept any certificate with --tls-verify=false"
    )


def _tls(error: ssl.SSLError, where: str) -> str:
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"):
        return f"{where} does not speak TLS; --tls-verify=false also tries plain http"
    return f"TLS with {where} failed: {_short(error.reason or str(error))}"


def _body(error: Exception, url: str, received: int) -> TransportError:
    cause = error.__cause__
    # aiohttp has one class for a body that ends early and one that is badly framed; only the text of the cause differs.
    if isinstance(error, aiohttp.ClientPayloadError) and cause is not None and "Not enough data" not in str(cause):
        return TransportError(f"{url}: the body's framing is broken", url=url, received=received)
    return TruncatedError(f"{url}: the body ended after {received} bytes", url=url, received=received)


def _unquoted(text: str) -> str:
    """aiohttp's text up to the bytes that it quotes: they may be of a signed URL in a Location."""
    return re.split(r"""\n|b?['"]""", text, maxsplit=1)[0].rstrip(" :")


def _short(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:200]).strip()
