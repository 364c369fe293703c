"""Every bad input of a pull, against the program as a process: the exit code of its kind, no traceback, the facts in
the message, and nothing half-made under a final name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import Cli
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, from_seed

LAYER = Layer.build(from_seed(7, files=3, size=700_000, compressibility=0.1))
IMAGE = Image.build([LAYER, Layer.build([Entry("small", "file", b"x")])])
DIGEST = str(LAYER.descriptor.digest)
SIZE = LAYER.descriptor.size
assert isinstance(LAYER.content, bytes)
GOOD: bytes = LAYER.content


class Server(ThreadingHTTPServer):
    """A registry of one image that sends the big layer as the test wants it: (announced length, bytes)."""

    daemon_threads = True

    def __init__(self, layer: Callable[[], tuple[int, bytes]], manifest: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.layer = layer
        self.manifest = manifest
        self.blobs = {str(blob.digest): content for blob, content in IMAGE.blobs()}

    @property
    def reference(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}/app"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        kind, _, name = self.path.rpartition("/")
        length = -1
        if kind.endswith("manifests"):
            body, media_type = self.server.manifest, IMAGE.media_type
        elif name == DIGEST:
            (length, body), media_type = self.server.layer(), "application/octet-stream"
        else:
            content = self.server.blobs.get(name, b"")
            assert isinstance(content, bytes)
            body, media_type = content, "application/octet-stream"
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""

    def handle(self) -> None:
        with suppress(OSError):  # the client has gone
            super().handle()


@contextmanager
def serve(
    layer: Callable[[], tuple[int, bytes]] = lambda: (SIZE, GOOD), manifest: bytes = IMAGE.manifest
) -> Iterator[Server]:
    with Server(layer, manifest) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def demand_clean(directory: Path) -> None:
    """Blobs are what their names say; there is no rootfs, and no private name of one."""
    for blob in (directory / "store" / "blobs" / "sha256").glob("*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert [path.name for path in directory.iterdir() if path.name != "store"] == []
    assert not list((directory / "store" / "refs").glob("*/*"))


def pull(cli: Cli, directory: Path, reference: str, *options: str) -> subprocess.CompletedProcess[str]:
    place = ("--store", directory / "store", "--rootfs", directory / "root")
    done = cli("pull", reference, *place, *options, hasty=True)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done


FLIPPED = GOOD[:500_000] + bytes([GOOD[500_000] ^ 1]) + GOOD[500_001:]


@pytest.mark.parametrize(
    ("layer", "code", "facts"),
    [
        (lambda: (SIZE, FLIPPED), 6, [DIGEST, hashlib.sha256(FLIPPED).hexdigest()]),
        (lambda: (SIZE - 1, GOOD[:-1]), 6, [DIGEST, str(SIZE), str(SIZE - 1)]),
        (lambda: (SIZE, GOOD[:-5000]), 5, [DIGEST, str(SIZE - 5000)]),
        (lambda: (SIZE + 1, GOOD + b"x"), 6, [DIGEST, str(SIZE)]),
    ],
    ids=["wrong digest", "short body, honest length", "short body, cut", "body too long"],
)
def test_a_body_that_is_not_the_promised_one(
    cli: Cli, tmp_path: Path, layer: Callable[[], tuple[int, bytes]], code: int, facts: list[str]
) -> None:
    with serve(layer) as server:
        done = pull(cli, tmp_path, server.reference)
        assert done.returncode == code, done.stderr
        for fact in [server.reference, *facts]:
            assert fact in done.stderr
        demand_clean(tmp_path)
        server.layer = lambda: (SIZE, GOOD)
        assert (
            cli("pull", server.reference, "--store", tmp_path / "store", "--rootfs", tmp_path / "root").returncode == 0
        )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace('"config"', '"layers": [], "config"'), 7),
        (
            lambda text: text.replace(f'"size":{SIZE}', f'"size":-{SIZE}').replace(
                f'"size": {SIZE}', f'"size": -{SIZE}'
            ),
            7,
        ),
        (lambda text: text.replace(DIGEST, "sha256:../../../../etc/passwd"), 7),
        (lambda text: "<html>sign in</html>", 7),
    ],
    ids=["duplicate keys", "negative size", "digest with a path", "captive portal"],
)
def test_a_manifest_that_is_none(cli: Cli, tmp_path: Path, change: Callable[[str], str], code: int) -> None:
    manifest = change(IMAGE.manifest.decode())
    assert manifest != IMAGE.manifest.decode()
    with serve(manifest=manifest.encode()) as server:
        done = pull(cli, tmp_path, server.reference)
        assert done.returncode == code, done.stderr
        assert server.reference in done.stderr
    demand_clean(tmp_path)


@pytest.mark.parametrize(
    ("reference", "code", "fact"),
    [
        ("127.0.0.1:1/app", 5, "refused"),
        ("no-such-host.invalid/app", 5, "no-such-host.invalid"),
        ("UPPER/Case", 2, "UPPER/Case"),
        ("app@sha256:12", 2, "sha256:12"),
    ],
)
def test_a_reference_that_leads_nowhere(cli: Cli, tmp_path: Path, reference: str, code: int, fact: str) -> None:
    done = pull(cli, tmp_path, reference)
    assert done.returncode == code, done.stderr
    assert fact in done.stderr
    demand_clean(tmp_path)


def test_a_platform_that_the_image_lacks(cli: Cli, tmp_path: Path) -> None:
    with serve() as server:
        done = pull(cli, tmp_path, server.reference, "--platform", "linux/s390x")
    assert done.returncode == 3
    assert "linux/amd64" in done.stderr
    demand_clean(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Half a megabyte of memory as a file system."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_names_the_numbers_and_a_larger_one_continues(cli: Cli, small_disk: Path) -> None:
    with serve() as server:
        done = cli("pull", server.reference, "--store", small_disk / "store")
        assert done.returncode == 8, done.stderr
        assert "Traceback" not in done.stderr
        assert re.search(f"not enough space at {small_disk}/store: [0-9]+ bytes needed, [0-9]+ free", done.stderr)
        demand_clean(small_disk)
        subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
        done = cli("pull", server.reference, "--store", small_disk / "store")
        assert done.returncode == 0, done.stderr


def test_a_disk_without_room_for_the_rootfs_is_refused_before_anything_is_fetched(
    cli: Cli, small_disk: Path, tmp_path: Path
) -> None:
    with serve() as server:
        done = cli("pull", server.reference, "--store", tmp_path / "store", "--rootfs", small_disk / "root")
        assert done.returncode == 8, done.stderr
        assert re.search(
            f"not enough space at {small_disk}/root: [0-9]+ bytes, by estimate, needed, [0-9]+ free", done.stderr
        )
        assert list(small_disk.iterdir()) == []
        assert list((tmp_path / "store/blobs/sha256").iterdir()) == []


def test_a_read_only_store_is_said_to_be_one(cli: Cli, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with serve() as server:
        done = cli("pull", server.reference, "--store", small_disk / "store")
    assert done.returncode == 8
    assert "Read-only file system" in done.stderr


def test_a_layer_that_would_leave_the_root_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    evil = Layer.build([Entry("../evil", "file", b"x")])
    image = Image.build([evil])
    with serve(manifest=image.manifest) as server:
        server.blobs = {str(blob.digest): content for blob, content in image.blobs()}
        done = pull(cli, tmp_path, server.reference)
    assert done.returncode == 7
    assert "../evil" in done.stderr
    assert str(evil.diff_id) in done.stderr
    assert not (tmp_path.parent / "evil").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_json_progress_tells_the_failure_too(cli: Cli, tmp_path: Path) -> None:
    with serve(lambda: (SIZE, FLIPPED)) as server:
        done = pull(cli, tmp_path, server.reference, "--progress", "json")
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    failed = [event for event in events if event["event"] == "image_failed"]
    assert len(failed) == 1
    assert DIGEST in failed[0]["error"]
