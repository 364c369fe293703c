"""Servers on loopback that note who asks for what: to see where other pullers look for an image, and in which order."""

from __future__ import annotations

import hashlib
import http.server
import json
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from yarl import URL

from fastoci.errors import DeniedError, FormatError
from fastoci.image.reference import Reference
from fastoci.registry.config.endpoints import Endpoint, Mirrors, endpoints

Asked = tuple[str, str, str]  # which server, path, query

CONFIG, LAYER = b"{}", b"layer"
OCI = "application/vnd.oci.image"


def _descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _descriptor("config.v1+json", CONFIG),
        "layers": [_descriptor("layer.v1.tar", LAYER)],
    }
).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
BODIES = {f"sha256:{hashlib.sha256(data).hexdigest()}": data for data in (CONFIG, LAYER, MANIFEST)} | {"1": MANIFEST}


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10
    server: _Server

    def do_GET(self) -> None:
        url = URL(self.path, encoded=True)
        last = url.path.rpartition("/")[2]
        body = BODIES.get(last) if self.server.serves else None
        if url.path == "/v2/":
            body = b"{}"  # the question whether this is a registry
        elif last in BODIES:
            self.server.asked.append((self.server.name, url.path, url.query_string))
        self.send_response(404 if body is None else 200)
        if body is MANIFEST:
            self.send_header("Content-Type", f"{OCI}.manifest.v1+json")
            self.send_header("Docker-Content-Digest", DIGEST)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # so that closing it waits for the answers

    def __init__(self, name: str, asked: list[Asked]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.asked, self.serves = name, asked, False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A TLS greeting, which both tools try first: no news."""


class Recorder:
    """Servers A, B and C that note who asks for what; they have nothing, unless told to serve."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.servers = {name: _Server(name, self.asked) for name in "ABC"}
        self.hosts = {name: f"127.0.0.1:{server.server_port}" for name, server in self.servers.items()}

    def fill(self, text: str) -> str:
        """A configuration with the servers' addresses in the places of $A, $B and $C."""
        return string.Template(text).substitute(self.hosts)

    def name(self, endpoint: Endpoint) -> str:
        """Which server an endpoint is; empty for other hosts."""
        authority = f"{endpoint.base.host}:{endpoint.base.port}"
        return next((name for name, host in self.hosts.items() if host == authority), "")

    def expect(self, found: tuple[Endpoint, ...], folder: str, target: str) -> list[Asked]:
        """The requests that these endpoints stand for, at the servers of the recorder."""
        return [
            (name, f"{endpoint.base.path}/{endpoint.path}/{folder}/{target}", str(URL.build(query=endpoint.query))[1:])
            for endpoint in found
            if (name := self.name(endpoint))
        ]


@contextmanager
def recording() -> Iterator[Recorder]:
    """A running recorder."""
    recorder = Recorder()
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in recorder.servers.values()]
    for thread in threads:
        thread.start()
    try:
        yield recorder
    finally:
        for server in recorder.servers.values():
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def once(asked: list[Asked]) -> list[Asked]:
    """Without repetitions: a HEAD before a GET, or a second try."""
    return list(dict.fromkeys(asked))


def askable(reference: str, config: Mirrors) -> tuple[Endpoint, ...]:
    """Those who may be asked for what the reference names; nobody when it is blocked, or renamed to what is no name."""
    parsed = Reference.parse(reference)
    try:
        found = endpoints(parsed, config, tls_verify=True)
    except (DeniedError, FormatError):
        return ()
    return tuple(e for e in found if (e.pull if parsed.digest else e.resolve))
