"""One HTTP/2 connection over a local socket, for either side: exchanges of messages, in bounded memory and time.

h2 holds the rules of HTTP/2; this holds the socket, the windows and the waits. It knows no call.

1. A peer that breaks the rules, sends frames without end that carry nothing, or does not read what it is answered,
   loses the connection.
2. A stream's window is opened only while its reader keeps up, or a message of allowed length is under way; the
   connection's at once, so that a slow reader holds up no other. ``Bounds.memory`` is the limit of all together.
3. Every wait ends: by what was waited for, by the end of the exchange or of the connection, or by ``Bounds.wait_s``.

Spec: RFC 9113; gRPC over HTTP/2.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from fastoci.containerd.rpc.exchange import Bounds, Exchange, Held
from fastoci.containerd.rpc.frames import FrameCounter
from fastoci.containerd.rpc.framing import Code
from fastoci.errors import ContainerdError

_STREAM_WINDOW: Final = 1 << 20  # bytes that a peer may send on one stream before it is read
_WINDOW: Final = 4 << 20  # and on all together
_HEADERS: Final = 64 << 10  # bytes of one list of headers
_READ: Final = 64 << 10  # bytes that are parsed in one turn of the event loop
_WRITE: Final = 64 << 10  # bytes that are handed to the socket at a time
_UNREAD: Final = 512 << 10  # bytes of answers to frames that carry nothing, which a peer does not read
_CHATTER: Final = 1000  # frames without a message's bytes in so many seconds
_CHATTER_S: Final = 10.0
_PAYLOAD: Final = 16  # one of so many frames has a message's bytes, at least: a call has one of about five
_PREFACE: Final = 24  # bytes of a client before its first frame
_LINGER_S: Final = 1.0
# h2 has read on, and knows already of an end that comes here as one of the next events; KeyError is of a window.
_AHEAD: Final = suppress(ProtocolError, KeyError)


class Link(asyncio.BufferedProtocol):
    """A connection. ``on_request`` makes it a server's."""

    def __init__(
        self,
        path: str,
        bounds: Bounds,
        *,
        held: Held | None = None,
        on_connect: Callable[[Link, asyncio.Transport], bool] | None = None,
        on_request: Callable[[Link, Exchange], object] | None = None,
    ) -> None:
        self.path = path
        self.bounds = bounds
        self.held = held or Held()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: ContainerdError | None = None
        self._on_connect = on_connect
        self._on_request = on_request
        self._exchanges: dict[int, Exchange] = {}
        self._buffer = bytearray(_READ)
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._queued = 0  # bytes that h2 has for the socket
        self._spent = 0  # bytes of the connection's window that are not given back
        self._frames = FrameCounter(0 if on_request is None else _PREFACE)
        self._chatter = 0  # frames
        self._since = 0.0
        self._last: int | None = None  # the last exchange that is served before the end, once that is near
        self._abort: asyncio.TimerHandle | None = None
        self._h2 = H2Connection(H2Configuration(client_side=on_request is None, header_encoding=None))
        self._h2.local_settings = Settings(
            client=on_request is None,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: bounds.exchanges,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEADERS,
                SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
            },
        )

    # -- the transport's calls --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak HTTP/2, unless the peer is not wanted."""
        self._transport = cast(asyncio.Transport, transport)
        if self._on_connect is not None and not self._on_connect(self, self._transport):
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(_WRITE)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW - self._h2.inbound_flow_control_window)
        self.flush()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes come."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came. What is not HTTP/2, or what no peer has a reason for, ends the connection."""
        if self.error:
            return
        data = bytes(memoryview(self._buffer)[:nbytes])
        try:
            frames = self._frames.feed(data)
            found = self._h2.receive_data(data)
        except Exception as error:  # h2's own, and what its parsers raise at garbage
            self.close(self.failure(f"the other side does not speak HTTP/2: {error}", Code.INTERNAL))
            return
        carrying = 0
        for event in found:
            carrying += isinstance(event, events.DataReceived) and bool(event.data)
            self._handle(event)
        if self.error:
            return
        self.flush()
        self._restrain(frames if carrying * _PAYLOAD < frames else 0)

    def eof_received(self) -> None:
        """The peer sends no more: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.close(self.failure(f"the connection broke: {exc or 'closed by the other side'}", Code.UNAVAILABLE))
        if self._abort is not None:
            self._abort.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """The socket takes no more."""
        self._paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._paused = False
        self._wake()

    # -- what exchanges need --

    def begin(self, headers: Iterable[tuple[str, str]]) -> Exchange:
        """Begin an exchange, as a client.

        Raises:
            ContainerdError: the connection is over, or has as many exchanges as the peer takes.
        """
        if self.error:
            raise copy.copy(self.error)
        if len(self._exchanges) >= self._h2.remote_settings.max_concurrent_streams:
            raise self.failure("the other side takes no more calls at once", Code.RESOURCE_EXHAUSTED)
        number = self._h2.get_next_available_stream_id()
        exchange = self._exchanges[number] = Exchange(self, number)
        self.put_headers(exchange, headers)
        return exchange

    def put_headers(self, exchange: Exchange, headers: Iterable[tuple[str, str]], *, end: bool = False) -> None:
        """Send headers or trailers."""
        if not self._is_open(exchange):
            return
        with _AHEAD:
            self._h2.send_headers(exchange.number, list(headers), end_stream=end)
        self._queued += 1
        exchange.begun = True
        if end:
            self._sent_all(exchange)
            self.flush()

    def room(self, exchange: Exchange) -> int:
        """How many bytes may be sent now."""
        if self._paused or not self._is_open(exchange):
            return 0
        return min(self._h2.local_flow_control_window(exchange.number), self._h2.max_outbound_frame_size, _WRITE)

    def put(self, exchange: Exchange, data: bytes, *, end: bool = False) -> None:
        """Send bytes for which there is room."""
        self._h2.send_data(exchange.number, data, end_stream=end)
        self._chatter = 0
        self._queued += len(data)
        if end:
            self._sent_all(exchange)
        if self._queued >= _WRITE:
            self.flush()

    def end(self, exchange: Exchange) -> None:
        """Say that nothing more is sent."""
        if self._is_open(exchange):
            self._h2.end_stream(exchange.number)
            self._sent_all(exchange)
            self.flush()

    def reset(self, exchange: Exchange, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """End an exchange for both sides, and forget it."""
        known = self._exchanges.pop(exchange.number, None) is not None
        over = exchange.closed and exchange.ended
        exchange.closed = True
        if known and not (over or self.error):
            with _AHEAD:
                self._h2.reset_stream(exchange.number, code)
            self._queued += 1
            self.flush()

    def open_window(self, exchange: Exchange, size: int) -> None:
        """Let the peer send so much more on an exchange, when that is worth a frame."""
        if size >= _STREAM_WINDOW // 4 and exchange.number in self._exchanges and not (exchange.ended or self.error):
            with _AHEAD:
                self._h2.increment_flow_control_window(size, exchange.number)
            exchange.opened(size)
            self._queued += 1

    def flush(self) -> None:
        """Hand to the socket what h2 has for it."""
        self._queued = 0
        if self._transport is not None and not self._transport.is_closing() and (data := self._h2.data_to_send()):
            self._transport.write(data)

    def failure(self, message: str, code: Code) -> ContainerdError:
        """An error of this connection."""
        return ContainerdError(message, code=code, path=self.path)

    # -- the end --

    def retire(self) -> None:
        """Tell a client to go elsewhere with its next calls; those under way go on.

        h2 takes a connection for over as soon as it sends GOAWAY, so this frame is written here.
        """
        if self.error or self._transport is None or self._last is not None:
            return
        self._last = self._h2.highest_inbound_stream_id
        self.flush()
        self._transport.write(b"\0\0\x08\x07\0\0\0\0\0" + self._last.to_bytes(4, "big") + b"\0\0\0\0")

    def close(self, error: ContainerdError) -> None:
        """End the connection, and all exchanges with it, for this reason."""
        if self.error:
            return
        self.flush()  # what h2 says to a peer that broke the rules
        self.error = error
        if self._transport is not None:
            self._transport.close()  # after what is written, for which a peer that does not read has a moment
            self._abort = asyncio.get_running_loop().call_later(_LINGER_S, self._transport.abort)
        if not self.ready.done():
            self.ready.set_result(None)
        for exchange in list(self._exchanges.values()):
            exchange.closed = True
            exchange.fail(error)
        self._exchanges.clear()

    # -- events --

    def _handle(self, event: events.Event) -> None:
        handler = _HANDLERS.get(type(event))
        if handler is not None and not self.error:
            handler(self, event)

    def _request(self, event: Any) -> None:
        exchange = Exchange(self, event.stream_id)
        exchange.headers = _texts(event.headers)
        self._exchanges[exchange.number] = exchange
        if self._last is not None and exchange.number > self._last:
            self.reset(exchange, ErrorCodes.REFUSED_STREAM)
        elif self._on_request is not None:
            self._on_request(self, exchange)

    def _response(self, event: Any) -> None:
        if exchange := self._exchanges.get(event.stream_id):
            exchange.headers = _texts(event.headers)
            exchange.wake()

    def _trailers(self, event: Any) -> None:
        if exchange := self._exchanges.get(event.stream_id):
            exchange.trailers = _texts(event.headers)

    def _data(self, event: Any) -> None:
        size = event.flow_controlled_length
        self._spent += size
        if self._spent >= _WINDOW // 4:
            with _AHEAD:
                self._h2.increment_flow_control_window(self._spent)
            self._spent = 0
        if exchange := self._exchanges.get(event.stream_id):
            exchange.take(event.data, size)

    def _ended(self, event: Any) -> None:
        exchange = self._exchanges.get(event.stream_id)
        if exchange is None:
            return
        exchange.finish()
        if self._on_request is None:  # a server that has answered reads nothing more
            self.reset(exchange, ErrorCodes.NO_ERROR)

    def _sent_all(self, exchange: Exchange) -> None:
        exchange.closed = True
        if exchange.ended:
            self._exchanges.pop(exchange.number, None)

    def _reset(self, event: Any) -> None:
        exchange = self._exchanges.pop(event.stream_id, None)
        if exchange is None:
            return
        exchange.closed = True
        code = _OF_RESETS.get(event.error_code, Code.INTERNAL)
        exchange.fail(self.failure(f"the other side ended the call ({event.error_code!s})", code))

    def _settings(self, event: Any) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        self._wake()

    def _window(self, event: Any) -> None:
        if not event.stream_id:
            self._wake()
        elif exchange := self._exchanges.get(event.stream_id):
            exchange.wake()

    def _goaway(self, event: Any) -> None:
        self.close(self.failure("the other side ends the connection", Code.UNAVAILABLE))

    def _wake(self) -> None:
        for exchange in self._exchanges.values():
            exchange.wake()

    def _is_open(self, exchange: Exchange) -> bool:
        return not (exchange.closed or self.error)

    def _restrain(self, chatter: int) -> None:
        """Hang up on a peer that sends much and says nothing, or reads no answers."""
        now = time.monotonic()
        if not chatter or now - self._since >= _CHATTER_S:
            self._chatter, self._since = 0, now
        self._chatter += chatter
        if self._chatter > _CHATTER:
            self.close(self.failure("the other side sends frames that carry nothing", Code.RESOURCE_EXHAUSTED))
        elif self._transport is not None and self._transport.get_write_buffer_size() > _UNREAD:
            self.close(self.failure("the other side does not read", Code.RESOURCE_EXHAUSTED))


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as texts; of several with one name the last."""
    return {bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in headers}


_OF_RESETS: Final = {  # gRPC over HTTP/2, "HTTP2 Transport Mapping", Errors
    ErrorCodes.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCodes.CANCEL: Code.CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}

_HANDLERS: Final[dict[type[events.Event], Callable[[Link, Any], None]]] = {
    events.RequestReceived: Link._request,
    events.ResponseReceived: Link._response,
    events.TrailersReceived: Link._trailers,
    events.DataReceived: Link._data,
    events.StreamEnded: Link._ended,
    events.StreamReset: Link._reset,
    events.RemoteSettingsChanged: Link._settings,
    events.WindowUpdated: Link._window,
    events.ConnectionTerminated: Link._goaway,
}
