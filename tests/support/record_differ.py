"""Record what containerd sends to a differ while it pulls an image: ``python record_differ.py FILE``, as root.

containerd 2 and ctr are on PATH. The file has each connection's bytes from containerd as frames of HTTP/2, and the
blobs that they name; the root of the recording is in it, so that a replay can put its own in that place.
"""

from __future__ import annotations

import base64
import json
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastoci.testing.images import Image, write_layout
from fastoci.testing.layers import Entry, Layer, directory, hardlink, whiteout
from support.containerd_two import containerd
from support.differ_process import passed_differ
from support.scratch import scratch
from support.served_layout import served_layout

LAYERS = [
    [directory("d", mode=0o700), Entry("d/old", data=b"old"), Entry("f", data=b"f", uid=5)],
    [whiteout("d/old"), Entry("d/new", data=b"new")],
    [hardlink("g", "f"), Entry("h", data=b"h" * 5000)],
]


class Recorder:
    """Passes on what comes at a socket to another, and keeps what came."""

    def __init__(self, path: Path, target: Path) -> None:
        self.connections: list[bytearray] = []
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End, after all connections have."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        self._listener.settimeout(0.1)
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections.append(bytearray())
            thread = threading.Thread(target=self._pass_on, args=[client, self.connections[-1]])
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, client: socket.socket, kept: bytearray) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as ready:
            server.connect(str(self._target))
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    source = client if key.fileobj is client else server
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is client:
                        kept += data
                    key.data.sendall(data)


@contextmanager
def recorder(path: Path, target: Path) -> Iterator[Recorder]:
    """A recorder until the end of the block."""
    made = Recorder(path, target)
    try:
        yield made
    finally:
        made.close()


def main(file: Path) -> None:
    """Pull, and write what was said."""
    layers = [Layer.build(entries) for entries in LAYERS]
    with scratch("record") as home:
        write_layout({"app": Image.build(layers)}, home / "layout")
        address = ["--containerd-address", str(home / "c" / "sock")]
        with (
            served_layout(home / "layout") as names,
            passed_differ(home, *address),
            recorder(home / "recorded.sock", home / "differ.sock") as recorded,
            containerd(home / "c", differ=home / "recorded.sock") as daemon,
        ):
            version = daemon.ctr("version").split()
            for options in ([], ["--local"]):
                done = daemon.pull(names[0], *options)
                assert done.returncode == 0, done.stderr
                daemon.forget(names[0])
        blobs = [layer.content for layer in layers]
        document = {
            "containerd": version[version.index("Server:") + 2],
            "root": str(home),
            "diff_ids": [str(layer.diff_id) for layer in layers],
            "blobs": [base64.b64encode(bytes(blob)).decode() for blob in blobs if isinstance(blob, bytes)],
            "connections": [base64.b64encode(bytes(each)).decode() for each in recorded.connections],
        }
    file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
