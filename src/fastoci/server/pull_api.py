"""The read half of a registry's HTTP: what to answer to a GET or HEAD, and how to send it.

Over any ``ContentProvider``: the registry for tests and one over a store serve alike. Knows no authentication and no
writes.
Spec: distribution-spec v1.1 "Pulling" and "Listing Tags", on one page; RFC 9110 section 14 (ranges).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.client import responses
from pathlib import Path
from typing import Final, Protocol

from fastoci.server.http import Peer

Content = bytes | Path

_PATH: Final = re.compile(r"/v2/(?P<name>[a-z0-9._/-]+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<reference>[^/]+)")
_NAME: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_RANGE: Final = re.compile(r"bytes=[ \t]*(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})[ \t]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index as it is served."""

    media_type: str
    digest: str
    data: bytes


class ContentProvider(Protocol):
    """What is served: manifests by name, blobs by digest."""

    async def manifest(self, name: str, reference: str) -> Document | None:
        """The manifest that repository ``name`` has under a tag or digest."""

    async def blob(self, name: str, digest: str) -> Content | None:
        """The blob, or the regular file that holds it."""

    async def tags(self, name: str) -> list[str] | None:
        """The tags of a repository, None where there is no such repository."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response before it is sent: ``length`` bytes of ``content`` from ``start`` on."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: Content = b""
    start: int = 0
    length: int = 0


def refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    """A refusal with the error document of the distribution-spec."""
    body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, body, 0, len(body))


def repository(path: str) -> str:
    """The repository that a request path is about; empty when it is about none."""
    match = _PATH.fullmatch(path)
    return match["name"] if match else ""


class Reader:
    """Answers reads of what a provider has."""

    def __init__(self, provider: ContentProvider) -> None:
        self._provider = provider

    async def answer(self, method: str, path: str, wanted: str) -> Answer:
        """Decide what to send; ``wanted`` is the Range header, empty without one."""
        if method not in ("GET", "HEAD"):
            return refusal(405, "UNSUPPORTED", "this registry is read-only", {"Allow": "GET, HEAD"})
        if path == "/v2/":
            return Answer(200, {"Content-Type": "application/json"}, b"{}", 0, 2)
        match = _PATH.fullmatch(path)
        if match is None:
            return refusal(404, "UNSUPPORTED", "no such endpoint")
        name, reference = match["name"], match["reference"]
        if not _NAME.fullmatch(name):
            return refusal(400, "NAME_INVALID", "invalid repository name")
        if match["kind"] == "manifests":
            return await self._manifest(name, reference)
        if match["kind"] == "tags":
            return await self._tags(name, reference)
        if match["kind"] == "referrers":
            return refusal(404, "UNSUPPORTED", "no such endpoint")
        return await self.blob(name, reference, wanted if method == "GET" else "")

    async def _manifest(self, name: str, reference: str) -> Answer:
        document = await self._provider.manifest(name, reference)
        if document is None:
            return refusal(404, "MANIFEST_UNKNOWN", f"no manifest {reference} in {name}")
        headers = {"Content-Type": document.media_type, "Docker-Content-Digest": document.digest}
        return Answer(200, headers, document.data, 0, len(document.data))

    async def _tags(self, name: str, reference: str) -> Answer:
        tags = await self._provider.tags(name) if reference == "list" else None
        if tags is None:
            return refusal(404, "NAME_UNKNOWN", f"no repository {name}")
        data = json.dumps({"name": name, "tags": tags}).encode()
        return Answer(200, {"Content-Type": "application/json"}, data, 0, len(data))

    async def blob(self, name: str, digest: str, wanted: str) -> Answer:
        """Decide what to send of a blob; ``wanted`` as for ``answer``."""
        content = await self._provider.blob(name, digest)
        if content is None:
            return refusal(404, "BLOB_UNKNOWN", f"no blob {digest} in {name}")
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
        }
        part = byte_range(wanted, size)
        if part is None:
            return Answer(200, headers, content, 0, size)
        start, end = part
        if start >= end:
            return Answer(416, {**headers, "Content-Range": f"bytes */{size}"})
        return Answer(206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}, content, start, end - start)


def byte_range(wanted: str, size: int) -> tuple[int, int] | None:
    """The half-open part of ``size`` bytes that a Range header asks for.

    Returns:
        None when the header is absent, malformed, of another unit or names several parts: it is then ignored; an empty
        part when it cannot be satisfied.
    """
    match = _RANGE.fullmatch(wanted)
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        return max(0, size - int(match["last"])), size
    start = int(match["first"])
    if match["last"] and int(match["last"]) < start:
        return None
    return start, min(size, int(match["last"]) + 1) if match["last"] else size


async def send(method: str, answer: Answer, peer: Peer) -> bool:
    """Send it, and keep the connection. The body of an answer to HEAD stays here."""
    headers = {**answer.headers, "Content-Length": str(answer.length)}
    await peer.write(head(answer.status, headers.items()))
    if method != "HEAD" and answer.length:
        if isinstance(answer.content, bytes):
            await peer.write(answer.content[answer.start : answer.start + answer.length])
        else:
            await peer.write_file(answer.content, answer.start, answer.length)
    return True


def head(status: int, headers: Iterable[tuple[str, str]], *, version: str = "1.1") -> bytes:
    """The head of a response as it is on the wire."""
    reason = responses.get(status, "Unknown")
    lines = [f"HTTP/{version} {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
