"""nginx as a static registry on loopback: manifests and blobs are files, sent by sendfile. It is no bottleneck."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import Sample

_CONFIG = """\
daemon off;
{user}
worker_processes 1;
pid {root}/pid;
error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format ranges '$status $body_bytes_sent $request_method $uri "$http_range"';
  {access_log}
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  map_hash_max_size 65536;
  map_hash_bucket_size 256;
  map $uri $digest {{ include {root}/digests; }}
  types {{ }}
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port}{tls};
    limit_rate {limit_rate};
    root {root}/www;
    location = /v2/ {{ default_type application/json; return 200 "{{}}"; }}
    location ~ ^/v2/.+/manifests/ {{
      default_type application/vnd.oci.image.manifest.v1+json;
      add_header Docker-Content-Digest $digest;
    }}
  }}
}}
"""


_SO_MAX_PACING_RATE = 47  # asm-generic/socket.h; the socket module has no name for it

_LOGGED_S = 0.5  # after which a request that was broken off is in the log

# Of one's own: nothing else of the machine trusts it.
_CERTIFICATE = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=127.0.0.1 -days 2"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the server is slow or talkative in."""

    tls: bool = False  # TLS 1.3 only
    pacing: int = 0  # bytes a second of each connection, by the kernel; 0 for no limit
    send_buffer: int = 0  # bytes that the kernel holds of each connection; 0 for its own choice
    limit_rate: int = 0  # nginx's: bytes a second of each request, but a second's worth of them at once
    log: Path | None = None  # gets a line for each request: status, bytes, method, path, "range"


@dataclass(frozen=True, slots=True)
class Asked:
    """A line of the log: a request that has ended."""

    method: str
    path: str
    sent: int  # bytes of the body that the kernel took


def asked(log: Path, since: int = 0) -> list[Asked]:
    """What was asked, by the lines behind ``since`` bytes; waits for those that were broken off."""
    time.sleep(_LOGGED_S)
    with log.open() as lines:
        lines.seek(since)
        fields = [line.split() for line in lines]
    return [Asked(method, path, int(sent)) for _, sent, method, path, *_ in fields]


@contextmanager
def serve(samples: Sequence[Sample], *, tls: bool = False, shape: Shape | None = None) -> Iterator[str]:
    """Serve each sample as ``ADDRESS/NAME:t``; gives the address."""
    shape = shape or Shape(tls=tls)
    with tempfile.TemporaryDirectory(prefix="fastoci-nginx-") as name, socket.socket() as listener:
        root = Path(name)
        for sample in samples:
            _publish(sample, root / "www" / "v2" / sample.name)
        lines = [f"/v2/{each.name}/manifests/t sha256:{each.manifest.name};\n" for each in samples]
        (root / "digests").write_text("".join(lines))
        if shape.pacing:  # what is accepted has it, too
            listener.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, shape.pacing)
        if shape.send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, shape.send_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        port = listener.getsockname()[1]
        (root / "nginx.conf").write_text(
            _CONFIG.format(
                root=root,
                port=port,
                user="user root;" if os.geteuid() == 0 else "",  # the layouts may be readable by their owner only
                tls=_tls(root) if shape.tls else "",
                limit_rate=shape.limit_rate,
                access_log=f"access_log {shape.log} ranges;" if shape.log else "access_log off;",
            )
        )
        command = [_nginx(), "-p", name, "-c", f"{name}/nginx.conf", "-e", f"{name}/error.log"]
        # As nginx hands its sockets to its successor.
        environment = {**os.environ, "NGINX": f"{listener.fileno()};"}
        process = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
        try:
            _wait(process, port, root / "error.log")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _publish(sample: Sample, target: Path) -> None:
    (target / "manifests").mkdir(parents=True)
    (target / "blobs").mkdir()
    for reference in ("t", f"sha256:{sample.manifest.name}"):
        (target / "manifests" / reference).symlink_to(sample.manifest)
    for blob in sample.blobs:
        (target / "blobs" / f"sha256:{blob.name}").symlink_to(blob)


def _tls(root: Path) -> str:
    """Make a key and a certificate; the rest of the line that listens, and the lines after it."""
    key, certificate = root / "key", root / "certificate"
    command = ["openssl", *_CERTIFICATE.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return f" ssl; ssl_protocols TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key}"


def _nginx() -> str:
    path = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if path is None:
        raise FileNotFoundError("nginx is not installed (Debian: nginx-light)")
    return path


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx does not answer: {log.read_text()}") from error
            time.sleep(0.02)
