"""The client of registries: owns the connections, tokens and retries of all hosts, and hands out repositories.

Which endpoints a reference has is ``endpoints``'; how one is asked is ``access``'; manifests and blobs are
``repository``'s.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import TracebackType

from yarl import URL

from fastoci.image.reference import Reference
from fastoci.registry.auth.authenticator import Authenticator
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.config.endpoints import Endpoint, Mirrors, endpoints
from fastoci.registry.fetch.failover import ClientPolicy, Left
from fastoci.registry.fetch.parallel_ranges import ReadAheadBudget
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryBudget, RetryPolicy
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http.servers import QuotaObserver, Servers
from fastoci.registry.http.transport import Transport


class Registry:
    """A client of all registries: owns their connections and tokens. An async context manager, used on one loop.

    Args:
        mirrors: where else to ask.
        tls_verify: False accepts any certificate, and plain http where https fails.
        connect_s, read_s: how long a connection may take, and how long one may be silent.
        connections: at most so many to one host.
        manifest_size: bytes of one manifest or index.
        proxy: by which proxy a URL is reached.
        patience: how often and how late a request is sent again.
        told: learns what a server says about its quota.
        left: learns which server is left for another because it is slow, in the middle of which blob, and why.
        chance: a number in [0, 1), anew on each call.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        mirrors: Mirrors | None = None,
        tls_verify: bool = True,
        connect_s: float = 10.0,
        read_s: float = 60.0,
        connections: int = 8,
        manifest_size: int = 4 << 20,
        proxy: Callable[[URL], URL | None] = lambda url: None,
        retry_policy: RetryPolicy | None = None,
        on_quota: QuotaObserver | None = None,
        left: Left = lambda blob, server, following, reason: None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        retry_policy = retry_policy or RetryPolicy()
        self._mirrors = mirrors or Mirrors()
        self._tls_verify = tls_verify
        self._manifest_size = manifest_size
        self._credentials = credentials
        self._manners = ClientPolicy(retry_policy, RetryBudget(retry_policy.budget), rng, left)
        self._transport = Transport(
            servers=Servers(on_quota=on_quota, rng=rng, maximum=connections),
            tls_verify=tls_verify,
            connect_s=connect_s,
            read_s=read_s,
            connections=connections,
            max_wait_s=retry_policy.max_wait_s,
            proxy=proxy,
        )
        self._ahead = ReadAheadBudget()
        self._auth = Authenticator(self._transport, tls_verify=tls_verify)

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._auth.aclose()
        await self._transport.aclose()

    def repository(self, reference: Reference) -> Repository:
        """The repository that a reference names; costs nothing.

        Raises:
            RegistryError: the configuration forbids it.
        """
        return self.repository_at(reference, endpoints(reference, self._mirrors, tls_verify=self._tls_verify))

    def repository_at(self, reference: Reference, where: Sequence[Endpoint]) -> Repository:
        """The repository that a reference names, at these endpoints in this order."""
        access = RepositorySession(
            reference,
            tuple(where),
            transport=self._transport,
            auth=self._auth,
            credentials=self._credentials,
            manners=self._manners,
        )
        return Repository(access, self._ahead, manifest_size=self._manifest_size)
