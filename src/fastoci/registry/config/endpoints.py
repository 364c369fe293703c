"""Where to ask for a repository: endpoints in the order they are asked, with the trust and the limits of each.

Values and rules, no network: which endpoint answers, how long a dead one is not asked and who retries are others'.
Configuration files are read once, by ``load``.

Spec: distribution-spec v1.1 "Pulling manifests", "Pulling blobs".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec
from yarl import URL

from fastoci.discreet import Discreet
from fastoci.errors import ConfigError, DeniedError, ReferenceSyntaxError
from fastoci.image.reference import Reference
from fastoci.registry.config import certs_d, files, hosts_toml, registries_conf
from fastoci.registry.config.certs_d import Folder
from fastoci.registry.config.hosts_toml import Host
from fastoci.registry.config.registries_conf import Location, RegistriesConf, Registry, When
from fastoci.registry.http.address_policy import is_loopback
from fastoci.registry.http.tls import Tls
from fastoci.registry.http.urls import Origin, parse_url, redact

if TYPE_CHECKING:
    from fastoci.lists.request import RegistryAccess

_LOG: Final = logging.getLogger(__name__)


class Endpoint(Discreet, frozen=True):
    """A server that may hold a repository."""

    hidden: ClassVar = frozenset({"headers"})

    base: URL  # the API's root, without a slash at its end: https://mirror.local/v2
    path: str  # the repository there: dockerhub/library/redis
    domain: str  # the name by which credentials are looked up: docker.io, mirror.local:5000
    origin: bool  # the registry that the reference names; what the user gave for that one goes nowhere else
    tls: Tls = msgspec.field(default_factory=Tls)
    query: tuple[tuple[str, str], ...] = ()  # goes with every request
    headers: tuple[tuple[str, str], ...] = ()  # go with every request; may be secret
    connect_s: float | None = None  # None: the client's own
    resolve: bool = True  # may be asked for tags
    pull: bool = True  # may be asked for blobs, and for manifests by digest
    either_scheme: bool = False  # where the one of ``base`` does not answer, the other is tried
    private_redirects: bool = False  # its redirects and token service may be in a private network

    @property
    def fields(self) -> dict[str, str]:
        """The headers as they are sent: several values of one name joined with commas, which means the same."""
        found: dict[str, str] = {}
        for name, value in self.headers:
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found


class Stated(msgspec.Struct, frozen=True):
    """What a list says of one registry: goes before what is said of all."""

    verify: bool | None = None
    certs: Folder | None = None


class Mirrors(msgspec.Struct, frozen=True):
    """What the configuration files of a machine say about registries, as they were when they were read."""

    registries: RegistriesConf = msgspec.field(default_factory=RegistriesConf)
    hosts: tuple[Mapping[str, Folder], ...] = ()  # containerd's directories: a host's by its name
    certs: tuple[Mapping[str, Folder], ...] = ()  # the directories of certs.d
    cert_dir: Folder | None = None  # the one directory for all hosts
    stated: Mapping[str, Stated] = {}  # by host[:port] as references have it
    private_redirects: frozenset[str] = frozenset()  # host[:port] of those that may lead into private networks
    foreign: bool = False  # a layer that its registry does not have may be had where its descriptor says


def load(
    environ: Mapping[str, str],
    uid: int,
    *,
    registries: Path | None = None,
    hosts_dir: Path | None = None,
    cert_dir: Path | None = None,
    private_redirects: Iterable[str] = (),
    root: Path = Path("/"),
) -> Mirrors:
    """Read the configuration that applies to a user; blocks on the disk.

    Naming one form of configuration leaves the usual files of the other one unread (docs/mirrors.md).

    Args:
        registries: the only ``registries.conf``; else the environment may name one.
        hosts_dir: the only directory of ``hosts.toml`` directories.
        cert_dir: certificates for every host, instead of those of ``certs.d``.
        private_redirects: ``host[:port]`` of those that may lead into private networks; without a port, at any.
        root: what ``/etc`` and ``/usr`` are below.
    Raises:
        ConfigError: a file does not say what it should, or one that was asked for by name cannot be read.
        ReferenceSyntaxError: one of ``private_redirects`` is not a host.
    """
    private = frozenset(map(_host_name, private_redirects))
    registries = registries or registries_conf.named(environ)
    tables = RegistriesConf()
    if registries is not None or hosts_dir is None:
        tables = registries_conf.load(environ, uid, root=root, only=registries)
    for named in filter(None, (hosts_dir, cert_dir)):
        _demand_directory(named)
    hosts: tuple[Mapping[str, Folder], ...] = ()
    if hosts_dir is not None:
        hosts = (certs_d.scan(hosts_dir),)
    elif registries is None:
        hosts = _scanned(_containerd(environ, uid, root), environ)
    return Mirrors(
        tables,
        hosts,
        _scanned(certs_d.config_directories(environ, uid, root), environ),
        certs_d.read(cert_dir) if cert_dir is not None else None,
        private_redirects=private,
    )


def with_access(config: Mirrors, access: Sequence[RegistryAccess]) -> Mirrors:
    """The configuration with what lists say of single registries, the first of each; blocks on the disk.

    Raises:
        ConfigError: a directory of certificates cannot be read.
    """
    stated: dict[str, Stated] = {}
    for each in access:
        if each.cert_dir is not None:
            _demand_directory(each.cert_dir)
        certs = None if each.cert_dir is None else certs_d.read(each.cert_dir)
        stated.setdefault(each.registry, Stated(each.tls_verify, certs))
    return msgspec.structs.replace(config, stated=stated) if stated else config


def _demand_directory(path: Path) -> None:
    if files.names(path) is None:
        raise ConfigError(f"{path}: this is not a directory that can be read")


def endpoints(reference: Reference, config: Mirrors, *, tls_verify: bool) -> tuple[Endpoint, ...]:
    """Where a repository may be asked for, in the order to ask; at least one may be asked for what it names.

    Args:
        tls_verify: False accepts any certificate, and plain http where https does not answer.
    Raises:
        DeniedError: the configuration blocks it.
        ConfigError: a file that concerns this host does not say what it should.
    """
    selection = _Selection(reference, config, tls_verify)
    found = [endpoint for endpoint in selection.all() if endpoint.pull or endpoint.resolve]
    if not any(e.pull for e in found) or (reference.digest is None and not any(e.resolve for e in found)):
        raise DeniedError(f"{reference.name}: blocked, {selection.source} names nobody who may be asked for it", url="")
    if _LOG.isEnabledFor(logging.DEBUG):
        names = ", ".join(redact(endpoint.base) for endpoint in found)
        _LOG.debug("%s: endpoints by %s: %s", reference.name, selection.source or "its name", names)
    return tuple(found)


def own(reference: Reference, config: Mirrors, *, tls_verify: bool) -> Endpoint:
    """The registry that a reference names, whether or not it is asked for images.

    Raises:
        ConfigError: as ``endpoints``.
    """
    selection = _Selection(reference, config, tls_verify)
    return next((endpoint for endpoint in selection.all() if endpoint.origin), None) or selection.direct(reference)


def _scanned(directories: Iterable[Path], environ: Mapping[str, str]) -> tuple[Mapping[str, Folder], ...]:
    home = certs_d.config_home(environ)
    return tuple(certs_d.scan(each, own=home is not None and each.is_relative_to(home)) for each in directories)


def _containerd(environ: Mapping[str, str], uid: int, root: Path) -> Iterator[Path]:
    home = certs_d.config_home(environ)
    if uid != 0 and home:
        yield home / "containerd/certs.d"
    yield root / "etc/containerd/certs.d"
    yield root / "etc/docker/certs.d"


class _Selection:
    """A reference in the light of the configuration; ``source`` is the file that decides."""

    def __init__(self, reference: Reference, config: Mirrors, tls_verify: bool) -> None:
        self._reference = reference
        self._config = config
        self._verify = tls_verify
        self._table = config.registries.find(reference.name)
        folder = hosts_toml.find(config.hosts, reference.domain)
        if folder is not None and (not _says(folder) or (self._table and folder.path.name == hosts_toml.DEFAULT)):
            folder = None  # what is said of this name goes before what is said of all
        self._folder = folder
        self.source = str(self._folder.path / "hosts.toml" if self._folder else self._table.file if self._table else "")

    def all(self) -> Iterator[Endpoint]:
        """All endpoints, in their order."""
        blocked = self._table is not None and self._table.blocked
        if self._folder is not None:
            for host in hosts_toml.parse(self._folder):
                endpoint = self._host(host)
                if blocked and self._table is not None and endpoint.origin:
                    self.source = str(self._table.file)
                else:
                    yield endpoint
        elif self._table is not None:
            yield from self._of_table(self._table)
        else:
            yield self.direct(self._reference)

    def _of_table(self, table: Registry) -> Iterator[Endpoint]:
        digest = self._reference.digest is not None
        for location in table.mirrors:
            if digest and location.when is When.TAG:
                continue
            endpoint = self._at(table, location)
            if endpoint is not None:
                yield msgspec.structs.replace(endpoint, resolve=digest or location.when is not When.DIGEST)
        if not table.blocked and (endpoint := self._at(table, table.origin)) is not None:
            yield endpoint

    def _at(self, table: Registry, location: Location) -> Endpoint | None:
        """One location of a table; None when another table blocks where it leads."""
        name = table.rewrite(self._reference.name, location)
        try:
            there = Reference.parse(name)
        except ReferenceSyntaxError as error:
            raise self._no_name(table, name) from error
        if there.name != name:
            raise self._no_name(table, name)
        final = self._config.registries.find(name)
        if final is not None and final.blocked:
            return None
        return self.direct(there, insecure=location.insecure)

    def _no_name(self, table: Registry, name: str) -> ConfigError:
        return ConfigError(
            f"{table.file}: the [[registry]] with prefix {table.prefix!r} makes {name!r} of {self._reference.name!r}, "
            "which is not of the form host[:port]/repository; write another location, or a table for this name alone"
        )

    def direct(self, there: Reference, *, insecure: bool = False) -> Endpoint:
        """The registry that a name itself speaks of."""
        origin = there.domain == self._reference.domain or there.host == self._reference.host
        domain = self._reference.domain if origin else there.domain
        tls = self._tls(domain, self._checked(domain, insecure))
        base, either_scheme = _spoken(there.host, tls)
        inside = self._trusted_inside(domain, base)
        return Endpoint(base, there.path, domain, origin, tls, either_scheme=either_scheme, private_redirects=inside)

    def _host(self, host: Host) -> Endpoint:
        """One host of hosts.toml."""
        own, own_either = _spoken(self._reference.host, Tls(self._checked(self._reference.domain, False)))
        if host.base is None:
            base, either_scheme, proxied = own, own_either, False
        else:
            base, either_scheme = host.base, False
            # One that is to speak TLS and is written with http is asked for TLS first, except on port 80.
            if base.scheme == "http" and host.tls and not host.authority.endswith(":80"):
                base, either_scheme = base.with_scheme("https"), True
            proxied = host.authority not in (self._reference.domain, self._reference.host)
        origin = not proxied or Origin.of(host.base or own) == Origin.of(own)
        domain = self._reference.domain if origin else host.authority
        tls = Tls(self._checked(domain, host.skip_verify), host.ca, host.client)
        return Endpoint(
            base,
            self._reference.path,
            domain,
            origin,
            tls if (host.ca or host.client) and not self._has_certs(domain) else self._tls(domain, tls.verify),
            query=(("ns", self._reference.domain),) if proxied else (),
            headers=host.headers,
            connect_s=host.connect_s,
            resolve={"pull", "resolve"} <= host.capabilities,
            pull="pull" in host.capabilities,
            either_scheme=either_scheme,
            private_redirects=host.private_redirects or self._trusted_inside(domain, base),
        )

    def _trusted_inside(self, domain: str, base: URL) -> bool:
        """Whether the user lets a server lead into private networks, under its own name or the one that is asked."""
        names = {domain.lower(), (base.raw_host or "").lower(), base.raw_authority.lower()}
        host, colon, port = domain.lower().rpartition(":")
        if colon and port.isdecimal():
            names.add(host)
        return not names.isdisjoint(self._config.private_redirects)

    def _checked(self, domain: str, is_insecure: bool | None) -> bool:
        """Whether certificates of a host are checked: as a list says of it, else unless anybody says otherwise."""
        stated = self._config.stated.get(domain)
        return self._verify and not is_insecure if stated is None or stated.verify is None else stated.verify

    def _has_certs(self, domain: str) -> bool:
        stated = self._config.stated.get(domain)
        return stated is not None and stated.certs is not None

    def _tls(self, domain: str, verify: bool) -> Tls:
        stated = self._config.stated.get(domain)
        folder = self._config.cert_dir if stated is None or stated.certs is None else stated.certs
        if folder is None:
            folder = next((hosts[domain] for hosts in self._config.certs if domain in hosts), None)
        if folder is None:
            folder = hosts_toml.find(self._config.hosts, domain)
            folder = None if folder is None or _says(folder) else folder
        return Tls(verify, *folder.certificates(), ca_named=False) if folder is not None else Tls(verify)


def _says(folder: Folder) -> bool:
    """Whether a host's directory has a hosts.toml that says something; an empty one is as if it were not there."""
    return bool(folder.hosts or folder.problem)


def _host_name(text: str) -> str:
    """``host[:port]`` as references have it, in lower case."""
    try:
        found = Reference.parse(f"{text}/x")
    except ReferenceSyntaxError:
        found = None
    if found is None or found.path not in ("x", "library/x"):
        raise ReferenceSyntaxError(f"{text[:200]!r} is not a registry: expected HOST[:PORT], with a dot or port in it")
    return found.domain.lower()


def _spoken(host: str, tls: Tls) -> tuple[URL, bool]:
    """The API of ``host[:port]`` when nobody says what it speaks, and whether the other scheme is tried as well.

    This machine speaks either, unless on port 443: http is tried first, which costs less, and https where there are
    certificates for it. All others speak https, and http too only for those who want no certificate checked.
    """
    url = parse_url(f"https://{host}/v2")
    if not is_loopback(url.raw_host or "") or url.explicit_port == 443:
        return url, not tls.verify
    return (url if tls.ca or tls.client else parse_url(f"http://{host}/v2")), True
