"""aiohttp's, ssl's and the socket's errors as fastoci's: translated here and nowhere else in this folder."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable, Sequence
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

# Why OpenSSL does not trust a certificate: X509_V_ERR_*. Of other reasons only it knows more.
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})  # no issuer found, or one that is no anchor
_DATES: Final = frozenset({9, 10})  # not yet valid, expired
_NAMES: Final = frozenset({62, 64})  # host name, IP address

_SCHEME: Final = re.compile(r"(?:^|,)\s*([A-Za-z0-9-]{1,20})(?=\s*(?:,|$)|\s+[^\s=])")  # of authentication


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
    unproven: bool = False,
) -> FastociError:
    """The error to raise for one of aiohttp's or the system's.

    Args:
        url: what was asked, redacted.
        received: bytes of the body that had arrived.
        answered: the headers had arrived, so this happened in the body.
        proxy: by which the request went.
        namer: who named the URL, ``host[:port]``.
        unproven: the server has answered nothing so far, and is shown no certificate of the client's.
    """
    if isinstance(error, TimeoutError):
        if answered or isinstance(error, aiohttp.SocketTimeoutError):
            return TimedOutError(f"{url}: silence for too long after {received} bytes", url=url, received=received)
        return TimedOutError(f"{url}: no connection in time{_through(proxy)}", url=url)
    if isinstance(error, aiohttp.ClientHttpProxyError) and proxy is not None:
        challenges = error.headers.getall("Proxy-Authenticate", ()) if error.headers else ()
        return refused_by_proxy(error.status, url, proxy, challenges)
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
        return _not_http(error, url, proxy)
    if isinstance(error.__cause__, ssl.SSLError) and (wanted := _client_certificate(error.__cause__, _authority(url))):
        return ConnectError(f"{url}: {wanted}", url=url, retryable=False)
    text = f"{url}: the connection was closed before an answer came{_through(proxy)}"
    if unproven and url.startswith("https:"):  # with TLS 1.3 the server's word about that may be lost with it
        text += f"; perhaps {_authority(url)} wants a client certificate: {CLIENT_CERTIFICATE}"
    return TransportError(text, url=url)


def refused_by_proxy(status: int, url: str, proxy: URL, challenges: Iterable[str] = ()) -> ProxyError:
    """The error for an answer of a proxy itself, in words that are not the proxy's.

    Args:
        challenges: what its ``Proxy-Authenticate`` headers say.
    """
    where, variable = _proxy_name(proxy), f"{url.partition(':')[0].upper()}_PROXY"
    offered = list(dict.fromkeys(scheme for text in challenges for scheme in _SCHEME.findall(text)))
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and _lacks_basic(offered):
        text = (
            f"{where} takes no user and password, only {' or '.join(offered[:4])}, which fastoci does not speak: "
            "use a proxy that takes them (Basic), or one on this machine that logs in to it"
        )
    elif status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        wants = "does not accept the user and password" if proxy.user else "wants a user and password"
        text = f"{where} {wants}: give them in {variable}, as http://USER:PASSWORD@HOST:PORT"
    else:
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        text = f"{where} does not connect to {_authority(url)}: {status} {phrase}".rstrip()
    return ProxyError(f"{url}: {text}", url=url, status=status, retryable=status in RETRYABLE_STATUSES)


def _lacks_basic(offered: Sequence[str]) -> bool:
    return bool(offered) and "basic" not in map(str.lower, offered)


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
    code = getattr(error, "verify_code", 0)
    if code in _UNKNOWN_AUTHORITY:
        advice = "put its authority into certs.d, --cert-dir or SSL_CERT_FILE, or "
    elif code in _DATES:
        advice = "check the clock of this machine, and let the server's operator renew it, or "
    elif code in _NAMES:
        advice = "ask by a name that it is for, or let the server's operator have one made for this name, or "
    else:
        advice = ""
    return f"certificate not trusted: {_short(reason)}; {advice}accept any certificate with --tls-verify=false"


def _not_http(error: aiohttp.ClientResponseError, url: str, proxy: URL | None) -> TransportError:
    what = f"is not HTTP: {_short(_unquoted(error.message))}"
    # A proxy answers CONNECT by itself, and hands on answers to http; what comes through its tunnel is not its own.
    tunnel = error.request_info.method == "CONNECT"
    if proxy is None or not (tunnel or url.startswith("http:")):
        return TransportError(f"{url}: the answer {what}", url=url)
    return (ProxyError if tunnel else TransportError)(f"{url}: the answer of {_proxy_name(proxy)} {what}", url=url)


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
