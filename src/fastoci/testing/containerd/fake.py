"""A fake containerd on a socket: what is known of it, and when it collects, is a test's to say."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from fastoci.containerd import methods
from fastoci.containerd.messages import (
    Empty,
    FiltersRequest,
    Plugin,
    PluginsResponse,
    ServerResponse,
    Version,
)
from fastoci.containerd.namespaces import ListNamespacesResponse, Namespace
from fastoci.containerd.rpc import Call, Handler, Server
from fastoci.testing.containerd.collect import collect
from fastoci.testing.containerd.content import ContentService
from fastoci.testing.containerd.records import RecordService
from fastoci.testing.containerd.snapshots import SNAPSHOTTERS, SnapshotService
from fastoci.testing.containerd.state import State, unary

_SNAPSHOTTER: Final = "io.containerd.snapshotter.v1"


class FakeContainerd:
    """One containerd, with the services of content, leases, images, snapshots, namespaces and introspection.

    What it holds outlives its service, as with a real one that is restarted. It makes no mounts, so it needs no rights.

    Args:
        root: an empty directory; blobs and snapshots are below it where containerd has them.
        policy: what one namespace has, another may record by its digest alone, or not.
        version: what it says that it is; 2.2 and newer take a parent at Commit.
    """

    def __init__(self, root: Path, *, policy: Literal["shared", "isolated"] = "shared", version: str = "2.3.4") -> None:
        self.state = State(root)
        self._policy = policy
        self._version = version
        self._rebases = tuple(map(int, version.split(".")[:2])) >= (2, 2)
        self._content = ContentService(self.state, is_shared=policy == "shared")
        self._records = RecordService(self.state, self.collect)
        self._snapshots = SnapshotService(self.state, rebases=self._rebases)

    def collect(self) -> None:
        """Remove at once all that nothing keeps."""
        collect(self.state)

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Serve on a socket, whose file is made and removed here."""
        server = Server(self.handlers, allow=lambda peer: peer.uid == os.getuid())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            task = asyncio.create_task(server.serve(listener, grace_s=0))
            try:
                yield
            finally:
                server.stop()
                await task
                path.unlink()

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By method."""
        return {
            methods.VERSION: unary(Empty, lambda call, request: Version(self._version, "fake")),
            methods.SERVER: unary(Empty, lambda call, request: ServerResponse("fake", os.getpid())),
            methods.PLUGINS: unary(FiltersRequest, self._plugins),
            methods.NAMESPACE_LIST: unary(FiltersRequest, self._namespaces),
            **self._content.handlers,
            **self._records.handlers,
            **self._snapshots.handlers,
        }

    def _plugins(self, call: Call, request: FiltersRequest) -> PluginsResponse:
        """All of them, whatever the filters: a client looks for what it needs in any case."""
        found = [
            Plugin("io.containerd.content.v1", "content", exports={"root": str(self.state.content)}),
            Plugin("io.containerd.metadata.v1", "bolt", exports={"policy": self._policy}),
        ]
        for name in SNAPSHOTTERS:
            capabilities = ("rebase",) if self._rebases and name == "overlayfs" else ()
            exports = {"root": str(self._snapshots.directory(name))}
            found.append(Plugin(_SNAPSHOTTER, name, exports=exports, capabilities=capabilities))
        return PluginsResponse(tuple(found))

    def _namespaces(self, call: Call, request: FiltersRequest) -> ListNamespacesResponse:
        return ListNamespacesResponse(tuple(map(Namespace, self.state.namespaces)))
