"""Where to ask for a repository: endpoints in the order they are asked, with the trust and the limits of each.

Values and rules, no network: which endpoint answers, how long a dead one is left alone and who retries are others'.
Configuration files are read once, by ``load``.

Spec: distribution-spec v1.1 "Pulling manifests", "Pulling blobs".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from fastoci.image.reference import Reference
from fastoci.registry.addresses import is_loopback
from fastoci.registry.transport import parse_url


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom a connection trusts, and who it says it is. ``ca`` is trusted beside the system's authorities."""

    verify: bool = True
    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path], ...] = ()  # certificate, key


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place that may hold a repository."""

    base: URL  # the API's root, without a slash at its end: https://mirror.local/v2
    path: str  # the repository there: dockerhub/library/redis
    domain: str  # the name by which credentials are looked up: docker.io, mirror.local:5000
    origin: bool  # the registry that the reference names; what the user gave for that one goes nowhere else
    tls: Tls = Tls()
    query: tuple[tuple[str, str], ...] = ()  # goes with every request
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # go with every request; may be secret
    connect_s: float | None = None  # None: the client's own
    resolve: bool = True  # may be asked for tags
    pull: bool = True  # may be asked for blobs, and for manifests by digest
    plain_too: bool = False  # where https does not answer, http is tried


@dataclass(frozen=True, slots=True)
class Mirrors:
    """What the configuration files of this machine say about registries."""


def load(environ: Mapping[str, str], uid: int) -> Mirrors:
    """Read the configuration that applies to a user."""
    return Mirrors()


def endpoints(reference: Reference, config: Mirrors, *, tls_verify: bool) -> tuple[Endpoint, ...]:
    """Where a repository may be asked for, in the order to ask; at least one.

    Args:
        tls_verify: False accepts any certificate, and plain http where https does not answer.
    """
    return (_direct(reference, tls_verify=tls_verify),)


def _direct(reference: Reference, *, tls_verify: bool) -> Endpoint:
    """The registry that the reference names."""
    loopback, scheme = _spoken(reference.host)
    return Endpoint(
        parse_url(f"{scheme}://{reference.host}/v2"),
        reference.path,
        reference.domain,
        True,
        tls=Tls(verify=tls_verify),
        plain_too=not tls_verify and not loopback,
    )


def _spoken(host: str) -> tuple[bool, str]:
    """Whether ``host[:port]`` is this machine, and what it speaks when nobody says it: http there, unless on 443."""
    url = parse_url(f"https://{host}")
    loopback = is_loopback(url.raw_host or "")
    return loopback, "http" if loopback and url.explicit_port != 443 else "https"
