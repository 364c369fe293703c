"""One reference's access to the candidates that hold it: how each is asked, and with whose credentials.

What is done about a 401 is ``authenticator``'s. It knows nothing of what is asked for.

Spec: distribution-spec v1.1, token authentication.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final

from msgspec.structs import replace
from yarl import URL

from fastoci.errors import RegistryError
from fastoci.image.reference import Reference
from fastoci.registry.auth.authenticator import Authenticator, Ping
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.config.endpoints import Endpoint
from fastoci.registry.fetch.failover import Candidate, ClientPolicy, Failover, candidates
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.first_byte import Patience
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.servers import Server
from fastoci.registry.http.transport import RequestOptions, Transport
from fastoci.registry.http.upload import Upload
from fastoci.registry.http.urls import Origin, parse_url, quoted, redact

_URLS: Final = 8  # addresses of one blob that are asked


class RepositorySession:
    """A reference's endpoints, in order, behind one door.

    Args:
        image: the name that was asked for, for the observer.
    """

    actions: ClassVar[str] = "pull"  # what a token allows
    also: str = ""  # another repository of the registry, to be read with the same token

    def __init__(
        self,
        reference: Reference,
        endpoints: tuple[Endpoint, ...],
        *,
        transport: Transport,
        auth: Authenticator,
        credentials: Credentials,
        policy: ClientPolicy,
        image: str,
    ) -> None:
        self.reference = reference
        self.image = image
        self.observer = policy.observer
        self._endpoints = endpoints
        self._transport = transport
        self._auth = auth
        self._credentials = credentials
        self._policy = policy

    def failover(self, *, tag: bool, manifest: bool, blob: str = "", corrupt: Collection[str] = ()) -> Failover:
        """The way of one request over the candidates.

        Args:
            tag: the request is for what a tag names, not for content by its digest.
            blob: the digest that is wanted, for the observer.
            manifest: it is one of those that registries count.
            corrupt: servers to ask last.
        Raises:
            RegistryError: no endpoint may be asked for that.
        """
        fit = [each for each in self._endpoints if (each.resolve if tag else each.pull)]
        if not fit:
            what = "tags" if tag else "content"
            raise RegistryError(f"{self.reference.name}: no endpoint may be asked for {what}", url=self.reference.name)
        servers = self._transport.servers
        return Failover(
            candidates(fit, servers),
            servers,
            self._policy,
            image=self.image,
            blob=blob,
            manifest=manifest,
            corrupt=corrupt,
        )

    def elsewhere(self, urls: Sequence[str]) -> RepositorySession | None:
        """Access to content at the addresses that a descriptor names for it; None when none of them is https."""
        found = tuple(Endpoint(url, "", url.raw_authority, False) for url in map(_https, urls[:_URLS]) if url)
        return _UrlSession(self, found) if found else None

    def server(self, origin: Origin) -> Server:
        """What is known of a server."""
        return self._transport.servers.of(origin)

    def _scope(self, endpoint: Endpoint) -> str:
        """What a token must allow."""
        own = f"repository:{endpoint.path}:{self.actions}"
        return f"{own} repository:{self.also}:pull" if self.also else own

    def _options(self, endpoint: Endpoint) -> RequestOptions:
        return RequestOptions(
            own={**self._credentials.headers, **endpoint.fields},
            tls=endpoint.tls,
            connect_s=endpoint.connect_s,
            private_redirects=endpoint.private_redirects,
        )

    async def ask(
        self,
        candidate: Candidate,
        path: str | URL,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        patience: Patience | None = None,
        body: Upload | None = None,
    ) -> Reply:
        """Ask one candidate for ``path`` below its repository, authorized; any status but 401 is the caller's.

        Args:
            path: or an address that the candidate named: at another origin it is asked without authorization.
            patience: for the answer to begin.
        Raises:
            UnauthorizedError: 401, and nothing or nothing more to try.
            CredentialError: a credential helper fails.
            RegistryError, TransportError: a redirect or token service that may not be used, or no answer.
        """
        endpoint, plain = candidate.endpoint, self._options(candidate.endpoint)
        top = parse_url(f"{candidate.base}/").extend_query(endpoint.query)
        if isinstance(path, str):
            url = parse_url(f"{candidate.base}/{endpoint.path}/{path}").extend_query(endpoint.query)
        elif Origin.of(url := path) != candidate.origin:
            return await self._ask_stranger(candidate, url, headers, method, patience, body)
        counted = method == "GET" and str(path).startswith("manifests/")
        options = replace(plain, manifest=counted, patience=patience, probe=top)

        async def send(authorization: str | None) -> Reply:
            return await self._transport.request(
                method, url, headers=headers, authorization=authorization, body=body, options=options
            )

        ping = partial(self._transport.request, "GET", top, headers={}, options=plain)
        return await self._auth.request(
            candidate.origin,
            self._scope(endpoint),
            send,
            partial(self._credentials.find, endpoint.domain, endpoint.path, mirror=not endpoint.origin),
            name=endpoint.domain,
            verified=endpoint.tls.verify,
            ping=Ping(ping, pages=counted) if method == "GET" else None,
        )

    async def _ask_stranger(
        self,
        candidate: Candidate,
        url: URL,
        headers: Mapping[str, str],
        method: str,
        patience: Patience | None,
        body: Upload | None,
    ) -> Reply:
        """Ask another host on the word of a candidate; what is for the candidate alone stays here."""
        named_by, options = candidate.origin, RequestOptions(patience=patience)
        if named_by.scheme == "https" and url.scheme == "http":
            where = redact(url)
            raise RegistryError(f"{where}: refused, the server names it, and it is not https", url=where)
        reply = await self._transport.request(
            method, url, headers=headers, body=body, named_by=named_by, options=options
        )
        if reply.status == 401:
            raise await error_of(reply, hint=f"asked by the host that {named_by.host} named")
        return reply


class _UrlSession(RepositorySession):
    """Addresses that a descriptor names for its content, as candidates: asked as they are, and without a secret.

    An image is anybody's, so what it names is asked as what its registry redirects to: no nearer to this machine than
    that registry is, without credentials and without headers that the user has for registries.
    """

    def __init__(self, of: RepositorySession, endpoints: tuple[Endpoint, ...]) -> None:
        super().__init__(
            of.reference,
            endpoints,
            transport=of._transport,
            auth=of._auth,
            credentials=of._credentials,
            policy=of._policy,
            image=of.image,
        )
        named = next((each for each in of._endpoints if each.origin), of._endpoints[0])
        self._named_by = Origin.of(named.base)

    async def ask(
        self,
        candidate: Candidate,
        path: str | URL,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        patience: Patience | None = None,
        body: Upload | None = None,
    ) -> Reply:
        """Ask an address as it is, whatever ``path``.

        Raises:
            UnauthorizedError: it wants credentials, and gets none.
            RegistryError, TransportError: it may not be asked, redirects where nobody may, or does not answer.
        """
        options = RequestOptions(patience=patience)
        reply = await self._transport.request(
            method, candidate.base, headers=headers, body=body, named_by=self._named_by, options=options
        )
        if reply.status == 401:
            raise await error_of(reply, hint="asked by a host that an image names, which gets no credentials")
        return reply


def _https(text: str) -> URL | None:
    try:
        url = parse_url(quoted(text))
    except ValueError:
        return None
    return url if url.scheme == "https" else None
