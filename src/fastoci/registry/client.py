"""The client of registries: owns the connections, tokens and retries of all hosts, and hands out repositories.

Which endpoints a reference has is ``endpoints``'; how one is asked is ``session``'s; manifests and blobs are
``repository``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import msgspec
from yarl import URL

from fastoci.events import Observer
from fastoci.image.reference import Reference
from fastoci.interfaces import Streaming, UploadNotes
from fastoci.limits import Limits
from fastoci.registry.auth.authenticator import Authenticator
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.config.endpoints import Endpoint, Mirrors, endpoints, own
from fastoci.registry.fetch.failover import ClientPolicy
from fastoci.registry.fetch.parallel_ranges import ReadAheadBudget
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryBudget, RetryPolicy
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http.servers import Servers
from fastoci.registry.http.transport import Transport
from fastoci.slots import Slots

if TYPE_CHECKING:
    from fastoci.registry.push.repository import PushRepository

S = TypeVar("S", bound=RepositorySession)


class Registry:
    """A client of all registries: owns their connections and tokens. An async context manager, used on one loop.

    Args:
        mirrors: where else to ask.
        tls_verify: False accepts any certificate, and plain http where https fails.
        proxy: by which proxy a URL is reached.
        limits: times, connections, and the size of a manifest.
        retry: how often and how late a request is sent again.
        observer: learns of retries, switches of candidate, quotas and connection limits.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        mirrors: Mirrors | None = None,
        tls_verify: bool = True,
        proxy: Callable[[URL], URL | None] = lambda url: None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        observer: Observer = lambda event: None,
    ) -> None:
        limits, retry = limits or Limits(), retry or RetryPolicy()
        connections = limits.connections
        if limits.total_connections:
            connections = min(connections, limits.total_connections)
        self._mirrors = mirrors or Mirrors()
        self._tls_verify = tls_verify
        self._manifest_size = limits.manifest_size
        self._credentials = credentials
        self._policy = ClientPolicy(retry, RetryBudget(retry.budget), observer, limits.max_wait_s, limits.first_byte_s)
        self._transport = Transport(
            servers=Servers(
                observer=observer,
                rng=retry.rng,
                maximum=min(limits.connections, limits.flights),
                slots=Slots(limits.total_connections, connections) if limits.total_connections else None,
                bandwidth=limits.bandwidth or None,
                request_rate=limits.request_rate or None,
            ),
            tls_verify=tls_verify,
            connect_s=limits.connect_s,
            read_s=limits.read_s,
            connections=connections,
            max_wait_s=limits.max_wait_s,
            proxy=proxy,
        )
        self._read_ahead = ReadAheadBudget()
        self._auth = Authenticator(self._transport, tls_verify=tls_verify)

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._auth.aclose()
        await self._transport.aclose()

    def repository(self, reference: Reference, *, image: str = "") -> Repository:
        """The repository that a reference names; costs nothing.

        Args:
            image: the name that was asked for, for the observer.
        Raises:
            DeniedError: the configuration forbids it.
        """
        found = endpoints(reference, self._mirrors, tls_verify=self._tls_verify)
        return self.repository_at(reference, found, image=image)

    def repository_at(self, reference: Reference, found: Sequence[Endpoint], *, image: str = "") -> Repository:
        """The repository that a reference names, at these endpoints in this order."""
        session = self._session(RepositorySession, reference, found, image)
        foreign = self._mirrors.foreign
        return Repository(session, self._read_ahead, manifest_size=self._manifest_size, foreign=foreign)

    def destination(
        self,
        reference: Reference,
        streaming: Streaming,
        *,
        image: str = "",
        notes: UploadNotes | None = None,
        mount_from: str = "",
        deleting: bool = False,
    ) -> PushRepository:
        """The repository that a reference names, to write to: at its own registry, whatever mirrors it has.

        Args:
            notes, mount_from: as ``PushRepository`` has them.
            deleting: a token is to allow that, too.
        """
        from fastoci.registry.push.repository import PushRepository
        from fastoci.registry.push.session import DeleteSession, PushSession

        found = own(reference, self._mirrors, tls_verify=self._tls_verify)
        writable = msgspec.structs.replace(found, resolve=True, pull=True)
        session = self._session(DeleteSession if deleting else PushSession, reference, [writable], image)
        reading = Repository(session, self._read_ahead, manifest_size=self._manifest_size)
        return PushRepository(session, reading, streaming, notes=notes, mount_from=mount_from)

    def _session(self, kind: Callable[..., S], reference: Reference, found: Sequence[Endpoint], image: str) -> S:
        return kind(
            reference,
            tuple(found),
            transport=self._transport,
            auth=self._auth,
            credentials=self._credentials,
            policy=self._policy,
            image=image,
        )
