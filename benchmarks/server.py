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
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  types {{ }}
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port}{tls};
    root {root}/www;
    location = /v2/ {{ default_type application/json; return 200 "{{}}"; }}
    location ~ ^/v2/.+/manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}
  }}
}}
"""


# Of one's own: nothing else of the machine trusts it.
_CERTIFICATE = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=127.0.0.1 -days 2"


@contextmanager
def serve(samples: Sequence[Sample], *, tls: bool = False) -> Iterator[str]:
    """Serve each sample as ``ADDRESS/NAME:t``, with ``tls`` by TLS 1.3 only; gives the address."""
    with tempfile.TemporaryDirectory(prefix="fastoci-nginx-") as name:
        root = Path(name)
        for sample in samples:
            _publish(sample, root / "www" / "v2" / sample.name)
        port = _free_port()
        user = "user root;" if os.geteuid() == 0 else ""  # the layouts may be readable by their owner only
        (root / "nginx.conf").write_text(_CONFIG.format(root=root, port=port, user=user, tls=_tls(root) if tls else ""))
        command = [_nginx(), "-p", name, "-c", f"{name}/nginx.conf", "-e", f"{name}/error.log"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
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


def _free_port() -> int:
    with socket.socket() as probe:  # nginx cannot choose one itself
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
