"""What a job and its worker processes say to each other, over a socket that nobody else has.

A message is four bytes of length and as many of msgpack; the first one, from the job, is pickled: it holds values of
the program, credentials among them. Of a worker only the errors of ``fastoci.errors`` are unpickled.
"""

from __future__ import annotations

import asyncio
import io
import pickle
from collections.abc import Callable
from typing import Final, cast, get_args

import msgspec

from fastoci import errors
from fastoci.errors import FastociError
from fastoci.events import Event
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest

_LENGTH: Final = 4  # bytes of a message's length
_DECODERS: Final = {kind.__name__: msgspec.msgpack.Decoder(kind) for kind in get_args(Event)}
_encoder: Final = msgspec.msgpack.Encoder()


class Order(msgspec.Struct, frozen=True, array_like=True):
    """A blob that a worker is to bring; it answers with an ``Outcome`` of the same number.

    Args:
        image: the name that it is for, which leads to its repository.
        cached: as ``StoreWriter.begin`` takes it.
    """

    number: int
    media_type: str
    digest: str
    size: int
    image: str
    cached: bool

    @property
    def blob(self) -> Descriptor:
        """What is to be brought."""
        return Descriptor(self.media_type, Digest.parse(self.digest), self.size)


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The blob of an order is in the store, or why not. Number 0 is the worker itself: it can do no work.

    Args:
        error: a ``FastociError``, pickled; ``fault`` is the text of what nobody expected.
    """

    number: int
    error: bytes = b""
    fault: str = ""

    @property
    def exception(self) -> Exception | None:
        """What went wrong."""
        if self.fault:
            return RuntimeError(f"a worker process failed:\n{self.fault}")
        return _Errors(io.BytesIO(self.error)).load() if self.error else None


class Happened(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An event of a worker, for the observer of the job."""

    kind: str
    fields: msgspec.Raw

    @classmethod
    def of(cls, event: Event) -> Happened:
        """The message of an event."""
        return cls(type(event).__name__, msgspec.Raw(_encoder.encode(event)))

    @property
    def event(self) -> Event:
        """The event."""
        return cast(Event, _DECODERS[self.kind].decode(self.fields))


class Logged(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A line for the log of the job's process."""

    logger: str
    level: int
    text: str


Report = Outcome | Happened | Logged
encode: Final = _encoder.encode
orders: Final = msgspec.msgpack.Decoder(Order)
reports: Final[msgspec.msgpack.Decoder[Report]] = msgspec.msgpack.Decoder(Report)


class _Errors(pickle.Unpickler):
    """Makes errors of ``fastoci.errors``, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        """A name of that module."""
        if module == errors.__name__ and "." not in name:
            return getattr(errors, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an error")


def pickled(error: FastociError) -> bytes:
    """An error for an ``Outcome``; one with a foreign part is its text."""
    data = pickle.dumps(error)
    try:
        _Errors(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        return pickle.dumps(FastociError(str(error)))
    return data


class Channel(asyncio.Protocol):
    """One end of the socket.

    Args:
        received: gets each message.
        ended: is called once, when the other end says no more.
    """

    def __init__(self, received: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._received = received
        self._ended: Callable[[], None] | None = ended
        self._data = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._early: list[bytes] = []  # said before there was a connection
        self._says_no_more = False
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what was said before."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.writelines(self._early)
        if self._says_no_more:
            self._transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Hand on each message that is whole."""
        self._data += data
        begin = 0
        while (body := begin + _LENGTH) <= len(self._data):
            end = body + int.from_bytes(self._data[begin:body], "big")
            if end > len(self._data):
                break
            self._received(bytes(self._data[body:end]))
            begin = end
        del self._data[:begin]

    def eof_received(self) -> bool:
        """The other end says no more; this one still may."""
        self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is gone, or this one let go."""
        self._lost.set()
        self._end()

    def send(self, *messages: bytes) -> None:
        """Send messages, as soon as there is a connection; to nobody when the other end is gone."""
        framed = b"".join(len(message).to_bytes(_LENGTH, "big") + message for message in messages)
        if self._transport is None:
            self._early.append(framed)
        elif not self._transport.is_closing():
            self._transport.write(framed)

    def say_no_more(self) -> None:
        """Tell the other end that no message follows."""
        self._says_no_more = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    async def aclose(self) -> None:
        """Send what is to be sent, and let go of the socket."""
        if self._transport is not None:
            self._transport.close()
            await self._lost.wait()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()
