"""One repository as a source of images and blobs: manifests by name or digest, blobs as spans in order.

It knows the paths of the distribution API and what an answer must look like; it knows nothing of logins and
connections. Blobs are not verified here; manifests are, because they come whole.

Spec: distribution-spec v1.1, pulling manifests and blobs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Final

from fastoci._core import Span
from fastoci.errors import DigestMismatchError, FormatError, TransportError, UnsupportedError
from fastoci.image import manifest, mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.interfaces import SpanSource
from fastoci.registry import ranges
from fastoci.registry.body import pour, wrong_length
from fastoci.registry.refusals import refusal
from fastoci.registry.transport import Reply

_ACCEPT: Final = ", ".join(mediatype.ACCEPT)
# What servers say that do not know the type: the body decides.
_GENERIC: Final = frozenset({"", "application/json", "application/octet-stream", "binary/octet-stream"})

Ask = Callable[[str, Mapping[str, str]], Awaitable[Reply]]  # a path below /v2/<repository>/, and headers


class Repository:
    """One repository of a registry: an ``ImageSource`` and a ``BlobSource``.

    Args:
        ask: sends an authorized GET.
        manifest_size: bytes of one manifest or index, at most.
    """

    def __init__(self, ask: Ask, reference: Reference, *, manifest_size: int) -> None:
        self._ask = ask
        self._reference = reference
        self._manifest_size = manifest_size

    @property
    def name(self) -> str:
        """``domain/path``."""
        return self._reference.name

    async def resolve(self, reference: Reference) -> tuple[Descriptor, bytes]:
        """The manifest or index that the reference's digest, else its tag, names, as served.

        Raises:
            DigestMismatchError: the bytes are not those of the reference's digest.
            FormatError: the answer is no manifest, or too large.
            UnsupportedError: it is Docker's schema 1.
            NotFoundError, RegistryError, TransportError: it cannot be had.
        """
        limit = self._manifest_size
        reply, data = await self._manifest(reference.target, limit)
        if len(data) > limit:
            raise FormatError(f"{reply.url}: the manifest is larger than {limit} bytes")
        media_type = _media_type(reply, data)
        if media_type in mediatype.SCHEMA1:
            raise UnsupportedError(f"{reply.url}: Docker manifest schema 1, an old form that is not pulled")
        digest = reference.digest or Digest.of(data)
        _check(digest, data)
        return Descriptor(media_type=media_type, digest=digest, size=len(data)), data

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index, verified against its descriptor.

        Raises:
            SizeMismatchError, DigestMismatchError: other bytes.
            FormatError: the descriptor promises more than is read of a manifest.
            NotFoundError, RegistryError, TransportError: it cannot be had.
        """
        limit = self._manifest_size
        if descriptor.size > limit:
            raise FormatError(f"{descriptor.digest}: a manifest of {descriptor.size} bytes, more than {limit}")
        carried = _carried(descriptor)
        if carried is not None:
            return carried
        _, data = await self._manifest(str(descriptor.digest), descriptor.size)
        if len(data) != descriptor.size:
            raise wrong_length(descriptor, len(data))
        _check(descriptor.digest, data)
        return data

    async def fetch(self, blob: Descriptor, offset: int, spans: SpanSource) -> AsyncGenerator[Span, None]:
        """Yield the blob's bytes from ``offset`` on, as ``BlobSource`` says; what arrived before a cut comes first.

        Bytes that the descriptor itself carries, and that hold, are used without a request.
        """
        if not 0 <= offset <= blob.size:
            raise ValueError(f"offset {offset} of a blob of {blob.size} bytes")
        if offset == blob.size:
            return
        carried = _carried(blob)
        if carried is not None:
            while offset < blob.size:
                span = await spans.take()
                offset += span.append(carried, offset)
                yield span
            return
        reply, skip = await self._open(blob, offset)
        async with aclosing(pour(reply, blob, skip=skip, left=blob.size - offset, spans=spans)) as body:
            async for span in body:
                yield span

    async def _manifest(self, target: str, limit: int) -> tuple[Reply, bytes]:
        """Up to ``limit`` + 1 bytes of a manifest; the reply is closed."""
        reply = await self._ask(f"manifests/{target}", {"Accept": _ACCEPT})
        try:
            if reply.status != 200:
                raise await refusal(reply)
            _check_identity(reply)
            return reply, await reply.read(limit)
        finally:
            reply.close()

    async def _open(self, blob: Descriptor, offset: int) -> tuple[Reply, int]:
        """A reply that holds the blob from ``offset`` on, after bytes to skip."""
        path = f"blobs/{blob.digest}"
        if offset:
            reply = await self._ask(path, {"Range": f"bytes={offset}-{blob.size - 1}"})
            if reply.status == 206 and _is_rest(reply, blob, offset):
                return await _checked(reply, blob, 206, blob.size - offset), 0
            if reply.status not in (206, 416):
                return await _checked(reply, blob, 200, blob.size), offset
            # A range that was not asked for, or none: the whole body tells what the registry has.
            reply.close()
        return await _checked(await self._ask(path, {}), blob, 200, blob.size), offset


async def _checked(reply: Reply, blob: Descriptor, status: int, length: int) -> Reply:
    """The reply, if its status and headers promise ``length`` plain bytes; else it is closed."""
    try:
        if reply.status != status:
            raise await refusal(reply)
        _check_identity(reply)
        if reply.length not in (None, length):
            raise wrong_length(blob, blob.size - length + (reply.length or 0))
    except BaseException:
        reply.close()
        raise
    return reply


def _is_rest(reply: Reply, blob: Descriptor, offset: int) -> bool:
    found = ranges.parse(reply.header("Content-Range"))
    return (
        found is not None and (found.first, found.last) == (offset, blob.size - 1) and found.total in (None, blob.size)
    )


def _check_identity(reply: Reply) -> None:
    encoding = reply.header("Content-Encoding").strip().lower()
    if encoding not in ("", "identity"):
        raise TransportError(
            f"{reply.url}: the server encodes the body ({encoding[:40]!r}), though identity was asked for",
            url=reply.url,
        )


def _media_type(reply: Reply, data: bytes) -> str:
    media_type = reply.header("Content-Type").partition(";")[0].strip().lower()
    if media_type in _GENERIC or media_type.startswith("text/"):
        try:
            return manifest.sniff(data)
        except FormatError as error:
            raise FormatError(f"{reply.url}: {error}") from error
    return media_type


def _check(digest: Digest, data: bytes) -> None:
    actual = Digest.of(data, digest.algorithm)
    if actual != digest:
        raise DigestMismatchError(
            f"expected {digest}, the {len(data)} bytes received are {actual}",
            subject=str(digest),
            expected=str(digest),
            actual=str(actual),
        )


def _carried(blob: Descriptor) -> bytes | None:
    """The bytes that a descriptor carries, when they are the ones it promises."""
    data = blob.data
    if data is None or len(data) != blob.size or Digest.of(data, blob.digest.algorithm) != blob.digest:
        return None
    return data
