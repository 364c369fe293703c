"""The containerd that asks a differ: where it keeps its blobs, and its own differs.

One connection, made when it is needed, and anew when containerd was started again.
Spec: containerd api/services/{content,diff,introspection}/v1; plugins/content/local (``blobs/ALGORITHM/HEX``).
"""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from fastoci import files
from fastoci.containerd import methods
from fastoci.containerd.messages import FiltersRequest, PluginsResponse, ReadRequest, ReadResponse
from fastoci.containerd.rpc import Code, Connection
from fastoci.errors import ContainerdError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.server.committing import Committing
from fastoci.transfer.workers import WorkerPool

Metadata = Mapping[str, str]

_CONTENT: Final = "type==io.containerd.content.v1"
_LAYER_S: Final = 6 * 3600.0  # for what containerd's own differ needs for a layer


class Requester:
    """The containerd at a socket.

    Args:
        workers: threads for what may wait for the disk.
    """

    def __init__(self, address: Path, workers: WorkerPool) -> None:
        self._address = address
        self._workers = workers
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._root: Path | None = None  # of the content store, as it was said last

    async def open_blob(self, digest: Digest, size: int, metadata: Metadata) -> int:
        """A descriptor of a blob's file, or of a copy; the caller closes it.

        Args:
            size: what the request says; 0 when it says nothing.
            metadata: the namespace of the request, and its lease.
        Raises:
            ContainerdError: containerd does not have it, or cannot be asked; or it has another size.
            StoreError: the disk refused.
        """
        fd = await self._file(digest)
        if fd is None:
            fd = await self._copy(digest, metadata)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or (size and found.st_size != size):
            files.close(fd)
            text = f"{digest} has {found.st_size} bytes, and not {size} as the request says"
            raise self._refusal(text, Code.INVALID_ARGUMENT)
        return fd

    async def apply(self, request: bytes, metadata: Metadata) -> bytes:
        """Let containerd's own differ do what was asked for.

        Raises:
            ContainerdError: as it says.
        """
        return await (await self._connected()).call(methods.APPLY, request, metadata, within_s=_LAYER_S)

    async def commit(self, blob: Descriptor, fd: int, ref: str, labels: Mapping[str, str], metadata: Metadata) -> None:
        """Have a file's bytes in the content store: ``Committing.commit``."""
        await Committing(await self._connected(), self._workers, metadata).commit(blob, fd, ref, labels)

    async def close(self) -> None:
        """End the connection. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> Connection:
        """The connection, which is another one when the last broke."""
        async with self._opening:
            if self._connection is not None and self._connection.closed:
                await self.close()
            if self._connection is None:
                self._connection = await Connection.open(str(self._address))
            return self._connection

    async def _file(self, digest: Digest) -> int | None:
        """The blob's file in the content store; None where it is not seen from here."""
        known = self._root
        if known is not None and (fd := await self._open(known, digest)) is not None:
            return fd
        self._root = await self._content_root()
        return None if self._root in (None, known) else await self._open(self._root, digest)

    async def _open(self, root: Path, digest: Digest) -> int | None:
        path = root / "blobs" / digest.algorithm / digest.hex

        def work() -> int | None:
            try:
                return os.open(path, files.READ)
            except (FileNotFoundError, PermissionError, NotADirectoryError):
                return None

        with files.translated("open", str(path)):
            return await self._workers.acquire(work, lambda fd: None if fd is None else files.close(fd))

    async def _content_root(self) -> Path | None:
        """Where the content store keeps its files, as containerd says; None where it says nothing."""
        request = FiltersRequest(filters=(_CONTENT,)).encode()
        answer = await (await self._connected()).call(methods.PLUGINS, request, {})
        found = [plugin.exports.get("root", "") for plugin in PluginsResponse.decode(answer).plugins]
        roots = [root for root in found if root.startswith("/")]
        return Path(roots[0]) if len(roots) == 1 else None

    async def _copy(self, digest: Digest, metadata: Metadata) -> int:
        """The blob as containerd reads it, in an unnamed file."""
        fd = await self._workers.acquire(unnamed_file, files.close)
        try:
            offset = 0
            async with (await self._connected()).stream(methods.CONTENT_READ, metadata) as stream:
                await stream.send(ReadRequest(digest=str(digest)).encode(), last=True)
                while (message := await stream.receive()) is not None:
                    data = ReadResponse.decode(message).data
                    await self._workers.run(partial(_write, fd, data, offset))
                    offset += len(data)
        except BaseException:
            files.close(fd)
            raise
        return fd

    def _refusal(self, text: str, code: Code) -> ContainerdError:
        return ContainerdError(text, code=code, path=str(self._address))


def unnamed_file() -> int:
    """A new file that goes with its descriptor. Raises StoreError: the disk refused."""
    with files.translated("make a file in", tempfile.gettempdir()), tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    with files.translated("write to", tempfile.gettempdir()):
        while view:
            count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count
