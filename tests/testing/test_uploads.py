"""What a registry for tests says to pushes of any kind, as raw HTTP."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fastoci.image.mediatype import OCI_MANIFEST
from fastoci.testing.registry import Registry, serve
from fastoci.testing.uploads import Uploads

DATA = b"blob" * 1000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class Client:
    """One connection. ``say`` gives the status, the code of a refusal, and the address that is named."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=10)

    def say(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, str, str]:
        headers = {"Content-Type": kind} if kind else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        code = json.loads(data)["errors"][0]["code"] if answer.status >= 400 and data else ""
        place = urlsplit(answer.getheader("Location") or "")
        return answer.status, code, f"{place.path}?{place.query}" if place.query else place.path

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serve(Registry(uploads=Uploads(tmp_path))) as registry:
        made = Client(registry.address)
        yield made
        made.close()


def test_a_blob_comes_in_pieces_and_is_hashed_at_the_end(client: Client) -> None:
    status, _, place = client.say("POST", "/v2/a/blobs/uploads/")
    assert status == 202
    assert client.say("PATCH", place, DATA[:1000])[0] == 202
    status, _, place = client.say("PATCH", place, DATA[1000:])
    assert status == 202
    assert client.say("PUT", f"{place}&digest={DIGEST}") == (201, "", f"/v2/a/blobs/{DIGEST}")
    assert client.say("HEAD", f"/v2/a/blobs/{DIGEST}")[0] == 200
    assert client.say("HEAD", f"/v2/b/blobs/{DIGEST}")[0] == 404, "it is in the repository that it was pushed to"
    assert client.say("PATCH", place, b"more")[1] == "BLOB_UPLOAD_UNKNOWN"


def test_wrong_bytes_are_refused_and_gone(client: Client) -> None:
    place = client.say("POST", "/v2/a/blobs/uploads/")[2]
    assert client.say("PUT", f"{place}&digest={DIGEST}", b"other")[:2] == (400, "DIGEST_INVALID")
    assert client.say("HEAD", f"/v2/a/blobs/{DIGEST}")[0] == 404
    assert client.say("PUT", f"{place}&digest={DIGEST}", DATA)[1] == "BLOB_UPLOAD_UNKNOWN"
    assert client.say("PUT", f"/v2/a/blobs/uploads/none?digest={DIGEST}", DATA)[1] == "BLOB_UPLOAD_UNKNOWN"


def test_what_is_no_manifest_or_not_whole_is_refused(client: Client) -> None:
    link = {"mediaType": "x", "digest": DIGEST, "size": len(DATA)}
    document = json.dumps({"schemaVersion": 2, "config": link, "layers": []}).encode()
    put = ("PUT", "/v2/a/manifests/1")
    assert client.say(*put, b"{", OCI_MANIFEST)[:2] == (400, "MANIFEST_INVALID")
    assert client.say(*put, document, "text/plain")[:2] == (400, "MANIFEST_INVALID")
    assert client.say(*put, document, OCI_MANIFEST)[:2] == (400, "MANIFEST_BLOB_UNKNOWN")
    place = client.say("POST", "/v2/a/blobs/uploads/")[2]
    assert client.say("PUT", f"{place}&digest={DIGEST}", DATA)[0] == 201
    assert client.say("PUT", f"/v2/a/manifests/{DIGEST}", document, OCI_MANIFEST)[:2] == (400, "DIGEST_INVALID")
    assert client.say(*put, document, OCI_MANIFEST)[0] == 201
    assert client.say("GET", "/v2/a/manifests/1")[0] == 200
    assert client.say("DELETE", "/v2/a/manifests/2")[:2] == (404, "MANIFEST_UNKNOWN")
    assert client.say("DELETE", "/v2/a/manifests/1")[0] == 202
    assert client.say("GET", "/v2/a/manifests/1")[0] == 404
