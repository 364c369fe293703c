"""The images that a namespace of containerd has: listed, and forgotten.

Spec: containerd API v1, ``services.images.v1``; Kubernetes CRI for the names in ``k8s.io``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import msgspec

from fastoci.arguments import expect
from fastoci.containerd import labels
from fastoci.containerd.client import Client
from fastoci.containerd.content import ContentStore
from fastoci.containerd.images import ImageRecords
from fastoci.containerd.messages import ImageRecord, Timestamp
from fastoci.containerd.rpc import Code
from fastoci.errors import ContainerdError, FormatError, ReferenceSyntaxError
from fastoci.image.descriptor import Descriptor
from fastoci.image.links import Link, has_links, links
from fastoci.image.reference import Reference
from fastoci.jobs.containerd import LIST, Into, has_tag
from fastoci.limits import Limits

_DOCUMENTS: Final = 1000  # of one image that are read to add it up


class ContainerdImage(msgspec.Struct, frozen=True):
    """An image in a namespace of containerd.

    ``digest`` is what its name leads to. ``size`` is the sum of its blobs and documents that are there, in bytes;
    ``is_whole``: those of at least one manifest are. ``updated_at`` is RFC 3339, UTC. A ``pinned`` one stays whatever
    the kubelet has to free. ``lists`` are those that want it.
    """

    name: str
    digest: str
    size: int
    is_whole: bool
    updated_at: str
    pinned: bool
    lists: tuple[str, ...]


class Containerd:
    """A namespace of containerd: an async context manager. ``into`` is where images go, as ``Engine.pull`` takes it.

    Raises:
        ContainerdError: on entering: nobody answers, or there is no such namespace.
    """

    def __init__(self, into: Into) -> None:
        self._into = expect(Into, into, "into")
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as held:
            client = await held.enter_async_context(Client.open(self._into.address, self._into.namespace))
            if client.namespace_labels is None:
                names = ", ".join(await client.namespaces()) or "none"
                text = f"containerd has no namespace {self._into.namespace}: it has {names}"
                raise ContainerdError(text, code=Code.NOT_FOUND, path=self._into.address)
            self._content = await held.enter_async_context(ContentStore(client))
            self._records = ImageRecords(client)
            self._held = held.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._held.aclose()

    async def images(self) -> tuple[ContainerdImage, ...]:
        """All of them, by name.

        Raises:
            ContainerdError: containerd refused, or is gone.
        """
        sizes = await self._content.sizes()
        added: dict[str, tuple[int, bool]] = {}
        found = []
        for record in sorted(await self._records.list(), key=lambda record: record.name):
            if record.target is None:
                continue
            top = Link(record.target.media_type, record.target.digest, max(0, record.target.size))
            if top.digest not in added:
                added[top.digest] = await self._add_up(top, sizes)
            found.append(_image(record, top.digest, *added[top.digest]))
        return tuple(found)

    async def held(self, layers: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
        """Those of these layers that containerd has, so that a pull into it would not fetch them.

        Raises:
            StoreError: the disk refused to tell.
        """
        return tuple(await self._content.held(layers))

    async def remove(self, reference: str) -> tuple[str, ...]:
        """Forget a name, and in ``k8s.io`` that by its digest with the last tag; the names that are gone.

        What only they needed goes with containerd's next gc.

        Args:
            reference: as ``docker pull`` takes it, or exactly as containerd has it.
        Raises:
            ContainerdError: there is none of the name; containerd refused, or is gone.
        """
        record = await self._find(reference)
        await self._records.delete(record.name)
        gone = [record.name]
        if (by_digest := await self._left_over(record)) and await self._records.delete(by_digest):
            gone.append(by_digest)
        return tuple(gone)

    async def pinned(self, reference: str) -> bool:
        """Whether an image is pinned. Raises: as ``remove``."""
        return _is_pinned((await self._find(reference)).labels)

    async def _left_over(self, record: ImageRecord) -> str:
        """The name by digest of an image whose last tag has gone; empty where others lead to it, too."""
        if self._into.namespace != labels.CRI_NAMESPACE or record.target is None or "@" in record.name:
            return ""
        digest = record.target.digest
        others = [each.name for each in await self._records.list() if each.target and each.target.digest == digest]
        if any(map(has_tag, others)):
            return ""
        with suppress(ReferenceSyntaxError):
            return f"{Reference.parse(record.name).name}@{digest}"
        return ""

    async def _find(self, reference: str) -> ImageRecord:
        names = [reference]
        with suppress(ReferenceSyntaxError):
            names.append(str(Reference.parse(reference)))
        for name in names:
            if name and (record := await self._records.get(name)) is not None:
                return record
        text = f"containerd has no image {names[-1][:300]} in the namespace {self._into.namespace}"
        raise ContainerdError(text, code=Code.NOT_FOUND, path=self._into.address)

    async def _add_up(self, top: Link, sizes: Mapping[str, int]) -> tuple[int, bool]:
        """Bytes that are there of what a name leads to, and whether those of one manifest are all."""
        queue, seen = [top], {top.digest: top.size if top.digest in sizes else 0}
        is_whole = False
        while queue and len(seen) < _DOCUMENTS:
            document = queue.pop()
            children = await self._children(document, sizes)
            for child in children:
                if child.digest not in seen:
                    seen[child.digest] = sizes.get(child.digest, 0)
                    queue += [child] if has_links(child.media_type) and child.digest in sizes else []
            leaves = not any(has_links(child.media_type) for child in children)
            is_whole = is_whole or bool(children and leaves and all(child.digest in sizes for child in children))
        return sum(seen.values()), is_whole

    async def _children(self, document: Link, sizes: Mapping[str, int]) -> Sequence[Link]:
        if document.digest not in sizes or sizes[document.digest] > Limits().manifest_size:
            return ()
        with suppress(FormatError):
            return links(await self._content.read(document.digest, Limits().manifest_size), document.media_type)
        return ()


def _image(record: ImageRecord, digest: str, size: int, is_whole: bool) -> ContainerdImage:
    lists = sorted(key.removeprefix(LIST) for key in record.labels if key.startswith(LIST))
    return ContainerdImage(
        record.name, digest, size, is_whole, _time(record.updated_at), _is_pinned(record.labels), tuple(lists)
    )


def _time(stamp: Timestamp | None) -> str:
    with suppress(OverflowError, ValueError, OSError):  # of a time that no calendar has
        return "" if stamp is None else datetime.fromtimestamp(stamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ""


def _is_pinned(carried: Mapping[str, str]) -> bool:
    return carried.get(labels.CRI_PINNED) == labels.PINNED
