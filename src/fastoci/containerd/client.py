"""One namespace of one containerd: its calls, its leases, and what its plugins say of themselves.

A containerd that is restarted meanwhile is waited for: each call here can be made twice. Nothing is taken from default
paths: where content is kept, containerd says itself.
Spec: containerd API v1, ``services.{version,introspection,namespaces,leases}.v1``.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fastoci.aio import wait_to_end
from fastoci.containerd import labels, methods
from fastoci.containerd.codec import Message
from fastoci.containerd.messages import (
    CreateLeaseRequest,
    DeleteLeaseRequest,
    Empty,
    FiltersRequest,
    LeaseResourceRequest,
    LeaseResponse,
    Plugin,
    PluginsResponse,
    Resource,
    Version,
)
from fastoci.containerd.namespaces import ListNamespacesResponse, Namespace
from fastoci.containerd.rpc import Code, Connection, Peer, Stream
from fastoci.errors import ContainerdError, FormatError

M = TypeVar("M", bound=Message)
T = TypeVar("T")

_CONTENT: Final = "io.containerd.content.v1"
_METADATA: Final = "io.containerd.metadata.v1"
_SNAPSHOTTER: Final = "io.containerd.snapshotter.v1"
_AWAY_S: Final = 30.0  # that a restart of containerd may take
_END_S: Final = 5.0  # for the end of a lease
_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)  # between tries, the last one again and again
_LEASE: Final = timedelta(hours=24)  # as containerd's own: a pull that was killed holds nothing for longer


class Snapshotter(msgspec.Struct, frozen=True):
    """A snapshotter of containerd. ``error`` is why it cannot be used, empty when it can be; ``root`` its directory."""

    name: str
    capabilities: frozenset[str]
    error: str
    root: Path | None


class Server(msgspec.Struct, frozen=True):
    """What a containerd says of itself.

    ``content_root`` is the directory of its content store, None when that is a plugin's. ``is_shared``: a blob that one
    namespace has can be recorded in another by its digest. ``owner`` is the user that it runs as, ``pid`` its process,
    0 when that is in no namespace of ours.
    """

    version: str
    content_root: Path | None
    is_shared: bool
    snapshotters: Mapping[str, Snapshotter]
    owner: int
    pid: int


class Client:
    """Calls to containerd in one namespace. Made by ``Client.open``; ``server`` is whom it talks to.

    ``namespace_labels`` is None when there was no such namespace; the first thing recorded in it makes it.
    """

    server: Server
    namespace_labels: Mapping[str, str] | None

    def __init__(self, address: str, namespace: str, *, away_s: float = _AWAY_S) -> None:
        self.address = address
        self._away_s = away_s
        self.namespace = namespace
        self._metadata = {"containerd-namespace": namespace}
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, address: str, namespace: str, *, away_s: float = _AWAY_S) -> AsyncIterator[Client]:
        """Connect to the containerd at a socket, and ask what it is.

        Args:
            away_s: how long it may be away when it restarts.
        Raises:
            ContainerdError: nobody answers there, or it is no containerd.
        """
        client = cls(address, namespace, away_s=away_s)
        try:
            client._connection = await Connection.open(address)
            client.server = await client._ask(client._connection.peer)
            client.namespace_labels = await client._namespace()
            yield client
        finally:
            await client._disconnect()

    @property
    def connected(self) -> bool:
        """Whether containerd was there last."""
        return self._connection is not None and not self._connection.closed

    async def call(self, method: str, request: Message, kind: type[M]) -> M:
        """Make a call, once more after containerd was restarted.

        Raises:
            ContainerdError: containerd refused, is gone, or its answer is none.
        """

        async def once() -> bytes:
            return await (await self._connected()).call(method, request.encode(), self._metadata)

        return self.decoded(await self.patiently(once), kind)

    async def namespaces(self) -> tuple[str, ...]:
        """The names of all namespaces. Raises: as ``call``."""
        return tuple(each.name for each in await self._namespaces())

    async def stream(self, method: str) -> Stream:
        """Begin a call with many messages.

        Raises:
            ContainerdError: containerd is gone.
        """
        return (await self._connected()).stream(method, self._metadata)

    def decoded(self, data: bytes, kind: type[M]) -> M:
        """A message of containerd's.

        Raises:
            ContainerdError: it is none.
        """
        try:
            return kind.decode(data)
        except FormatError as error:
            text = f"containerd's answer cannot be read: {error.message}"
            raise ContainerdError(text, code=Code.INTERNAL, path=self.address) from error

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do what can be done twice: again and again while containerd is away, for as long as a restart may take.

        Raises:
            ContainerdError: it did not come back; whatever else ``work`` raises.
        """
        since: float | None = None
        number = 0
        while True:
            try:
                return await work()
            except ContainerdError as error:
                since = time.monotonic() if since is None else since
                if error.code != Code.UNAVAILABLE or time.monotonic() - since > self._away_s:
                    raise
            await asyncio.sleep(_PAUSES_S[min(number, len(_PAUSES_S) - 1)])
            number += 1

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[None]:
        """Keep from gc all that is recorded inside, and all that is found there already. One at a time.

        Raises:
            ContainerdError: as ``call``.
        """
        name = f"fastoci-{time.time_ns()}-{secrets.token_hex(4)}"
        expiry = labels.expiry(datetime.now(UTC) + _LEASE)
        try:
            await self.call(methods.LEASE_CREATE, CreateLeaseRequest(name, expiry), LeaseResponse)
        except ContainerdError as error:
            if error.code != Code.ALREADY_EXISTS:  # made before the connection broke
                raise
        self._metadata["containerd-lease"] = name
        try:
            yield
        finally:
            del self._metadata["containerd-lease"]
            await wait_to_end(self._end_lease(name))

    async def hold(self, kind: str, name: str) -> None:
        """Let the lease keep something that may be there.

        Args:
            kind: ``snapshots/SNAPSHOTTER``, ``content``.
        Raises:
            ContainerdError: as ``call``.
        """
        request = LeaseResourceRequest(self._metadata["containerd-lease"], Resource(name, kind))
        await self.call(methods.LEASE_ADD, request, Empty)

    async def _end_lease(self, name: str) -> None:
        with suppress(ContainerdError, TimeoutError):  # else it expires
            async with asyncio.timeout(_END_S):
                request = DeleteLeaseRequest(name).encode()
                await (await self._connected()).call(methods.LEASE_DELETE, request, self._metadata)

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None or self._connection.closed:
                await self._disconnect()
                self._connection = await Connection.open(self.address)
            return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _ask(self, peer: Peer) -> Server:
        version = await self.call(methods.VERSION, Empty(), Version)
        wanted = FiltersRequest(tuple(f"type=={kind}" for kind in (_CONTENT, _METADATA, _SNAPSHOTTER)))
        plugins = (await self.call(methods.PLUGINS, wanted, PluginsResponse)).plugins
        usable = [each for each in plugins if each.init_err is None or not each.init_err.message]
        content = [each for each in usable if each.type == _CONTENT]
        root = content[0].exports.get("root", "") if len(content) == 1 else ""  # of several, which is used?
        metadata = {key: value for each in usable if each.type == _METADATA for key, value in each.exports.items()}
        return Server(
            version=version.version,
            content_root=Path(root) if root.startswith("/") else None,
            is_shared=metadata.get("policy", "shared") == "shared",
            snapshotters={each.id: _snapshotter(each) for each in plugins if each.type == _SNAPSHOTTER},
            owner=peer.uid,
            pid=peer.pid,
        )

    async def _namespace(self) -> Mapping[str, str] | None:
        """Its labels; by the list of all: 1.6 has an answer for one that is not there, too."""
        return next((each.labels for each in await self._namespaces() if each.name == self.namespace), None)

    async def _namespaces(self) -> tuple[Namespace, ...]:
        return (await self.call(methods.NAMESPACE_LIST, FiltersRequest(), ListNamespacesResponse)).namespaces


def _snapshotter(plugin: Plugin) -> Snapshotter:
    error = "" if plugin.init_err is None else plugin.init_err.message or "it did not start"
    root = plugin.exports.get("root", "")
    return Snapshotter(plugin.id, frozenset(plugin.capabilities), error, Path(root) if root else None)
