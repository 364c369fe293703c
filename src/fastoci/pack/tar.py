"""The tar of changes, a buffer at a time on a thread. The same changes give the same bytes.

Holes of sparse files are written as the zeros that they read as: compression makes next to nothing of them, and not all
readers know the forms that have them. Spec: image-spec v1.1 layer.md; POSIX pax.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from fastoci._core import BUFFER_SIZE, Buffer
from fastoci.pack.changes import Changes
from fastoci.pack.tree import Node, changed
from fastoci.stream.tar_headers import END, header, padding


class TarMaker:
    """Writes changes into buffers; owns them until ``close``.

    ``entries`` is how many there are so far, ``newest_ns`` the latest time of one of them, None before the first that
    has a time.
    """

    def __init__(self, changes: Changes) -> None:
        self.entries = 0
        self.newest_ns: int | None = None
        self._changes = changes
        self._out: Buffer | None = None
        self._steps = self._run()

    def fill(self, out: Buffer) -> bool:
        """Fill ``out``, or write the end of the tar to it; False after that.

        Raises: as ``Changes``; PackError: a file became shorter, or was written to.
        """
        self._out = out
        return next(self._steps, None) is not None

    def stop(self) -> None:
        """From any thread: let ``fill`` end soon, with an exception."""
        self._changes.stopped = True

    def close(self) -> None:
        """Let go of all that is open. Idempotent."""
        self._steps.close()
        self._changes.close()

    def _run(self) -> Generator[bool, None, None]:
        """Each step is a full buffer."""
        for change in self._changes:
            self.entries += 1
            if change.entry.mtime_ns:
                self.newest_ns = max(change.entry.mtime_ns, self.newest_ns or change.entry.mtime_ns)
            yield from self._write(header(change.entry))
            if change.node is not None:
                yield from self._copy(change.node, change.entry.size)
                yield from self._write(bytes(padding(change.entry.size)))
        yield from self._write(END)

    def _write(self, data: bytes) -> Iterator[bool]:
        at = 0
        while at < len(data):
            assert self._out is not None
            at += self._out.append(data, at)
            if not self._out.room:
                yield True

    def _copy(self, node: Node, size: int) -> Iterator[bool]:
        offset = 0
        while offset < size:
            assert self._out is not None
            with self._out.reserve(min(size - offset, BUFFER_SIZE)) as view:
                count = node.read_into(view, offset)
            if not count:
                raise changed(node.path)
            self._out.advance(count)
            offset += count
            if not self._out.room:
                yield True
        node.check()
