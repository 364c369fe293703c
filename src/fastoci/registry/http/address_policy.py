"""How near to this machine an address is: where a server's word may lead a request. No I/O.

The user's word reaches every address. A server's word (a redirect, a token realm) leads at most as near as that server
itself is: a public registry may not point into a private network or at loopback, one on loopback may point anywhere.
The user may say of a server that it counts as in a private network (``private_redirects``): one with a public name and
a private bucket. Link-local, multicast and cloud metadata addresses are never reached on a server's word.
"""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import Final


class AddressScope(IntEnum):
    """From far to near."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    FORBIDDEN = 3


# Metadata services that are not on a link-local address: over IPv6 of AWS and EKS, Google, Oracle, Scaleway, Linode and
# Alibaba; over IPv4 of Alibaba, Oracle, and Azure's wire server.
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fd00:a9fe:a9fe::1",
        "fd00:100::100:200",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
    )
)
# NAT64, and the IPv4-compatible and -translated addresses (RFC 4291 2.5.5.1, 2765): all end in an IPv4 address.
_WITH_IPV4: Final = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
_LOCAL_NAT64: Final = ipaddress.ip_network(
    "64:ff9b:1::/48"
)  # RFC 8215; where the IPv4 address is in it, varies: mostly at its end


def scope_of(address: str) -> AddressScope:
    """How near a numeric address is; the IPv4 address inside an IPv6 one counts.

    Raises:
        ValueError: not a numeric address.
    """
    ip = _inner(ipaddress.ip_address(address))
    if ip.is_link_local or ip.is_multicast or ip in _METADATA:
        return AddressScope.FORBIDDEN
    if ip.is_loopback or ip.is_unspecified:
        return AddressScope.LOOPBACK  # connecting to 0.0.0.0 reaches this machine
    if isinstance(ip, ipaddress.IPv6Address) and ip in _LOCAL_NAT64:
        behind = scope_of(str(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)))
        return behind if behind is AddressScope.FORBIDDEN else AddressScope.PRIVATE
    if isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local:
        return AddressScope.PRIVATE
    return AddressScope.PUBLIC if ip.is_global else AddressScope.PRIVATE


def is_loopback(host: str) -> bool:
    """Whether a host, without port and brackets, is this machine by its very name."""
    if host.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback  # Python 3.13 and later see what is mapped by themselves


def _inner(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(ip, ipaddress.IPv6Address):
        if int(ip) > 1 and any(ip in network for network in _WITH_IPV4):
            return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        return ip.ipv4_mapped or ip.sixtofour or ip
    return ip
