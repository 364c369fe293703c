"""Which proxy a request goes through, by the environment: ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``.

Reads no files, opens nothing. A proxy's URL may hold its credentials: they are for the proxy alone, and in no error.

Spec: none; the variables as Go's ``net/http`` reads them, and curl's ``ALL_PROXY``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from yarl import URL

from fastoci.errors import ConfigError
from fastoci.registry.http.address_policy import is_loopback


def proxy_for(url: URL, environ: Mapping[str, str]) -> URL | None:
    """The proxy for a request, with its credentials; None for a direct connection. This machine has no proxy.

    Raises:
        ConfigError: the variable that applies is not the URL of a proxy that speaks http or https.
    """
    host = (url.raw_host or "").lower().rstrip(".")
    own = f"{url.scheme}_proxy"
    names = [own.upper(), own, "ALL_PROXY", "all_proxy"]
    if "REQUEST_METHOD" in environ and url.scheme == "http":
        names.remove("HTTP_PROXY")  # in CGI it is a header that anyone may send
    name = next((name for name in names if environ.get(name)), None)
    if name is None or is_loopback(host):
        return None
    exceptions = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if any(_excepts(entry.strip().lower(), host, url.port) for entry in exceptions.split(",")):
        return None
    return _proxy(name, environ[name].strip())


def _proxy(name: str, text: str) -> URL:
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
        known = bool(proxy.raw_host) and (proxy.port is not None or proxy.scheme not in ("http", "https"))
    except Exception:  # not ValueErrors alone: "http://[::1]@" is an IndexError of yarl's
        known = False
    if not known:
        # The cause is dropped: its text may hold the proxy's credentials.
        raise ConfigError(f"{name} is not the URL of a proxy; write http://host:port") from None
    if proxy.scheme not in ("http", "https"):
        raise ConfigError(f"{name} names a proxy of scheme {proxy.scheme!r}; only http and https are supported")
    return proxy


def _excepts(entry: str, host: str, port: int | None) -> bool:
    """Whether one entry of ``NO_PROXY`` is about a host: ``*``, a network, an address, a domain, each with a port."""
    if entry == "*":
        return True
    address = _address(host.strip("[]"))
    if "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address is not None and address in network
    name, colon, wanted = entry.rpartition(":")
    if not colon or entry.endswith("]") or _address(entry) is not None:
        name = entry  # the colons of an IPv6 address are no port's
    elif wanted and wanted != str(port):
        return False
    name = name.strip("[]")
    if (excepted := _address(name)) is not None:
        return address == excepted
    bare = name.removeprefix("*").lstrip(".").rstrip(".")
    if not bare:
        return False
    return host.endswith(f".{bare}") or (host == bare and not name.startswith(("*", ".")))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
