"""A differ, the containerd that it asks, and a client that is that containerd's caller: all in this process.

Snapshots are as the overlayfs snapshotter has them: a bind for the first, then overlays of all below.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from fastoci.containerd import methods
from fastoci.containerd.messages import (
    COMMIT,
    WRITE,
    ApplyRequest,
    ApplyResponse,
    Descriptor,
    FiltersRequest,
    InfoResponse,
    Mount,
    Plugin,
    PluginsResponse,
    ReadRequest,
    ReadResponse,
    UpdateContentRequest,
    WriteRequest,
    WriteResponse,
)
from fastoci.containerd.rpc import Call, Code, Connection, Handler, Server
from fastoci.image import mediatype
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.server.differ import Differ
from fastoci.server.served import Served

LIMITS: Final = Limits(workers=2, memory=32 << 20)
METADATA: Final = {"containerd-namespace": "test", "containerd-lease": "held"}
_PIECE: Final = 1 << 20
_APPLY_S: Final = 600.0  # a large layer, on a busy machine


class FakeContainerd:
    """What a differ asks of containerd, at ``home/containerd.sock``.

    ``labels`` are those of blobs that were written, ``exports`` what the content plugin says of itself; ``own`` does
    what containerd's own differ would do, and ``read`` are the digests that were asked for by Read.
    """

    def __init__(self, home: Path) -> None:
        self.socket = home / "containerd.sock"
        self.root = home / "content"
        self.exports = {"root": str(self.root)}
        self.own: Callable[[Call, bytes], Awaitable[bytes]] | None = None
        self.read: list[str] = []
        self.labels: dict[str, dict[str, str]] = {}
        (self.root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)

    def add(self, blob: bytes, media_type: str = mediatype.OCI_LAYER_GZIP) -> Descriptor:
        """Keep a blob."""
        digest = Digest.of(blob)
        (self.root / "blobs" / "sha256" / digest.hex).write_bytes(blob)
        return Descriptor(media_type, str(digest), len(blob))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer inside."""
        handlers: Mapping[str, Handler] = {
            methods.CONTENT_WRITE: self._write,
            methods.CONTENT_UPDATE: self._update,
            methods.PLUGINS: self._plugins,
            methods.CONTENT_READ: self._read,
            methods.APPLY: self._apply,
        }
        async with _served(Server(handlers, allow=lambda peer: True), self.socket):
            yield

    async def _plugins(self, call: Call) -> bytes:
        assert FiltersRequest.decode(await call.request()).filters == ("type==io.containerd.content.v1",)
        plugin = Plugin(type="io.containerd.content.v1", id="content", exports=self.exports)
        return PluginsResponse((plugin,)).encode()

    async def _read(self, call: Call) -> AsyncIterator[bytes]:
        digest = ReadRequest.decode(await call.request()).digest
        self.read.append(digest)
        assert call.metadata == METADATA
        path = self.root / "blobs" / digest.replace(":", "/")
        if not path.exists():
            raise call.failure(f"content {digest}: not found", Code.NOT_FOUND)
        data = path.read_bytes()
        for offset in range(0, len(data), _PIECE):
            yield ReadResponse(offset, data[offset : offset + _PIECE]).encode()

    async def _write(self, call: Call) -> AsyncIterator[bytes]:
        data = b""
        assert call.metadata == METADATA
        while (message := await call.receive()) is not None:
            request = WriteRequest.decode(message)
            path = self.root / "blobs" / request.expected.replace(":", "/")
            if path.exists():
                raise call.failure(f"content {request.expected}: already exists", Code.ALREADY_EXISTS)
            assert request.offset == (len(data) if request.action == WRITE else request.offset)
            data += request.data
            if request.action == COMMIT:
                assert (len(data), str(Digest.of(data))) == (request.total, request.expected)
                path.write_bytes(data)
                self.labels[request.expected] = dict(request.labels)
            yield WriteResponse(request.action, offset=len(data), total=request.total).encode()

    async def _update(self, call: Call) -> bytes:
        request = UpdateContentRequest.decode(await call.request())
        assert request.info is not None
        assert request.update_mask is not None
        assert request.update_mask.paths == tuple(f"labels.{key}" for key in request.info.labels)
        self.labels.setdefault(request.info.digest, {}).update(request.info.labels)
        return InfoResponse(request.info).encode()

    async def _apply(self, call: Call) -> bytes:
        request = await call.request()
        assert call.metadata == METADATA
        if self.own is None:
            raise call.failure("no differ of its own", Code.UNIMPLEMENTED)
        return await self.own(call, request)


class Scene:
    """A differ that serves, and a connection to it. ``served`` is what it told of calls."""

    def __init__(self, home: Path, limits: Limits = LIMITS) -> None:
        self.home = home
        self.containerd = FakeContainerd(home)
        self.served: list[Served] = []
        self.differ = Differ(self.containerd.socket, limits, self.served.append)
        self.socket = home / "differ.sock"
        self.connection: Connection
        self._snapshots: list[Path] = []

    async def apply(
        self, layer: Descriptor, mounts: Sequence[Mount] | None = None, *, sync_fs: bool = False
    ) -> Descriptor:
        """Apply a layer, by default onto the next snapshot; what the differ says of it."""
        request = ApplyRequest(layer, tuple(self.prepare() if mounts is None else mounts), sync_fs=sync_fs)
        return await self.ask(request)

    async def ask(self, request: ApplyRequest, metadata: Mapping[str, str] = METADATA) -> Descriptor:
        """Send a request."""
        answer = await self.connection.call(methods.APPLY, request.encode(), metadata, within_s=_APPLY_S)
        applied = ApplyResponse.decode(answer).applied
        assert applied is not None
        return applied

    def prepare(self) -> list[Mount]:
        """The mounts of a new snapshot on top of all others."""
        below, new = list(self._snapshots), self.home / f"{len(self._snapshots)}"
        for name in ("fs", "work"):
            (new / name).mkdir(parents=True)
        self._snapshots.append(new / "fs")
        if not below:
            return [Mount("bind", str(new / "fs"), "", ("rw", "rbind"))]
        lowers = ":".join(str(each) for each in reversed(below))
        options = ("index=off", f"workdir={new}/work", f"upperdir={new}/fs", f"lowerdir={lowers}")
        return [Mount("overlay", "overlay", "", options)]

    @property
    def directories(self) -> list[Path]:
        """Of the snapshots, the topmost first."""
        return self._snapshots[::-1]


@asynccontextmanager
async def scene(home: Path, limits: Limits = LIMITS) -> AsyncIterator[Scene]:
    """A scene below a directory whose path is short enough for sockets."""
    made = Scene(home, limits)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(made.containerd.serving())
        await opened.enter_async_context(_serving(made.differ, made.socket))
        made.connection = await opened.enter_async_context(await Connection.open(str(made.socket)))
        yield made


@asynccontextmanager
async def _serving(differ: Differ, path: Path) -> AsyncIterator[None]:
    with _listener(path) as listener:
        task = asyncio.create_task(differ.serve(listener))
        try:
            yield
        finally:
            differ.stop()
            await task


@asynccontextmanager
async def _served(server: Server, path: Path) -> AsyncIterator[None]:
    with _listener(path) as listener:
        task = asyncio.create_task(server.serve(listener, grace_s=0))
        try:
            yield
        finally:
            server.stop()
            await task


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    listener.listen()
    listener.setblocking(False)
    return listener
