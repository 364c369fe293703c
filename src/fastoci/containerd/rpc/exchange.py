"""One exchange of messages on a connection, from either side: what came and is not read, what may be sent, the waits.

Spec: RFC 9113, 5 "Streams and Multiplexing".
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from fastoci.containerd.rpc.framing import Assembler, Code, FramingError, prefix
from fastoci.errors import ContainerdError


class Bounds(msgspec.Struct, frozen=True):
    """What a connection may take. Sizes are bytes, times seconds."""

    message: int = 16 << 20  # of one message: as containerd has it
    memory: int = 64 << 20  # of messages that nobody has read yet, of a client's connection or of all of a server
    exchanges: int = 100  # at once, that the peer begins
    connect_s: float = 10.0  # until the peer has said that it speaks HTTP/2
    wait_s: float = 60.0  # for a message, or until the peer has taken one


class Held:
    """How many bytes of messages wait to be read."""

    def __init__(self) -> None:
        self.size = 0


class Carrier(Protocol):
    """The connection, as an exchange uses it."""

    bounds: Bounds
    held: Held

    def room(self, exchange: Exchange) -> int:
        """How many bytes may be sent now."""

    def put(self, exchange: Exchange, data: bytes, *, end: bool = False) -> None:
        """Send bytes for which there is room."""

    def open_window(self, exchange: Exchange, size: int) -> None:
        """Let the peer send so much more."""

    def flush(self) -> None:
        """Hand to the socket what waits for it."""

    def failure(self, message: str, code: Code) -> ContainerdError:
        """An error of this connection."""


class Exchange:
    """A stream of HTTP/2: headers and messages, to and fro. One task reads, and one sends."""

    def __init__(self, link: Carrier, number: int) -> None:
        self.number = number
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.ended = False  # by the peer, as it should be: all it sent is here
        self.closed = False  # nothing can be sent any more
        self.error: ContainerdError | None = None  # and then nothing is read any more, either
        self.begun = False  # our headers are sent
        self.partial = False  # a message of ours is not sent to its end
        self.on_error: Callable[[], object] = lambda: None
        self._link = link
        self._messages: deque[bytes] = deque()
        self._assembler = Assembler(link.bounds.message)
        self._waiters: list[asyncio.Future[None]] = []
        self._spent = 0  # bytes of its window that are not given back
        self._held = 0  # bytes of messages here

    async def receive(self, within_s: float) -> bytes | None:
        """The next message, None when the peer has sent its last one.

        Raises:
            ContainerdError: the exchange or the connection broke, or no message came in time.
        """
        await self.until(lambda: bool(self._messages) or self.ended, within_s, "sent nothing")
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._count(-len(message))
        if not self._messages:
            self._link.open_window(self, self._spent)
            self._link.flush()
        return message

    async def send(self, message: bytes, within_s: float, *, last: bool = False) -> bool:
        """Send a message, as fast as the peer takes it; whether it was taken before the peer closed the exchange.

        Raises:
            ContainerdError: as ``receive``; the peer did not take it in time.
        """
        link, head, data, at = self._link, prefix(len(message)), memoryview(message), 0
        deadline = time.monotonic() + within_s
        self.partial = True
        while head or at < len(data):
            await self.until(lambda: self.closed or link.room(self) > 0, deadline - time.monotonic(), "did not read")
            if self.closed:
                return False
            room = link.room(self)
            part = head[:room] + data[at : at + max(0, room - len(head))]
            at += len(part) - len(head[:room])
            head = head[room:]
            link.put(self, part, end=last and not head and at == len(data))
        self.partial = False
        link.flush()
        return True

    async def until(self, ready: Callable[[], bool], within_s: float, otherwise: str) -> None:
        """Wait for what the link makes true.

        Raises:
            ContainerdError: ``otherwise``, or the exchange broke.
        """
        if not (self.error or ready()):
            self._link.flush()
            try:
                async with asyncio.timeout(within_s):
                    while not (self.error or ready()):
                        await self._changed()
            except TimeoutError:
                code = Code.DEADLINE_EXCEEDED
                raise self._link.failure(f"the other side {otherwise} in time", code) from None
        if self.error:
            raise copy.copy(self.error)

    async def _changed(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        try:
            await future
        finally:
            self._waiters.remove(future)

    # -- for the link --

    def wake(self) -> None:
        """Let those who wait look again."""
        for future in self._waiters:
            if not future.done():
                future.set_result(None)

    def take(self, data: bytes, size: int) -> None:
        """Take bytes that came, which cost ``size`` of the window."""
        if self.error:
            return
        self._spent += size
        before = self._assembler.pending
        try:
            found = self._assembler.feed(data)
        except FramingError as error:
            self.fail(self._link.failure(f"the other side sent {error}", error.code))
            return
        self._messages.extend(found)
        self._count(sum(map(len, found)) + self._assembler.pending - before)
        if self._link.held.size > self._link.bounds.memory:
            text = f"the other side sent more than {self._link.bounds.memory} bytes that wait to be read"
            self.fail(self._link.failure(text, Code.RESOURCE_EXHAUSTED))
        elif not self._messages:
            self._link.open_window(self, self._spent)
        self.wake()

    def opened(self, size: int) -> None:
        """The window was opened by so much."""
        self._spent -= size

    def finish(self) -> None:
        """The peer has sent all."""
        if self._assembler.pending:
            self.fail(self._link.failure("the other side ended in the middle of a message", Code.INTERNAL))
        self.ended = True
        self.wake()

    def fail(self, error: ContainerdError) -> None:
        """Nothing comes any more, and what came is let go."""
        if self.error:
            return
        self.error = error
        self.forget()
        self.wake()
        self.on_error()

    def forget(self) -> None:
        """Let go what nobody has read."""
        self._messages.clear()
        self._count(-self._held)

    def _count(self, size: int) -> None:
        self._held += size
        self._link.held.size += size
