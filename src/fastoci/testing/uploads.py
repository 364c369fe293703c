"""The writing half of the loopback registry: uploads, mounts and manifests, each held against its digest.

Blobs are files of a directory, and belong to the repositories that they were uploaded or mounted to. What came of an
upload before its connection broke is kept. Spec: distribution-spec v1.1, "Pushing blobs", "Pushing manifests".
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image.attachments import subject_of
from fastoci.image.digest import HEX_DIGITS, Digest
from fastoci.image.links import links
from fastoci.image.mediatype import INDEXES
from fastoci.server.http import Intake, Request
from fastoci.server.pull_api import Answer, Document, refusal
from fastoci.testing.upload_faults import UploadFaults

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
        faults: what is done to uploads.
        subjects: say of a manifest that hangs on another one that it is listed there (``OCI-Subject``).
    """

    def __init__(
        self,
        directory: Path,
        *,
        location: Literal["relative", "absolute", "elsewhere"] = "absolute",
        faults: UploadFaults | None = None,
        subjects: bool = True,
    ) -> None:
        self.directory = directory
        self.location = location
        self.faults = faults or UploadFaults()
        self.received = 0  # bytes of bodies of uploads
        self._subjects = subjects
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
        """The file of a blob that was pushed to this repository; to any, without a name."""
        there = (name, digest) in self._blobs if name else any(each == digest for _, each in self._blobs)
        return self._file(digest) if there else None

    def _file(self, digest: str) -> Path:
        return self.directory / digest.replace(":", "-")

    def answer(
        self, request: Request, origin: str, has: Callable[[str, str], bool], reads: Callable[[str], bool]
    ) -> Answer:
        """Write what a request wants to write, or say how far an upload is.

        Args:
            origin: the address that uploads get, ``http://HOST:PORT``.
            has: whether a repository has a blob or manifest, for what a manifest names.
            reads: whether who asks may read a repository.
        """
        if match := _UPLOAD.fullmatch(request.path):
            if request.method == "POST" and not match["upload"]:
                return self._begin(request, match["name"], origin, reads)
            return self._go_on(request, match["name"], match["upload"], origin)
        match = _MANIFEST.fullmatch(request.path)
        if match and request.method == "PUT":
            return self._put_manifest(request, match["name"], match["reference"], has)
        if match and request.method == "DELETE":
            return self._delete(match["name"], match["reference"])
        return refusal(405, "UNSUPPORTED", "no such endpoint")

    def intake(self, head: Request) -> Intake | None:
        """Who takes the bytes of an upload as they come; None when they are refused."""
        match = _UPLOAD.fullmatch(head.path)
        if match is None or head.method not in ("PATCH", "PUT") or self._refused(head, match["name"], match["upload"]):
            return None
        path, faults = self.directory / match["upload"], self.faults

        async def take(data: bytes) -> None:
            if faults.pause_s:
                await asyncio.sleep(faults.pause_s)
            size = path.stat().st_size
            cut = next((at for at in faults.cuts if size < at <= size + len(data)), None)
            data = data if cut is None else data[: cut - size]
            self.received += len(data)
            with path.open("ab") as file:
                file.write(data)
            if cut is not None:
                faults.cuts.remove(cut)
                if not faults.keeps:
                    del self._open[match["upload"]]
                raise ConnectionAbortedError

        return take

    def _begin(self, request: Request, name: str, origin: str, reads: Callable[[str], bool]) -> Answer:
        digest, source = (request.query.get(field, [""])[0] for field in ("mount", "from"))
        if digest and self.faults.mounts == "refused":
            return refusal(403, "DENIED", "nothing is mounted here")
        if digest and self.faults.mounts and (source, digest) in self._blobs and reads(source):
            self._blobs.add((name, digest))
            return Answer(201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})
        upload = secrets.token_hex(8)
        self._open[upload] = name
        (self.directory / upload).touch()
        return self._accepted(name, upload, origin, 0)

    def _accepted(self, name: str, upload: str, origin: str, size: int, status: int = 202) -> Answer:
        place = f"/v2/{name}/blobs/uploads/{upload}?_state=a%2Fb%3D"
        at = place if self.location == "relative" else f"{origin}{place}"
        least = {"OCI-Chunk-Min-Length": str(self.faults.least_chunk)} if self.faults.least_chunk else {}
        return Answer(status, {"Location": at, "Range": f"0-{max(0, size - 1)}", **least})

    def _refused(self, request: Request, name: str, upload: str) -> Answer | None:
        """Why an upload takes nothing of a request."""
        if self._open.get(upload) != name or request.query.get("_state") != ["a/b="]:
            return refusal(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        length, faults = int(request.headers.get("content-length", "0")), self.faults
        if request.method in ("PATCH", "PUT") and length and faults.loses:
            faults.loses -= 1
            del self._open[upload]
            return refusal(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if request.method not in ("GET", "PUT", *(["PATCH"] if faults.chunks else [])):
            return refusal(405, "UNSUPPORTED", "no such endpoint")
        if faults.largest and length > faults.largest:
            return refusal(413, "SIZE_INVALID", "a request may not be so large")
        wanted = request.headers.get("content-range", "")
        size = (self.directory / upload).stat().st_size
        if request.method != "GET" and wanted and wanted != f"{size}-{size + length - 1}":
            return refusal(416, "BLOB_UPLOAD_INVALID", "not what comes next")
        return None

    def _go_on(self, request: Request, name: str, upload: str, origin: str) -> Answer:
        if not request.taken and (refused := self._refused(request, name, upload)) is not None:
            return refused
        path = self.directory / upload
        if request.method == "GET":
            return self._accepted(name, upload, origin, path.stat().st_size, 204)
        if not request.taken:
            _append(request, path)
        if request.method == "PATCH":
            return self._accepted(name, upload, origin, path.stat().st_size)
        del self._open[upload]
        digest = request.query.get("digest", [""])[0]
        if _digest_of(path, digest.partition(":")[0]) != digest:
            path.unlink()
            return refusal(400, "DIGEST_INVALID", "the bytes have another digest")
        self._damage(path)
        path.replace(self._file(digest))
        if self.faults.holds != "nothing":
            self._blobs.add((name, digest))
        return Answer(201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})

    def _damage(self, path: Path) -> None:
        if self.faults.holds == "less":
            os.truncate(path, max(0, path.stat().st_size - 1))
        elif self.faults.holds == "other":
            path.write_bytes(bytes(path.stat().st_size + 1))

    def _delete(self, name: str, reference: str) -> Answer:
        deletes = self.faults.deletes
        if deletes == "nothing" or (deletes == "by digest" and ":" not in reference):
            return refusal(405, "UNSUPPORTED", "nothing is deleted so")
        found = self._manifests.get((name, reference))
        if found is None:
            return refusal(404, "MANIFEST_UNKNOWN", "no such manifest")
        gone = [key for key, document in self._manifests.items() if key[0] == name and document.digest == reference]
        for key in gone or [(name, reference)]:
            del self._manifests[key]
        return Answer(202, {})

    def _put_manifest(self, request: Request, name: str, reference: str, has: Callable[[str, str], bool]) -> Answer:
        media_type, algorithm = request.headers.get("content-type", ""), reference.rpartition(":")[0]
        if algorithm and algorithm not in HEX_DIGITS:
            return refusal(400, "DIGEST_INVALID", "no algorithm of this registry")
        digest = str(Digest.of(request.body, algorithm or "sha256"))
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
        answer = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        subject = subject_of(request.body) if self._subjects else None
        return Answer(201, answer | ({} if subject is None else {"OCI-Subject": str(subject)}))


def _append(request: Request, path: Path) -> None:
    with path.open("ab") as file:
        if request.file is None:
            file.write(request.body)
            return
        with request.file.open("rb") as source:
            while piece := source.read(_PIECE):
                file.write(piece)


def _digest_of(path: Path, algorithm: str) -> str:
    if algorithm not in HEX_DIGITS:
        return ""
    state = hashlib.new(algorithm)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            state.update(piece)
    return f"{algorithm}:{state.hexdigest()}"
