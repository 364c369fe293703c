"""A real registry on a free port of 127.0.0.1, with a log of what it was asked; it takes pushes when told where to.

``python -m fastoci.testing.registry LAYOUT`` serves an OCI image layout until interrupted. It verifies nothing, so that
wrong content can be served on purpose; what is pushed it verifies (``uploads``). Spec: distribution-spec v1.1
"Pulling".
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import index as index_documents
from fastoci.image import manifest as manifest_documents
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.layout import REF_NAME
from fastoci.server.http import Listener, Peer, Request, bind
from fastoci.server.pull_api import Answer, Content, Document, Reader, refusal, repository, send
from fastoci.testing.auth import Basic, Bearer, Cdn, Gate
from fastoci.testing.images import Artifact, Image, Index
from fastoci.testing.referrers import referrers
from fastoci.testing.uploads import Uploads, upload_repository

_HOST, _CDN_HOST = "127.0.0.1", "127.0.0.2"


@dataclass(frozen=True, slots=True)
class Record:
    """One request, as it was answered."""

    method: str
    path: str  # with the query
    range: str  # the header, empty without one
    status: int
    authorization: str  # "Basic", "Bearer" or empty
    host: str = "registry"  # or "cdn"


class Registry:
    """A registry for tests: ``async with Registry() as registry``. Content may be added at any time.

    ``log`` has a ``Record`` for each request, written before the body is sent.
    """

    def __init__(
        self,
        auth: Basic | Bearer | None = None,
        *,
        cdn: Cdn | None = None,
        tls: ssl.SSLContext | None = None,
        uploads: Uploads | None = None,
        referrers: bool = True,
    ) -> None:
        """A registry that is not served yet.

        Args:
            cdn: answer requests for blobs by redirects to signed addresses on a second host, 127.0.0.2.
            tls: serve https by this context, whose certificate is for 127.0.0.1 and 127.0.0.2.
            uploads: where what is pushed goes; without it the registry is read-only.
            referrers: list what hangs on a manifest; False: as registries before OCI 1.1.
        """
        self.log: list[Record] = []
        self.address = ""
        self.cdn_address = ""
        self._scheme = "http" if tls is None else "https"
        self._tls = tls
        self._gate = Gate(auth)
        self._cdn = cdn
        self._uploads = uploads
        self._referrers = referrers
        self._manifests: dict[tuple[str, str], Document] = {}
        self._blobs: dict[str, Content] = {}
        self._reader = Reader(self)
        self._listeners: list[Listener] = []

    def add_image(self, name: str, tag: str, image: Image | Index | Artifact) -> None:
        """Serve the image as ``name:tag`` and by the digests of its manifests; without a tag by these alone."""
        for descriptor, data in image.documents():
            self.add_manifest(name, str(descriptor.digest), descriptor.media_type, data)
        top, data = list(image.documents())[-1]
        self.add_manifest(name, tag or str(top.digest), top.media_type, data, digest=str(top.digest))
        for blob, content in image.blobs():
            self.add_blob(str(blob.digest), content)

    def add_manifest(self, name: str, reference: str, media_type: str, data: bytes, *, digest: str = "") -> None:
        """Serve these bytes under a tag or digest; ``digest`` is what Docker-Content-Digest says."""
        self._manifests[name, reference] = Document(media_type, digest or reference, data)

    def add_blob(self, digest: str, content: Content) -> None:
        """Serve these bytes, or this file, under a digest in all repositories."""
        self._blobs[digest] = content

    def remove_blob(self, digest: str) -> None:
        """Forget a blob."""
        del self._blobs[digest]

    def add_layout(self, directory: Path) -> list[str]:
        """Serve the images of an OCI layout by their names, and return these; ``name`` is served as ``name:latest``."""
        added = []
        for entry in index_documents.parse((directory / "index.json").read_bytes(), mediatype.OCI_INDEX).manifests:
            name, tag = _name(entry.annotations.get(REF_NAME, ""))
            if name:
                self._add_document(directory, name, tag, entry)
                added.append(f"{name}:{tag}")
        return added

    def _add_document(self, directory: Path, name: str, reference: str, descriptor: Descriptor) -> None:
        media_type = descriptor.media_type
        path = directory / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex
        if not path.is_file():  # a layout may lack objects
            return
        if media_type not in mediatype.MANIFESTS | mediatype.INDEXES:
            self.add_blob(str(descriptor.digest), path)
            return
        data = path.read_bytes()
        for target in (reference, str(descriptor.digest)):
            self.add_manifest(name, target, media_type, data, digest=str(descriptor.digest))
        for child in _children(data, media_type):
            self._add_document(directory, name, str(child.digest), child)

    @property
    def secrets(self) -> set[str]:
        """Passwords, tokens and signatures: what must appear in no output, and at no other host."""
        return self._gate.secrets | (self._cdn.secrets if self._cdn is not None else set())

    def token(self, name: str) -> str:
        """A token to pull from a repository, as ``/token`` gives it."""
        return self._gate.issue([f"repository:{name}:pull"])

    async def manifest(self, name: str, reference: str) -> Document | None:
        """The manifest that repository ``name`` has under a tag or digest."""
        pushed = None if self._uploads is None else self._uploads.manifest(name, reference)
        return pushed or self._manifests.get((name, reference))

    async def blob(self, name: str, digest: str) -> Content | None:
        """The blob with this digest, whatever the repository; one that was pushed in its own only, or for the CDN."""
        pushed = None if self._uploads is None else self._uploads.blob(name, digest)
        return self._blobs.get(digest) if pushed is None else pushed

    async def tags(self, name: str) -> list[str] | None:
        """The tags of a repository, in the order in which they were added; None where it has no manifest."""
        references = [reference for of, reference in self._manifests if of == name]
        references += () if self._uploads is None else self._uploads.references(name)
        return [reference for reference in references if ":" not in reference] if references else None

    def _documents(self, name: str) -> Iterator[Document]:
        """All manifests and indexes of a repository."""
        yield from (document for (of, _), document in self._manifests.items() if of == name)
        if self._uploads is not None:
            yield from self._uploads.documents(name)

    async def __aenter__(self) -> Self:
        self.address = await self._serve(_HOST, "registry")
        if self._cdn is not None or (self._uploads is not None and self._uploads.location == "elsewhere"):
            self.cdn_address = await self._serve(_CDN_HOST, "cdn")
        return self

    async def _serve(self, address: str, host: str) -> str:
        async def handle(request: Request, peer: Peer) -> bool:
            answer = await self.answer(request, host)
            kind = request.headers.get("authorization", "").partition(" ")[0].capitalize()
            wanted = request.headers.get("range", "")
            self.log.append(Record(request.method, request.target, wanted, answer.status, kind, host))
            return await send(request.method, answer, peer)

        uploads = self._uploads
        spool = None if uploads is None else uploads.directory
        intake = None if uploads is None or not (self._gate.open or host == "cdn") else uploads.intake
        listener = Listener(handle, spool=spool, intake=intake)
        bound = bind(address)
        self._listeners.append(listener)
        await listener.start(bound, self._tls)
        return f"{address}:{bound.getsockname()[1]}"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            await listener.aclose()
        failures = [failure for listener in self._listeners for failure in listener.failures]
        self._listeners.clear()
        if failures and error is None:
            raise failures[0]

    async def read(self, request: Request) -> Answer:
        """The answer to who may read, by no redirect: what a mirror says."""
        above, _, subject = request.path.rpartition("/")
        if self._referrers and above.endswith("/referrers") and request.method == "GET":
            return referrers(request, subject, self._documents(repository(request.path)))
        return await self._reader.answer(request.method, request.path, request.headers.get("range", ""))

    async def answer(self, request: Request, host: str) -> Answer:
        """What the registry, or its ``cdn``, says to a request."""
        wanted = request.headers.get("range", "")
        writes = request.method not in ("GET", "HEAD") or bool(upload_repository(request.path))
        if host == "cdn" and writes:
            return self._written(request)
        if host == "cdn":
            digest = request.path.removeprefix("/blobs/")
            refused = refusal(404, "UNSUPPORTED", "no content network") if self._cdn is None else None
            refused = refused or (self._cdn.refuse(request.target) if self._cdn else None)
            return refused or await self._reader.blob("", digest, wanted if request.method == "GET" else "")
        if request.path == "/token" and request.method in ("GET", "POST"):
            return self._gate.token(request)
        origin = f"{self._scheme}://{self.address}"
        name, action = upload_repository(request.path) or repository(request.path), "push" if writes else "pull"
        refused = self._gate.refuse(origin, name, request.headers.get("authorization", ""), action=action)
        answer = refused or (self._written(request) if writes else await self.read(request))
        if self._cdn is not None and answer.status in (200, 206) and "/blobs/" in request.path:
            target = self._cdn.target(request.path.rpartition("/")[2])
            return Answer(307, {"Location": f"{self._scheme}://{self.cdn_address}{target}"})
        return answer

    def _written(self, request: Request) -> Answer:
        """What the registry says to a request to write."""
        if self._uploads is None:
            return refusal(405, "UNSUPPORTED", "this registry is read-only", {"Allow": "GET, HEAD"})
        address = self.cdn_address if self._uploads.location == "elsewhere" else self.address
        origin, authorization = f"{self._scheme}://{address}", request.headers.get("authorization", "")
        return self._uploads.answer(request, origin, self._has, partial(self._gate.allows, authorization))

    def _has(self, name: str, digest: str) -> bool:
        assert self._uploads is not None
        there = (self._uploads.blob(name, digest), self._uploads.manifest(name, digest))
        return any(there) or digest in self._blobs or (name, digest) in self._manifests


def _name(annotation: str) -> tuple[str, str]:
    """Split ``[host/]name[:tag]`` into name and tag; the host is dropped, and the tag is ``latest`` without one."""
    first, slash, rest = annotation.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        annotation = rest
    annotation = annotation.partition("@")[0]
    name, colon, tag = annotation.rpartition(":")
    return (name, tag) if colon else (annotation, "latest")


def _children(data: bytes, media_type: str) -> list[Descriptor]:
    try:
        if media_type in mediatype.INDEXES:
            return list(index_documents.parse(data, media_type).manifests)
        manifest = manifest_documents.parse(data, media_type)
    except (FormatError, UnsupportedError):
        return []  # served as it is
    return [manifest.config, *manifest.layers]


@contextmanager
def serve(registry: Registry) -> Iterator[Registry]:
    """Run the registry on a thread and an event loop of its own, for callers that are not async."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fastoci.testing.registry")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(registry.__aenter__(), loop).result()
        try:
            yield registry
        finally:
            asyncio.run_coroutine_threadsafe(registry.__aexit__(None, None, None), loop).result()
            asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve an OCI layout until interrupted or terminated."""
    parser = argparse.ArgumentParser("python -m fastoci.testing.registry", description=main.__doc__)
    parser.add_argument("layout", type=Path, help="directory with oci-layout, index.json and blobs/")
    layout: Path = parser.parse_args(arguments).layout
    registry = Registry()
    try:
        names = registry.add_layout(layout)
    except (OSError, FormatError) as error:
        print(f"{layout}: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serve(registry), suppress(KeyboardInterrupt):
        print(registry.address, flush=True)
        for name in names:
            print(f"{registry.address}/{name}", flush=True)
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
