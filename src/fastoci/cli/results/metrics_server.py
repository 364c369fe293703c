"""Serves metrics over HTTP from a thread while a job runs.

One connection at a time, for a second at most: whoever may connect costs the job one thread and one descriptor,
whatever they send or do not read.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from fastoci.errors import FastociError

_LOG: Final = logging.getLogger(__name__)
_DEADLINE_S: Final = 1.0  # for a request and its answer
_TICK_S: Final = 0.1  # how late the end of the job is seen


class MetricsServer:
    """Serves from the beginning on, until ``__exit__``.

    Args:
        host: a name or an address of this machine.
        port: 0 is any that is free.
    Raises:
        FastociError: the address cannot be had.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            self._server = _Server(address, family)
        except OSError as error:
            raise FastociError(f"cannot serve metrics at {host}:{port}: {error.strerror or error}") from error
        self.host: str = self._server.server_name
        self.port: int = self._server.server_port
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[_TICK_S], name="fastoci-metrics", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(WSGIServer):
    """Of one family of addresses, which asks no name server for its own name."""

    def __init__(self, address: Any, family: int) -> None:
        self.address_family = family
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _LOG.debug("%s: the connection ended early", client_address, exc_info=True)


class _Handler(WSGIRequestHandler):
    """Cuts a connection that takes too long."""

    def handle(self) -> None:
        timer = threading.Timer(_DEADLINE_S, _cut, [self.connection])
        timer.daemon = True
        timer.start()
        try:
            super().handle()
        finally:
            timer.cancel()

    def log_message(self, format: str, *arguments: Any) -> None:
        _LOG.debug("%s: " + format, self.client_address[0], *arguments)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
