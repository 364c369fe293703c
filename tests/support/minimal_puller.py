"""A puller of a few lines for the tests of the table: ``python minimal_puller.py MODE IMAGE DIR``.

``good`` goes on after cuts, tries again after errors, waits as it is told, and verifies; ``naive`` writes what it gets;
``leaky`` is good, tells every host its credentials, and prints them.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sys
import time
import urllib.parse
from pathlib import Path

TYPE = "application/vnd.oci.image.manifest.v1+json"


class Puller:
    def __init__(self, mode: str, image: str, directory: str) -> None:
        self.mode = mode
        self.host, _, rest = image.partition("/")
        self.name, _, self.tag = rest.rpartition(":")
        self.blobs = Path(directory) / "blobs"
        self.blobs.mkdir(exist_ok=True)
        auths = json.loads(Path(os.environ["REGISTRY_AUTH_FILE"]).read_text())["auths"]
        self.told = ""  # the digest by the registry's word
        self.basic = auths.get(self.host, {}).get("auth", "")

    def pull(self) -> None:
        data = self.get(f"http://{self.host}/v2/{self.name}/manifests/{self.tag}", "")
        manifest = json.loads(data)
        self.write(f"sha256:{hashlib.sha256(data).hexdigest()}", data)
        for blob in [manifest["config"], *manifest["layers"]]:
            digest = blob["digest"]
            self.write(digest, self.get(f"http://{self.host}/v2/{self.name}/blobs/{digest}", digest))
        if self.mode == "leaky":
            print(self.basic)

    def write(self, digest: str, data: bytes) -> None:
        (self.blobs / digest.removeprefix("sha256:")).write_bytes(data)

    def get(self, url: str, digest: str) -> bytes:
        data = b""
        for _ in range(12):
            data, whole = self.ask(url, data)
            wanted = digest or self.told
            if self.mode == "naive" or (whole and wanted in ("", f"sha256:{hashlib.sha256(data).hexdigest()}")):
                return data
            if whole:
                data = b""
        raise SystemExit(f"no {url.partition('?')[0]}")

    def ask(self, url: str, data: bytes) -> tuple[bytes, bool]:
        """What is there of the body then, and whether that is all."""
        place = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(place.netloc, timeout=5)
        headers = {"Accept": TYPE} | ({"Range": f"bytes={len(data)}-"} if data else {})
        if self.basic and (place.netloc == self.host or self.mode == "leaky"):
            headers["Authorization"] = f"Basic {self.basic}"
        try:
            connection.request("GET", f"{place.path}?{place.query}", headers=headers)
            answer = connection.getresponse()
            if answer.status == 307:
                return self.ask(urllib.parse.urljoin(url, answer.headers["Location"]), data)
            if answer.status == 404:
                raise SystemExit("not found")
            if answer.status >= 400:
                after = answer.headers.get("Retry-After", "0")
                time.sleep(0 if self.mode == "naive" else float(after) if after.isdecimal() else 2.0)
                return b"", False
            self.told = answer.headers.get("Docker-Content-Digest", "")
            begin = data if answer.status == 206 else b""
            return begin + answer.read(), True
        except http.client.IncompleteRead as cut:
            return begin + cut.partial, False
        except OSError:
            return data, False
        finally:
            connection.close()


if __name__ == "__main__":
    Puller(*sys.argv[1:4]).pull()
