"""The writing half of the loopback registry: uploads, mounts and manifests, each held against its digest.

Blobs are files of a directory, and belong to the repositories that they were uploaded or mounted to. Spec:
distribution-spec v1.1, "Pushing blobs", "Pushing manifests".
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.image.links import links
from fastoci.image.mediatype import INDEXES
from fastoci.server.http import Request
from fastoci.server.pull_api import Answer, Document, refusal

_UPLOAD: Final = re.compile(r"/v2/(?P<name>[a-z0-9._/-]+)/blobs/uploads/(?P<upload>[^/]*)")
_MANIFEST: Final = re.compile(r"/v2/(?P<name>[a-z0-9._/-]+)/manifests/(?P<reference>[^/]+)")
_PIECE: Final = 1 << 20


def upload_repository(path: str) -> str:
    """The repository that an upload's path is about; empty when it is about none."""
    match = _UPLOAD.fullmatch(path)
    return match["name"] if match else ""


class Uploads:
    """What was pushed to a registry.

    Args:
        directory: an empty one, for blobs and what becomes of some.
        location: how the address of an upload is given; ``elsewhere`` is on the second host.
    """

    def __init__(self, directory: Path, *, location: Literal["relative", "absolute", "elsewhere"] = "absolute") -> None:
        self.directory = directory
        self.location = location
        self._manifests: dict[tuple[str, str], Document] = {}
        self._blobs: set[tuple[str, str]] = set()
        self._open: dict[str, str] = {}  # repositories of uploads

    def manifest(self, name: str, reference: str) -> Document | None:
        """A manifest that was pushed under a tag or its digest."""
        return self._manifests.get((name, reference))

    def references(self, name: str) -> Iterable[str]:
        """The tags and digests of manifests that were pushed."""
        return [reference for of, reference in self._manifests if of == name]

    def documents(self, name: str) -> Iterable[Document]:
        """The manifests and indexes that were pushed to a repository."""
        return [document for (of, _), document in self._manifests.items() if of == name]

    def blob(self, name: str, digest: str) -> Path | None:
        """The file of a blob that was pushed to this repository."""
        return self._file(digest) if (name, digest) in self._blobs else None

    def _file(self, digest: str) -> Path:
        return self.directory / digest.replace(":", "-")

    def answer(self, request: Request, origin: str, has: Callable[[str, str], bool]) -> Answer:
        """Write what a request wants to write.

        Args:
            origin: the address that uploads get, ``http://HOST:PORT``.
            has: whether a repository has a blob or manifest, for what a manifest names.
        """
        if match := _UPLOAD.fullmatch(request.path):
            if request.method == "POST" and not match["upload"]:
                return self._begin(request, match["name"], origin)
            return self._go_on(request, match["name"], match["upload"], origin)
        match = _MANIFEST.fullmatch(request.path)
        if match and request.method == "PUT":
            return self._put_manifest(request, match["name"], match["reference"], has)
        return refusal(405, "UNSUPPORTED", "no such endpoint")

    def _begin(self, request: Request, name: str, origin: str) -> Answer:
        digest, source = (request.query.get(field, [""])[0] for field in ("mount", "from"))
        if digest and (source, digest) in self._blobs:
            self._blobs.add((name, digest))
            return Answer(201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})
        upload = secrets.token_hex(8)
        self._open[upload] = name
        (self.directory / upload).touch()
        return self._accepted(name, upload, origin, 0)

    def _accepted(self, name: str, upload: str, origin: str, size: int) -> Answer:
        place = f"/v2/{name}/blobs/uploads/{upload}?_state=a%2Fb%3D"
        at = place if self.location == "relative" else f"{origin}{place}"
        return Answer(202, {"Location": at, "Range": f"0-{max(0, size - 1)}"})

    def _go_on(self, request: Request, name: str, upload: str, origin: str) -> Answer:
        if self._open.get(upload) != name or request.query.get("_state") != ["a/b="]:
            return refusal(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        path = self.directory / upload
        if request.method not in ("PATCH", "PUT"):
            return refusal(405, "UNSUPPORTED", "no such endpoint")
        _append(request, path)
        if request.method == "PATCH":
            return self._accepted(name, upload, origin, path.stat().st_size)
        del self._open[upload]
        digest = request.query.get("digest", [""])[0]
        if _digest_of(path) != digest:
            path.unlink()
            return refusal(400, "DIGEST_INVALID", "the bytes have another digest")
        path.replace(self._file(digest))
        self._blobs.add((name, digest))
        return Answer(201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})

    def _put_manifest(self, request: Request, name: str, reference: str, has: Callable[[str, str], bool]) -> Answer:
        media_type, digest = request.headers.get("content-type", ""), str(Digest.of(request.body))
        if ":" in reference and reference != digest:
            return refusal(400, "DIGEST_INVALID", "the manifest has another digest")
        try:
            named = links(request.body, media_type, whole=True)
            said = json.loads(request.body).get("mediaType", media_type)
        except (FormatError, UnsupportedError) as error:
            return refusal(400, "MANIFEST_INVALID", str(error))
        if not named or said != media_type:
            return refusal(400, "MANIFEST_INVALID", f"not a {media_type}")
        for link in named:
            if not has(name, link.digest):
                kind = "MANIFEST_UNKNOWN" if media_type in INDEXES else "MANIFEST_BLOB_UNKNOWN"
                return refusal(400, kind, f"no {link.digest} in {name}")
        document = Document(media_type, digest, request.body)
        self._manifests[name, digest] = self._manifests[name, reference] = document
        return Answer(201, {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest})


def _append(request: Request, path: Path) -> None:
    with path.open("ab") as file:
        if request.file is None:
            file.write(request.body)
            return
        with request.file.open("rb") as source:
            while piece := source.read(_PIECE):
                file.write(piece)


def _digest_of(path: Path) -> str:
    state = sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            state.update(piece)
    return f"sha256:{state.hexdigest()}"
