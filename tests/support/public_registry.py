"""A registry at a public address whose blobs are elsewhere, in a network namespace; and the program beside it.

``python -m support.public_registry ADDRESS ARGUMENT...`` runs ``fastoci ARGUMENT...``, where ``$REGISTRY`` in an
argument is the registry's ``host:port``, and ends with its exit code. The bucket is at ADDRESS.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.images import FIRST, image_of

PUBLIC = "8.8.4.5"
IMAGE = image_of(FIRST)
CONTENT = {str(descriptor.digest): (descriptor.media_type, data) for descriptor, data in IMAGE.documents()}
CONTENT |= {str(blob.digest): (blob.media_type, data) for blob, data in IMAGE.blobs() if isinstance(data, bytes)}
TOP = str(list(IMAGE.documents())[-1][0].digest)


@contextmanager
def served(address: str, bucket: str = "") -> Iterator[str]:
    """Serve the image at an address, its blobs by a redirect to ``bucket``; ``address:port``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            media_type, data = CONTENT[TOP if name == "1" else name]
            blob = bool(bucket) and "/blobs/" in self.path
            self.send_response(307 if blob else 200)
            self.send_header(
                "Location" if blob else "Content-Type", f"http://{bucket}{self.path}" if blob else media_type
            )
            self.send_header("Content-Length", "0" if blob else str(len(data)))
            self.end_headers()
            self.wfile.write(b"" if blob else data)

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{address}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def main(bucket: str, *arguments: str) -> int:
    """Run the program; its exit code."""
    with served(bucket) as store, served(PUBLIC, store) as registry:
        words = [each.replace("$REGISTRY", registry) for each in arguments]
        return subprocess.run([sys.executable, "-m", "fastoci", *words], check=False, timeout=60).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
