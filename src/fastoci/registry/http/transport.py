"""HTTP as a registry client needs it: one request at a time, redirects followed here, bodies never decoded.

It holds the connections and the rules of where a request may go; it knows nothing of registries, tokens or digests.
Credentials come with a request and end at the first change of scheme, host or port. A redirect, or another request
that a server named, is checked against the address that is really connected to (``address_policy``): so hosts that the
user named and hosts that a server named never share a connection.

With DEBUG, the log has each request: method, URL without secrets, status, bytes, seconds.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, ClassVar, Final

import aiohttp
import msgspec
from yarl import URL

from fastoci.discreet import Discreet
from fastoci.errors import FastociError, RegistryError, TimedOutError
from fastoci.registry.http.address_policy import AddressScope, scope_of
from fastoci.registry.http.aiohttp_errors import blocked, refused_by_proxy, speaks_tls, translate
from fastoci.registry.http.connector import Connector, RequestTimeout, new_socket
from fastoci.registry.http.first_byte import Patience, Silence
from fastoci.registry.http.name_lookup import Resolver
from fastoci.registry.http.no_cookies import NoCookies
from fastoci.registry.http.pace import Pace
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.servers import Servers
from fastoci.registry.http.tls import Tls, context
from fastoci.registry.http.untrusted import typed
from fastoci.registry.http.upload import Sending, Upload
from fastoci.registry.http.urls import Origin, parse_url, quoted, redact, secrets_of
from fastoci.release import VERSION

_LOG: Final = logging.getLogger(__name__)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD: Final = frozenset({307, 308})  # others make a GET of what is not one, or leave it open
_HOPS: Final = 10
_SLOW_HOPS: Final = 2  # that may take as long as answers do: a wait for a connection is in it; then all is over soon
_HEADER_SIZE: Final = 16 << 10  # bytes of one header; signed URLs in Location reach 4 KiB


class RequestOptions(Discreet, frozen=True):
    """How one origin is asked.

    ``own``: headers for that origin only, no more sent once a redirect left it; ``tls``: whom it must be trusted by;
    ``connect_s``: how long a connection may take, when not as long as others; ``manifest``: the request is one of those
    that registries count; ``private_redirects``: what the origin names, now and later, may be in a private network;
    ``patience``: for the first byte of the answer, beyond what all requests have; ``probe``: something small that the
    origin may be asked meanwhile.
    """

    hidden: ClassVar = frozenset({"own"})

    own: Mapping[str, str] = {}
    tls: Tls | None = None
    connect_s: float | None = None
    manifest: bool = False
    private_redirects: bool = False
    patience: Patience | None = None
    probe: URL | None = None


_PLAIN: Final = RequestOptions()


class _Hop(Discreet, frozen=True):
    """One request of those that redirects make of one."""

    hidden: ClassVar = frozenset({"secret"})

    url: URL
    secret: Mapping[str, str]  # headers
    tls: Tls | None
    connect_s: float | None
    redirected: bool = False  # to another origin

    def to(self, url: URL) -> _Hop:
        """The next one; what is for one origin ends at its border."""
        if Origin.of(url) == Origin.of(self.url):
            return msgspec.structs.replace(self, url=url)
        return _Hop(url, {}, None, None, redirected=True)


class Transport:
    """The connections of one client, over all hosts.

    Args:
        tls_verify: check certificates, where nobody says otherwise.
        connect_s, read_s: how long a connection may take, and how long one may be silent.
        connections: at most so many to one host.
        servers: where what is learned about them is kept.
        max_wait_s: a longer wait that a server asks for is an error.
        proxy: by which proxy a URL is reached.
    """

    def __init__(
        self,
        *,
        tls_verify: bool,
        connect_s: float,
        read_s: float,
        connections: int,
        servers: Servers | None = None,
        max_wait_s: float = 60.0,
        proxy: Callable[[URL], URL | None] = lambda url: None,
    ) -> None:
        self.servers = servers or Servers()
        self._tls_verify = tls_verify
        self._connect_s = connect_s
        self._read_s = read_s
        self._connections = connections
        self._max_wait_s = max_wait_s
        self._proxy = proxy
        self._contexts: dict[Tls | None, asyncio.Task[ssl.SSLContext]] = {}
        self._trust: dict[Origin, Tls] = {}  # a token service or redirect on the same origin is trusted the same way
        self._scopes: dict[str, AddressScope] = {}
        self._probes: dict[Origin, asyncio.Task[None]] = {}
        self._trusted_inside: set[Origin] = set()  # by the user: what these name may be in a private network
        # By how near its hosts may be; None: the user named them, so they may be anywhere.
        self._sessions: dict[tuple[AddressScope | None, bool], aiohttp.ClientSession] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        for probe in self._probes.values():
            probe.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()
        await asyncio.gather(*self._contexts.values(), return_exceptions=True)

    def verifies(self, origin: Origin) -> bool:
        """Whether the certificate of a host that a server names is checked."""
        tls = self._trust.get(origin)
        return self._tls_verify if tls is None else tls.verify

    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        authorization: str | None = None,
        body: bytes | Upload | None = None,
        named_by: Origin | None = None,
        options: RequestOptions = _PLAIN,
    ) -> Reply:
        """Send a request when its server may be asked, follow redirects, and return the last answer, its body unread.

        Args:
            authorization: sent to the origin of ``url`` only, and no more once a redirect left it.
            body: a form to post, with which a request follows no redirect, or something to upload.
            named_by: the origin of the server that named ``url``; None when the user did.
        Raises:
            RateLimitedError: the server wants no request for longer than ``max_wait_s``.
            RegistryError: a redirect that may not be followed.
            TransportError: no answer.
        """
        self._note_trust(Origin.of(url), options)
        hop = _Hop(url, _secret_headers(options.own, authorization), options.tls, options.connect_s)
        begun = time.monotonic()
        for count in range(_HOPS + 1):
            server = self.servers.of(Origin.of(hop.url))
            await server.wait_until_allowed(self._max_wait_s, manifest=options.manifest)
            begun += await server.wait_for_turn()
            fields = _fields({**headers, **hop.secret}, body, self.servers.sending)
            silence = self._silence(hop, options if count < _SLOW_HOPS else _PLAIN, fields["data"])
            response = await self._send(method, hop, fields, named_by or Origin.of(url), silence)
            location = response.headers.get("Location")
            reply = self._reply(response, hop, body)
            server.on_response(reply.status, reply.header)
            if response.status not in _REDIRECTS or location is None:
                return reply
            response.close() if isinstance(body, Upload) else response.release()  # half of a body may be on its way
            following = _redirect(method, hop.url, location, response.status, body)
            begun = time.monotonic() if count < _SLOW_HOPS else begun
            if time.monotonic() - begun > self._read_s:
                raise TimedOutError(f"{reply.url}: redirects without an answer for {self._read_s:g} s", url=reply.url)
            hop = hop.to(following)
        raise RegistryError(f"{reply.url}: more than {_HOPS} redirects", url=reply.url, status=reply.status)

    def _note_trust(self, origin: Origin, options: RequestOptions) -> None:
        """Remember what the user says of a server, for when another one names it, or it names another one."""
        if options.tls is not None:
            self._trust[origin] = options.tls
            self._trust[msgspec.structs.replace(origin, scheme="https")] = options.tls  # where http may redirect to
        if options.private_redirects:
            self._trusted_inside.add(origin)

    def _silence(self, hop: _Hop, options: RequestOptions, data: object) -> Silence:
        """How long the server of a hop may be silent."""
        server, connect_s = self.servers.of(Origin.of(hop.url)), hop.connect_s or self._connect_s
        # Who has been silent for all that time, and is all there is, gets little time.
        first_s = min(connect_s, self._read_s) if server.unresponsive else self._read_s
        probe = None
        if options.probe is not None and Origin.of(options.probe) == Origin.of(hop.url):
            probe = functools.partial(self._probe, hop.to(options.probe))
        sending = data if isinstance(data, Sending) else None
        return Silence(
            lambda: server.answered, first_s, options.patience, probe=probe, probe_s=connect_s, sending=sending
        )

    def _probe(self, hop: _Hop) -> None:
        """Begin to ask a server something small, on a connection beyond those of requests; once at a time."""
        origin = Origin.of(hop.url)
        if origin not in self._probes or self._probes[origin].done():
            self._probes[origin] = asyncio.create_task(self._ask_small(hop))

    async def _ask_small(self, hop: _Hop) -> None:
        origin, fields = Origin.of(hop.url), {"headers": {"Accept-Encoding": "identity"}}
        silence = Silence(lambda: False, self._connect_s)
        with suppress(FastociError):
            response = await self._send(
                "GET", msgspec.structs.replace(hop, secret={}), fields, origin, silence, spare=True
            )
            response.close()
            self.servers.of(origin).on_response(response.status, lambda name: "")

    async def _send(
        self,
        method: str,
        hop: _Hop,
        fields: dict[str, Any],
        namer: Origin,
        silence: Silence,
        *,
        spare: bool = False,
    ) -> aiohttp.ClientResponse:
        """Send one request, and return its answer."""
        url = hop.url
        # Another request may have said meanwhile, for another namespace, how to trust the same origin.
        trust = self._trust.get(Origin.of(url)) if hop.tls is None else hop.tls
        trusted = await self._context(trust) if url.scheme == "https" else True
        server = self.servers.of(Origin.of(url))
        timeout = RequestTimeout(silence, hop.connect_s or self._connect_s)
        proxy = self._proxy(url)
        reach = self._reach(url, namer)
        if proxy is not None and reach is not None:
            _check_proxied(url, reach)
        session = self._session(reach if proxy is None else None, spare=spare)
        begun = time.monotonic()
        with typed(redact(url)):
            try:
                response = await session.request(
                    method, url, allow_redirects=False, ssl=trusted, timeout=timeout, proxy=proxy, **fields
                )
            except (aiohttp.ClientError, OSError, UnicodeError) as error:
                if isinstance(error, aiohttp.SocketTimeoutError):
                    server.on_timeout()
                server.speaks_scheme |= speaks_tls(error)
                # aiohttp's texts hold the whole URL: with a query in it they are not kept as the cause.
                # So do bytes of an answer that is not HTTP: a Location among them may be signed.
                secret = url.raw_query_string or proxy or isinstance(error, aiohttp.ClientResponseError)
                unproven = not server.answered and (trust is None or not trust.client)
                host = self.servers.of(namer).host
                failed = translate(error, redact(url), proxy=proxy, namer=host, unproven=unproven)
                _LOG.debug("%s %s: %s, after %.3f s", method, redact(url), failed.cause, time.monotonic() - begun)
                raise failed from (None if secret else error)
        _log_answer(response, url, time.monotonic() - begun)
        if proxy is not None and response.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            response.close()
            raise refused_by_proxy(407, redact(url), proxy, response.headers.getall("Proxy-Authenticate", ()))
        return response

    def _reply(self, response: aiohttp.ClientResponse, hop: _Hop, body: bytes | Upload | None) -> Reply:
        form = body if isinstance(body, bytes) else b""
        secrets = functools.partial(secrets_of, hop.url, tuple(hop.secret.values()), form)
        proxy = self._proxy(hop.url) if hop.url.scheme == "http" else None  # none changes what a tunnel carries
        where = "" if proxy is None else redact(proxy.origin())
        return Reply(
            response,
            hop.url,
            self._read_s,
            secrets=secrets,
            redirected=hop.redirected,
            proxy=where,
            bandwidth=self.servers.of(Origin.of(hop.url)).bandwidth,
        )

    def _reach(self, url: URL, namer: Origin) -> AddressScope | None:
        """How near the host of ``url`` may be, on the word of ``namer``."""
        target = Origin.of(url)
        if (target.host, target.port) == (namer.host, namer.port):
            return None
        try:
            near = scope_of(namer.host)
        except ValueError:
            near = self._scopes.get(namer.host, AddressScope.PUBLIC)
        if namer in self._trusted_inside:
            near = max(near, AddressScope.PRIVATE)
        return min(near, AddressScope.LOOPBACK)

    def _session(self, reach: AddressScope | None, *, spare: bool) -> aiohttp.ClientSession:
        """The connections by how near their hosts may be; ``spare`` ones are beyond the limit."""
        session = self._sessions.get((reach, spare))
        if session is None:
            connector = Connector(
                self.servers,
                self._max_wait_s,
                notes=reach is None,
                read_s=self._read_s,
                slots=None if spare else self.servers.slots,
                limit=0,
                limit_per_host=0 if spare else self._connections,
                resolver=Resolver(self._scopes if reach is None else None, self._connect_s),
                socket_factory=functools.partial(new_socket, reach, self.servers.receive_buffer),
            )
            session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=NoCookies(),
                trust_env=False,
                requote_redirect_url=False,
                max_line_size=_HEADER_SIZE,
                max_field_size=_HEADER_SIZE,
                headers={"User-Agent": f"fastoci/{VERSION}"},
            )
            self._sessions[reach, spare] = session
        return session

    async def _context(self, tls: Tls | None) -> ssl.SSLContext:
        task = self._contexts.get(tls)
        if task is None:
            # Reads some 150 certificates from disk: not on the loop, and once.
            work = asyncio.to_thread(context, tls, verify=self._tls_verify)
            task = self._contexts[tls] = asyncio.create_task(work)
        return await asyncio.shield(task)


def _check_proxied(url: URL, reach: AddressScope) -> None:
    """Check an address that a proxy connects to: only a numeric one, in any spelling, can be judged here.

    Whether the server that named it is in a private network itself, only the proxy knows.
    """
    host = url.raw_host or ""
    with suppress(OSError):
        host = socket.inet_ntoa(socket.inet_aton(host))
    with suppress(ValueError):
        if (scope := scope_of(host)) > max(reach, AddressScope.PRIVATE):
            raise blocked(redact(url), scope)


def _secret_headers(own: Mapping[str, str], authorization: str | None) -> dict[str, str]:
    """The headers that only the origin that was asked first may see."""
    if authorization is None:
        return dict(own)
    rest = {name: value for name, value in own.items() if name.lower() != "authorization"}
    return {**rest, "Authorization": authorization}


def _log_answer(response: aiohttp.ClientResponse, url: URL, elapsed_s: float) -> None:
    if _LOG.isEnabledFor(logging.DEBUG):
        length = response.headers.get("Content-Length", "unknown")[:20]
        words = (response.method, redact(url), response.status, length, elapsed_s)
        _LOG.debug("%s %s: %d, %s bytes announced, after %.3f s", *words)


def _fields(headers: Mapping[str, str], body: bytes | Upload | None, bandwidth: Pace | None) -> dict[str, Any]:
    """Headers and body as aiohttp takes them."""
    fields = {"Accept-Encoding": "identity", **headers}
    if not isinstance(body, Upload):
        return {"headers": fields, "data": body}
    return {"headers": {**fields, "Content-Length": str(body.size)}, "data": Sending(body, bandwidth)}


def _redirect(method: str, url: URL, location: str, status: int, body: bytes | Upload | None) -> URL:
    where = redact(url)
    problem = ""
    try:
        following = parse_url(quoted(location), base=url)
    except ValueError:
        problem = "to something that is not an http(s) URL"
    else:
        if isinstance(body, bytes):
            problem = "a request that carries a secret"
        elif method not in ("GET", "HEAD") and status not in _SAME_METHOD:
            problem = f"a {method}, by a status that does not keep it"
        elif url.scheme == "https" and following.scheme == "http":
            problem = "from https to http"
        if not problem:
            return following
    raise RegistryError(f"{where}: refused, the server redirects {problem}", url=where, status=status)
