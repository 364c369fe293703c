"""A relay on loopback that keeps each byte for a while, each way, as a long line does. A process of its own.

``python latency.py PORT MILLISECONDS`` prints the port that it listens on, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_WINDOW = 64 << 20  # bytes that are on the line at most, of one connection


class _End(asyncio.Protocol):
    """One side of a connection; what it receives is sent to the other side later."""

    def __init__(self, delay_s: float) -> None:
        self.other: _End | None = None
        self.transport: Any = None  # uvloop's is no asyncio.Transport
        self._delay_s = delay_s
        self._late: deque[tuple[float, bytes]] = deque()  # b"" is the end
        self._held = 0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio has connected."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Keep what came; no more of it than the line holds."""
        self._held += len(data)
        if self._held > _WINDOW and self.transport is not None:
            self.transport.pause_reading()
        self._keep(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end is as late as all else."""
        self._keep(b"")

    def _keep(self, data: bytes) -> None:
        due = self._loop.time() + self._delay_s
        if not self._late:
            self._loop.call_at(due, self._send)
        self._late.append((due, data))

    def _send(self) -> None:
        other = None if self.other is None else self.other.transport
        while self._late and self._late[0][0] <= self._loop.time():
            _, data = self._late.popleft()
            self._held -= len(data)
            if other is not None and not other.is_closing():
                if data:
                    other.write(data)
                else:
                    other.close()
        if self._held <= _WINDOW and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        if self._late:
            self._loop.call_at(self._late[0][0], self._send)


async def _relay(port: int, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    begun: set[asyncio.Task[None]] = set()

    async def connect(near: _End) -> None:
        _, far = await loop.create_connection(lambda: _End(delay_s), "127.0.0.1", port)
        near.other, far.other = far, near

    def accept() -> _End:
        near = _End(delay_s)
        task = loop.create_task(connect(near))
        begun.add(task)
        task.add_done_callback(begun.discard)
        return near

    server = await loop.create_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@contextmanager
def far(address: str, milliseconds: int) -> Iterator[str]:
    """The address of a relay to a server that is so many milliseconds away, each way."""
    port = address.rpartition(":")[2]
    command = [sys.executable, __file__, port, str(milliseconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_relay(int(sys.argv[1]), int(sys.argv[2]) / 1000))
