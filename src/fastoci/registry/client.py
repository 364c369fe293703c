"""The client of registries: which scheme a host speaks, and who is logged in.

It owns the connections and tokens of all hosts. What is done about a 401 is ``auth``'s, manifests and blobs are
``repository``'s. Retries and mirrors are not here.

Spec: distribution-spec v1.1, token authentication.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import TracebackType

from yarl import URL

from fastoci.errors import ConnectError, TimedOutError
from fastoci.image.reference import Reference
from fastoci.registry.addresses import is_loopback
from fastoci.registry.auth import Authenticator
from fastoci.registry.credentials import Credentials
from fastoci.registry.repository import Repository
from fastoci.registry.transport import Origin, Reply, Transport, parse_url, redact


class Registry:
    """A client of all registries: owns their connections and tokens. An async context manager, used on one loop.

    Args:
        tls_verify: False accepts any certificate, and plain http where https fails.
        connect_s, read_s: how long a connection may take, and how long one may be silent.
        connections: at most so many to one host.
        manifest_size: bytes of one manifest or index.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        tls_verify: bool = True,
        connect_s: float = 10.0,
        read_s: float = 60.0,
        connections: int = 8,
        manifest_size: int = 4 << 20,
    ) -> None:
        self._manifest_size = manifest_size
        self._credentials = credentials
        self._tls_verify = tls_verify
        self._transport = Transport(tls_verify=tls_verify, connect_s=connect_s, read_s=read_s, connections=connections)
        self._auth = Authenticator(self._transport, tls_verify=tls_verify)
        self._schemes: dict[str, str] = {}  # host -> the scheme it was seen to speak

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._auth.aclose()
        await self._transport.aclose()

    def repository(self, reference: Reference) -> Repository:
        """The repository that a reference names; costs nothing."""
        return Repository(functools.partial(self._ask, reference), reference, manifest_size=self._manifest_size)

    async def _ask(self, reference: Reference, path: str, headers: Mapping[str, str]) -> Reply:
        """GET ``/v2/<repository>/<path>``, authorized; any status but 401 is the caller's.

        Raises:
            UnauthorizedError: 401, and nothing or nothing more to try.
            CredentialError: a credential helper fails.
            RegistryError, TransportError: a redirect or token service that may not be used, or no answer.
        """
        failed: ConnectError | TimedOutError | None = None
        for scheme in self._candidates(reference.host):
            url = parse_url(f"{scheme}://{reference.host}/v2/{reference.path}/{path}")
            try:
                reply = await self._get(reference, url, headers)
            except (ConnectError, TimedOutError) as error:
                if error.url != redact(url):
                    raise  # another host is in trouble, the registry speaks this scheme
                failed = failed or error
                continue
            self._schemes[reference.host] = scheme
            return reply
        assert failed is not None
        raise failed

    async def _get(self, reference: Reference, url: URL, headers: Mapping[str, str]) -> Reply:
        async def send(authorization: str | None) -> Reply:
            return await self._transport.request("GET", url, headers=headers, authorization=authorization)

        return await self._auth.request(
            Origin.of(url),
            f"repository:{reference.path}:pull",
            send,
            functools.partial(self._credentials.find, reference.domain, reference.path),
            name=reference.domain,
        )

    def _candidates(self, host: str) -> tuple[str, ...]:
        if host in self._schemes:
            return (self._schemes[host],)
        url = parse_url(f"https://{host}/")
        if is_loopback(url.raw_host or ""):
            return ("https",) if url.explicit_port == 443 else ("http",)
        return ("https",) if self._tls_verify else ("https", "http")
