"""aiohttp's, ssl's and the socket's errors as fastoci's: translated here and nowhere else in this folder."""

from __future__ import annotations

import re
import socket
import ssl
from http import HTTPStatus
from typing import Final

import aiohttp
from yarl import URL

from fastoci.errors import (
    RETRYABLE_STATUSES,
    ConnectError,
    FastociError,
    ProxyError,
    RegistryError,
    TimedOutError,
    TransportError,
    TruncatedError,
)
from fastoci.registry.http.address_policy import AddressScope
from fastoci.registry.http.urls import redact

# TLS alerts about a client's certificate, as OpenSSL calls them; with TLS 1.3 they come in place of the first answer.
_NO_CERTIFICATE: Final = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
_BAD_CERTIFICATE: Final = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",  # also said of none, by Go's servers with TLS 1.2
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
CLIENT_CERTIFICATE: Final = "put NAME.cert and NAME.key into its directory of certs.d, or name theirs with --cert-dir"


class BlockedAddressError(OSError):
    """A server's word led to an address that it may not name. All are equal, so that the connector keeps the class."""

    def __init__(self, scope: AddressScope) -> None:
        super().__init__("this address may not be reached on a server's word")
        self.scope = scope


def translate(
    error: Exception,
    url: str,
    *,
    received: int = 0,
    answered: bool = False,
    proxy: URL | None = None,
    namer: str = "",
) -> FastociError:
    """The error to raise for one of aiohttp's or the system's.

    Args:
        url: what was asked, redacted.
        received: bytes of the body that had arrived.
        answered: the headers had arrived, so this happened in the body.
        proxy: by which the request went.
        namer: who named the URL, ``host[:port]``.
    """
    if isinstance(error, TimeoutError):
        if answered or isinstance(error, aiohttp.SocketTimeoutError):
            return TimedOutError(f"{url}: silence for too long after {received} bytes", url=url, received=received)
        return TimedOutError(f"{url}: no connection in time{_through(proxy)}", url=url)
    if isinstance(error, aiohttp.ClientHttpProxyError) and proxy is not None:
        return refused_by_proxy(error.status, url, proxy)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _unconnected(error, url, proxy, _certificate(error.certificate_error), retryable=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, BlockedAddressError):
            return blocked(url, error.os_error.scope, namer)
        return _connect(error, url, proxy)
    if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):
        return RegistryError(f"{url}: this is not an address to connect to", url=url)
    if answered:
        return _body(error, url, received)
    if isinstance(error, aiohttp.ClientResponseError):
        return TransportError(f"{url}: the answer is not HTTP: {_short(_unquoted(error.message))}", url=url)
    if isinstance(error.__cause__, ssl.SSLError) and (wanted := _client_certificate(error.__cause__, _authority(url))):
        return ConnectError(f"{url}: {wanted}", url=url, retryable=False)
    return TransportError(f"{url}: the connection was closed before an answer came{_through(proxy)}", url=url)


def refused_by_proxy(status: int, url: str, proxy: URL) -> ProxyError:
    """The error for an answer of a proxy itself, in words that are not the proxy's."""
    where, variable = _proxy_name(proxy), f"{url.partition(':')[0].upper()}_PROXY"
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        wants = "does not accept the user and password" if proxy.user else "wants a user and password"
        text = f"{where} {wants}: give them in {variable}, as http://USER:PASSWORD@HOST:PORT"
    else:
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        text = f"{where} does not connect to {_authority(url)}: {status} {phrase}".rstrip()
    return ProxyError(f"{url}: {text}", url=url, status=status, retryable=status in RETRYABLE_STATUSES)


def speaks_tls(error: Exception) -> bool:
    """Whether a connection failed on the word of a server that speaks TLS: by an alert, or for its certificate."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return True
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
    return isinstance(cause, ssl.SSLError) and "_ALERT_" in (cause.reason or "")


def blocked(url: str, scope: AddressScope, namer: str = "") -> RegistryError:
    """The error for a URL that a server named and that may not be asked.

    Args:
        namer: that server, ``host[:port]``.
    """
    if scope is AddressScope.PRIVATE:
        text = (
            f"{namer} sends this request to a private address; if that is meant, allow it by "
            f"--allow-private-redirects {namer}, or allow_private_redirects = true in its hosts.toml"
        )
    else:
        text = "the server sends this request to a loopback, link-local or metadata address"
    return RegistryError(f"{url}: refused, {text}", url=url)


def _connect(error: aiohttp.ClientConnectorError, url: str, proxy: URL | None) -> FastociError:
    where = f"{error.host}:{error.port}"
    cause = error.os_error
    retryable, advice = True, ""
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN:
        text = f"the name server does not answer for {error.host}"
    elif isinstance(cause, socket.gaierror):
        text, advice, retryable = f"unknown host {error.host}", ": check the name of the registry", False
    elif isinstance(cause, ssl.SSLError):
        text, retryable = _tls(cause, where), False
    elif isinstance(cause, ConnectionRefusedError):
        text, advice = f"connection refused by {where}", ": is the registry running there?"
    else:
        text = f"cannot connect to {where}: {_short(cause.strerror or str(cause))}"
    return _unconnected(error, url, proxy, text, advice, retryable=retryable)


def _unconnected(
    error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError,
    url: str,
    proxy: URL | None,
    text: str,
    advice: str = "",
    *,
    retryable: bool,
) -> ConnectError:
    """The error of whoever could not be connected to: the proxy, else the registry, for which is ``advice``."""
    if proxy is not None and (error.host, error.port) == (proxy.raw_host, proxy.port):
        return ProxyError(f"{url}: {_proxy_name(proxy)}: {text}", url=url, retryable=retryable)
    return ConnectError(f"{url}: {text}{advice}", url=url, retryable=retryable)


def _proxy_name(proxy: URL) -> str:
    return f"the proxy {redact(proxy.origin())}"


def _through(proxy: URL | None) -> str:
    return "" if proxy is None else f", through {_proxy_name(proxy)}"


def _authority(url: str) -> str:
    """``host[:port]`` of a redacted URL."""
    return url.partition("://")[2].partition("/")[0]


def _certificate(error: Exception) -> str:
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "not valid"
    return (
        f"certificate not trusted: {_short(reason)}; put its authority into certs.d, --cert-dir or SSL_CERT_FILE, "
        "or accept any certificate with --tls-verify=false"
    )


def _client_certificate(error: ssl.SSLError, where: str) -> str:
    """What an alert says about the client's certificate; empty when it says nothing about that."""
    if error.reason == _NO_CERTIFICATE:
        return f"{where} wants a client certificate: {CLIENT_CERTIFICATE}"
    if error.reason in _BAD_CERTIFICATE:
        alert = error.reason.partition("_ALERT_")[2].lower().replace("_", " ")
        return f"{where} does not accept the client certificate, or wants one ({alert}): {CLIENT_CERTIFICATE}"
    return ""


def _tls(error: ssl.SSLError, where: str) -> str:
    if wanted := _client_certificate(error, where):
        return wanted
    if error.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":
        return f"TLS with {where} failed: handshake failure; if it wants a client certificate, {CLIENT_CERTIFICATE}"
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
