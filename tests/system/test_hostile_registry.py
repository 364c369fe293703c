"""A registry that means harm, against the program as a process: an error of its kind that names host and request, no
secret in it, bounded memory, and nothing kept of what is known to be wrong.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import Cli
from fastoci.image.digest import Digest
from support.images import FIRST, image_of
from support.sanitizers import SANITIZED
from support.warm_program import Ended

Pull = Callable[[Path, str], Ended]

IMAGE = image_of(FIRST)
CONFIG, LAYER = str(Digest.of(IMAGE.config)), IMAGE.layers[0].descriptor
DIGEST = str(LAYER.digest)
PASSWORD = "open-sesame-4711"
SIGNATURE = "X-Amz-Signature=f00dfeedf00dfeed"
MIB = 1 << 20

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the test says; what the test says nothing of as a good registry of ``IMAGE``."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.told.update(value for name, value in self.headers.items() if name.lower() == "authorization")
        above, _, name = self.path.rpartition("/")
        answers = self.server.answers
        (answers.get(name) or answers.get(above.rpartition("/")[2], good))(self)
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""

    def handle(self) -> None:
        with suppress(OSError):  # the client has gone
            super().handle()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answers: dict[str, Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.asked: list[str] = []
        self.told: set[str] = set()
        self.host = f"127.0.0.1:{self.server_address[1]}"


def good(handler: Handler) -> None:
    name = handler.path.rpartition("/")[2]
    blobs = {str(blob.digest): content for blob, content in IMAGE.blobs()}
    content = blobs.get(name, IMAGE.manifest)
    assert isinstance(content, bytes)
    kind = IMAGE.media_type if name not in blobs else "application/octet-stream"
    send(200, content, {"Content-Type": kind})(handler)


def send(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def manifest(body: bytes) -> Answer:
    return send(200, body, {"Content-Type": IMAGE.media_type})


def redirect(location: str) -> Answer:
    return send(307, headers={"Location": location})


def challenge(realm: str) -> Answer:
    return send(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})


def endless(head: bytes, piece: bytes) -> Answer:
    """``piece`` again and again, until the client has enough."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(head)
        while True:
            handler.wfile.write(piece)

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTHLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n"


@contextmanager
def serve(answers: dict[str, Answer]) -> Iterator[Server]:
    with Server(answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True)
class Case:
    answers: dict[str, Answer]  # by what is asked for: a blob, else all of a kind
    code: int
    facts: tuple[str, ...]  # regular expressions, of the message


def case(asked: str, answer: Answer, code: int, *facts: str) -> Case:
    return Case({asked: answer}, code, facts)


DEEP = b"[" * 10_000 + b"]" * 10_000
TWICE = IMAGE.manifest.replace(b'"config"', b'"layers":[],"config"', 1)
MANIFEST, BLOB = "/v2/app/manifests/latest", "/v2/app/blobs/sha256:[0-9a-f]{64}"
METADATA = ["http://169.254.169.254/latest/", "http://[::ffff:169.254.169.254]/", "http://[fd00:ec2::254]/"]
ODD = ["file:///etc/passwd", "ftp://127.0.0.1/x"]
CASES = {
    "a manifest without end": case("manifests", endless(CHUNKED, b"100000\r\n" + b" " * MIB + b"\r\n"), 7, MANIFEST),
    "a manifest of 4 MiB and a byte": case("manifests", manifest(b" " * (4 * MIB + 1)), 7, MANIFEST, "larger than"),
    "a layer without end": case(DIGEST, endless(LENGTHLESS, b"x" * MIB), 6, f"{DIGEST}: expected"),
    "a refusal without end": case(
        "manifests", endless(b"HTTP/1.1 403 No\r\nContent-Type: application/json\r\n\r\n", b'"' * MIB), 4, MANIFEST
    ),
    "a header without end": case("manifests", endless(b"HTTP/1.1 200 OK\r\nX-Long: ", b"a" * MIB), 5, MANIFEST),
    "headers without end": case("manifests", endless(b"HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n" * 10_000), 5, MANIFEST),
    "interim answers without end": case(
        "manifests", endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000), 5, MANIFEST
    ),
    "JSON nested 10,000 deep": case("manifests", manifest(DEEP), 7),
    "JSON nested deep in a field": case(
        "manifests", manifest(IMAGE.manifest[:-1] + b',"annotations":' + DEEP + b"}"), 7
    ),
    "duplicate keys": case("manifests", manifest(TWICE), 7, "layers"),
    "another digest than announced": case(
        "manifests",
        send(200, IMAGE.manifest, {"Content-Type": IMAGE.media_type, "Docker-Content-Digest": f"sha256:{'0' * 64}"}),
        6,
        MANIFEST,
        "0" * 64,
    ),
    **{
        f"a {what} at {where}": case(kind, make(f"{where}?{SIGNATURE}"), code, fact)
        for what, kind, make, places, code, fact in [
            ("redirect", "blobs", redirect, METADATA, 5, "http://.*: refused, the server sends"),
            ("redirect", "blobs", redirect, ODD, 5, f"{BLOB}: refused, the server redirects"),
            ("realm", "manifests", challenge, METADATA, 5, "http://.*: refused, the server sends"),
            ("realm", "manifests", challenge, ODD, 4, "http://127.0.0.1:[0-9]+: names a token service that is no"),
        ]
        for where in places
    },
    "a redirect at a metadata address, without a scheme": case(
        "blobs", redirect(f"//169.254.169.254/x?{SIGNATURE}"), 5, "http://169.254.169.254/x: refused, the server sends"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_answer_is_an_error_that_names_it(pull: Pull, tmp_path: Path, name: str) -> None:
    given = CASES[name]
    with serve(given.answers) as server:
        done = pull(tmp_path, server.host)
    assert done.returncode == given.code, done.stderr
    message = done.stderr
    assert "Traceback" not in message
    assert message.startswith(f"fastoci: {server.host}/app")
    for fact in given.facts:
        assert re.search(fact, message), message
    assert len(message) < 4000
    for secret in (PASSWORD, base64.b64encode(f"me:{PASSWORD}".encode()).decode(), SIGNATURE, "f00dfeed"):
        assert secret not in message
    assert SANITIZED or done.peak < 128 * MIB
    assert not list((tmp_path / "store" / "blobs").glob(f"*/{LAYER.digest.hex}"))
    assert left_of_layer(tmp_path) <= {"corrupt", "lock"}, "nothing but who sent wrong bytes is remembered"
    assert not list((tmp_path / "store" / "refs").glob("*/*"))


def test_what_is_left_of_a_layer_beside_a_blob_without_end_is_not_believed(pull: Pull, tmp_path: Path) -> None:
    """The layer is cancelled when the config turns out wrong, and kept: nobody knows yet that it is wrong, too."""
    data = tmp_path / "store" / "ingest" / LAYER.digest.hex / "data"
    ended = threading.Event()

    def part_of_layer(handler: Handler) -> None:
        handler.wfile.write(LENGTHLESS + b"x" * 3 * MIB)
        ended.wait(20)

    def config_later(handler: Handler) -> None:
        until = time.monotonic() + 20
        while not (data.exists() and data.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        endless(LENGTHLESS, b"x" * MIB)(handler)

    with serve({DIGEST: part_of_layer, CONFIG: config_later}) as server:
        done = pull(tmp_path, server.host)
        ended.set()
    assert done.returncode == 6, done.stderr
    assert f"{CONFIG}: expected" in done.stderr
    assert left_of_layer(tmp_path) == {"data", "lock", "state"}
    with serve({}) as server:
        done = pull(tmp_path, server.host)
    assert done.returncode == 0, done.stderr
    stored = tmp_path / "store" / "blobs" / "sha256" / LAYER.digest.hex
    assert stored.read_bytes() == dict(IMAGE.blobs())[LAYER]
    assert not left_of_layer(tmp_path)


def left_of_layer(directory: Path) -> set[str]:
    return {path.name for path in (directory / "store" / "ingest" / LAYER.digest.hex).glob("*")}


@pytest.mark.parametrize(("kind", "make"), [("blobs", redirect), ("manifests", redirect), ("manifests", challenge)])
def test_another_host_learns_no_credentials(
    pull: Pull, tmp_path: Path, kind: str, make: Callable[[str], Answer]
) -> None:
    """It answers 403, and its address is signed."""
    with (
        serve({"other": send(403)}) as other,
        serve({kind: make(f"http://{other.host}/other/x?{SIGNATURE}")}) as server,
    ):
        done = pull(tmp_path, server.host)
    assert done.returncode in (4, 5), done.stderr
    assert other.asked or make is challenge
    assert not other.told
    assert server.host in done.stderr
    for secret in (PASSWORD, SIGNATURE, "f00dfeed"):
        assert secret not in done.stderr


@pytest.fixture
def pull(cli: Cli) -> Pull:
    """How ``fastoci pull`` ends."""

    def called(directory: Path, host: str) -> Ended:
        auth = directory / "auth.json"
        auth.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(f"me:{PASSWORD}".encode()).decode()}}}))
        options = ("--store", directory / "store", "--authfile", auth, "--progress", "none")
        return cli("pull", f"{host}/app", *options)

    return called
