"""Images of a job into a namespace of containerd: its content store has their blobs, its images their names.

Numbered rules:
1. A lease comes first, and then what is there already is looked for: nothing that the job relies on is collected.
2. Blobs come as soon as the store has them; then the documents, the lowest first, with labels that keep what they name;
   names last. So whatever ends the job, no name leads to half an image.
3. What is there is as good as in the store: layers that containerd has are not fetched.

Spec: containerd ``docs/garbage-collection.md``, ``docs/content-flow.md``; Kubernetes CRI for the names in ``k8s.io``.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from fastoci.aio import wait_to_end
from fastoci.arguments import expect
from fastoci.containerd import labels, messages
from fastoci.containerd.client import Client
from fastoci.containerd.content import ContentStore, Recorded
from fastoci.containerd.images import ImageRecords
from fastoci.containerd.snapshots import Snapshots
from fastoci.errors import FastociError, StoreError
from fastoci.events import ImageRecorded, Warned
from fastoci.image import index
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.jobs.destination import Keeping
from fastoci.jobs.layers import Arriving
from fastoci.jobs.plan import Resolved
from fastoci.jobs.pull import PullContext
from fastoci.jobs.resolve import read_document
from fastoci.jobs.snapshots import Unpacking

_AT_ONCE: Final = 8  # blobs: containerd writes its database for one after the other
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_IDENTIFIER_LENGTH: Final = 76
LIST: Final = "fastoci.list/"  # and a list's name: a label of an image that the list wants
_BROUGHT: Final = "brought"  # in its value: the name came by the list
_JOINED: Final = "joined"  # or it was there before
_PINS: Final = "pinned"  # and the list pins it

Borrow = Callable[[Path], AbstractAsyncContextManager[set[Digest]]]


class Into(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace of containerd that images go into.

    ``address`` is containerd's socket. ``snapshotter`` unpacks them there, by default containerd's own default, unless
    ``unpack`` is False. ``pin`` keeps the kubelet's gc from all of them.

    Raises:
        ValueError: ``namespace`` or ``snapshotter`` is none that containerd takes; ``address`` is empty.
        TypeError: a field is of another type.
    """

    namespace: str = "default"
    address: str = "/run/containerd/containerd.sock"
    snapshotter: str = ""
    unpack: bool = True
    pin: bool = False

    def __post_init__(self) -> None:
        for field in ("namespace", "snapshotter"):
            value = expect(str, getattr(self, field), field)
            is_default = field == "snapshotter" and not value
            if not is_default and (len(value) > _IDENTIFIER_LENGTH or not _IDENTIFIER.fullmatch(value)):
                raise ValueError(f"{value[:200]!r} is no {field} of containerd: letters and digits, joined by . _ or -")
        for field in ("unpack", "pin"):
            expect(bool, getattr(self, field), field)
        if not expect(str, self.address, "address"):
            raise ValueError("an empty address is no socket")


@asynccontextmanager
async def recording(into: Into, context: PullContext, borrow: Borrow) -> AsyncIterator[Recording]:
    """Connect to containerd for one job, and keep there what it needs until it ends.

    Args:
        borrow: lets the store count blobs in a directory as its own.
    Raises:
        ContainerdError: nobody answers at the address, or it refuses.
    """
    async with AsyncExitStack() as held:
        client = await held.enter_async_context(Client.open(into.address, into.namespace))
        unpacking = Unpacking(Snapshots(client, into.snapshotter), context) if into.unpack else None
        if client.namespace_labels is None:
            context.observer(Warned("", f"containerd has no namespace {into.namespace} yet: it is made"))
        content = await held.enter_async_context(ContentStore(client))
        await held.enter_async_context(client.lease())
        borrowed: set[Digest] | None = None
        if client.server.content_root is not None:
            with suppress(StoreError):  # of another user, perhaps: then all is fetched
                borrowed = await held.enter_async_context(borrow(client.server.content_root))
        found = Recording(into, content, context, unpacking, ImageRecords(client), borrowed)
        try:
            yield found
        finally:
            await found.end()


async def held_by(into: Into, layers: Sequence[Descriptor]) -> set[Digest]:
    """The layers that containerd has, and that a job would not fetch. Nothing is recorded there.

    Raises:
        ContainerdError: nobody answers at the address.
    """
    async with Client.open(into.address, into.namespace) as client, ContentStore(client) as content:
        return {blob.digest for blob in await content.held(layers)}


class Recording:
    """``Destination`` of one job: made by ``recording``."""

    def __init__(
        self,
        into: Into,
        content: ContentStore,
        context: PullContext,
        unpacking: Unpacking | None,
        images: ImageRecords,
        borrowed: set[Digest] | None,
    ) -> None:
        self._into = into
        self._content = content
        self._unpacking = unpacking
        self._images = images
        self._context = context
        self._borrowed = borrowed
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[Digest, asyncio.Task[Recorded]] = {}
        self._sources: set[tuple[Digest, str]] = set()  # blobs, and the repositories that their labels name
        self._told: set[str] = set()

    async def end(self) -> None:
        """End what is under way."""
        tasks = [task for task in self._tasks.values() if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await wait_to_end(asyncio.wait(tasks))

    @property
    def tees(self) -> int | None:
        """How many layers are read while they arrive: ``Destination.tees``."""
        return 0 if self._unpacking is None else self._unpacking.tees

    @property
    def unpacks_at(self) -> Path | None:
        """Whose disk snapshots fill: ``Destination.unpacks_at``."""
        return None if self._unpacking is None else self._unpacking.root

    async def unpack(self, resolved: Resolved, config: ImageConfig, arriving: Arriving) -> None:
        """Have the snapshots of an image: ``Destination.unpack``."""
        if self._unpacking is not None:
            await self._unpacking.unpack(resolved, config, arriving)

    def check(self, images: Sequence[Resolved]) -> None:
        """All can be taken: ``Destination.check``."""

    async def claim(self, layers: Sequence[Descriptor]) -> None:
        """Hold the layers that are there: ``Destination.claim``."""
        if self._borrowed is None:
            return
        missing = await self._context.store.missing(layers)
        for blob in await self._content.held(missing):
            if await self._content.adopt(blob, labels.ref(blob), {}):
                self._borrowed.add(blob.digest)

    def arrived(self, blob: Descriptor, reference: Reference) -> None:
        """Record a blob meanwhile: ``Destination.arrived``."""
        if blob.digest not in self._tasks:
            self._sources.add((blob.digest, reference.name))
            task = asyncio.create_task(self._record(blob, _source(reference)))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._tasks[blob.digest] = task

    async def record(self, asked: str, images: Sequence[Resolved], keeping: Keeping) -> ImageRecorded:
        """Record an image: ``Destination.record``."""
        reference, top = images[0].reference, images[0].top
        blobs = {blob.digest: blob for each in images for blob in each.blobs}
        ways = Counter[str]()
        sent, why = 0, ""
        for recorded in await self._all(list(blobs.values()), reference):
            ways[recorded.how] += 1
            sent, why = sent + recorded.sent, why or recorded.why
        if self._unpacking is not None:
            for each in images:
                for digest, carried in (await self._unpacking.labels_of(asked, each)).items():
                    await self._content.label(digest, carried)
        for document, children in await self._documents(images, set(blobs)):
            recorded = await self._record(document, {**_source(reference), **children})
            ways[recorded.how] += 1
            sent, why = sent + recorded.sent, why or recorded.why
        names = await self._give_names(reference, top, keeping)
        event = ImageRecorded(asked, self._into.namespace, names, str(top.digest), dict(ways), sent=sent, why=why)
        self._context.observer(event)
        return event

    async def prune(self, list_name: str, wanted: Mapping[str, bool]) -> tuple[str, ...]:
        """Let go what the list does not want any more: ``Destination.prune``."""
        key = f"{LIST}{list_name}"
        records = await self._images.list()
        kept = {record.target.digest for record in records if record.name in wanted and record.target}
        gone = []
        for record in (record for record in records if key in record.labels):
            if record.name in wanted or (record.target and record.target.digest in kept):
                continue
            if _BROUGHT in record.labels[key] and not any(_others(record.labels, key)):
                await self._images.delete(record.name)
                gone.append(record.name)
            else:
                await self._images.label(record, {key: "", **_unpinned(record.labels, key)})
        return tuple(gone)

    async def _all(self, blobs: Sequence[Descriptor], reference: Reference) -> list[Recorded]:
        """Have all blobs there, with the repository among their sources."""
        for blob in blobs:
            self.arrived(blob, reference)
        tasks = [self._tasks[blob.digest] for blob in blobs]
        await asyncio.wait(tasks)
        found = [task.result() for task in tasks]
        for blob in blobs:
            if (blob.digest, reference.name) not in self._sources:
                self._sources.add((blob.digest, reference.name))
                await self._content.label(blob.digest, _source(reference))
        return found

    async def _record(self, blob: Descriptor, wanted: Mapping[str, str]) -> Recorded:
        async with self._slots:
            try:
                recorded = await self._content.record(blob, labels.ref(blob), self._context.store.open, wanted)
            except FastociError as error:
                error.blob = error.blob or str(blob.digest)
                raise
        if recorded.why and recorded.why not in self._told:
            self._told.add(recorded.why)
            self._context.observer(Warned("", f"blobs are no hard links in containerd: {recorded.why}"))
        return recorded

    async def _documents(
        self, images: Sequence[Resolved], there: set[Digest]
    ) -> list[tuple[Descriptor, dict[str, str]]]:
        """Manifests and indexes, the lowest first, each with the labels that keep its children which are there."""
        found: dict[Digest, tuple[Descriptor, dict[str, str]]] = {}
        heights = range(1, 1 + max(len(each.chain) for each in images))
        for each, height in ((each, height) for height in heights for each in images if height <= len(each.chain)):
            descriptor, raw = each.chain[-height]
            there.add(descriptor.digest)
            if descriptor.digest == each.descriptor.digest:
                children: Sequence[Descriptor] = (each.manifest.config, *each.manifest.layers)
            else:
                raw = raw or await read_document(self._context.store, descriptor, self._context.limits)
                children = index.parse(raw, descriptor.media_type, choosing=True).manifests
            found.setdefault(descriptor.digest, (descriptor, labels.children(children)))
        return [
            (descriptor, {key: digest for key, digest in kept.items() if Digest.parse(digest) in there})
            for descriptor, kept in found.values()
        ]

    def _names(self, reference: Reference, top: Descriptor) -> tuple[str, ...]:
        """The image's name; for Kubernetes also that by its digest, of which it knows the image's digest."""
        by_digest = f"{reference.name}@{top.digest}"
        wants_both = self._into.namespace == labels.CRI_NAMESPACE
        return tuple(dict.fromkeys((str(reference), by_digest) if wants_both else (str(reference),)))

    async def _give_names(self, reference: Reference, top: Descriptor, keeping: Keeping) -> tuple[str, ...]:
        """Let the image's names lead to it; what they led to before is not pinned any more."""
        names = self._names(reference, top)
        before = [await self._images.get(name) for name in names]
        known = [{} if record is None else record.labels for record in before]
        carried = {labels.CRI_PINNED: labels.PINNED} if keeping.pinned or self._into.pin else {}
        if keeping.list_name:
            key = f"{LIST}{keeping.list_name}"
            carried = carried or {name: "" for each in known for name in _unpinned(each, key)}
            # The kubelet's own pull takes labels from the first name, and not from that by the digest.
            is_brought = before[0] is None or any(_BROUGHT in each.get(key, "") for each in known)
            state = _BROUGHT if is_brought else _JOINED
            carried[key] = f"{state} {_PINS}" if keeping.pinned else state
        target = messages.Descriptor(top.media_type, str(top.digest), top.size, dict(top.annotations))
        for name, record in zip(names, before, strict=True):
            led_to = "" if record is None or record.target is None else record.target.digest
            has = {} if record is None else record.labels
            if led_to != target.digest or any(has.get(key, "") != value for key, value in carried.items()):
                await self._images.put(name, target, carried)
            if led_to not in ("", target.digest):
                await self._unpin(f"{reference.name}@{led_to}", led_to)
        return names

    async def _unpin(self, name: str, digest: str) -> None:
        """Take the pin from an image that has only its name by the digest left."""
        record = await self._images.get(name)
        if record is None or labels.CRI_PINNED not in record.labels:
            return
        others = [each.name for each in await self._images.list() if each.target and each.target.digest == digest]
        if not any(has_tag(each) for each in others):
            await self._images.label(record, {labels.CRI_PINNED: ""})


def has_tag(name: str) -> bool:
    """Whether a name of containerd's is one by a tag: the kubelet's are also by the image's digest and its config's."""
    return "@" not in name and not name.startswith("sha256:")


def _others(known: Mapping[str, str], key: str) -> list[str]:
    """What other lists say of an image."""
    return [value for each, value in known.items() if each.startswith(LIST) and each != key]


def _unpinned(known: Mapping[str, str], key: str) -> dict[str, str]:
    """What takes a list's pin away, when it had one and no other list has."""
    had = _PINS in known.get(key, "")
    return {labels.CRI_PINNED: ""} if had and not any(_PINS in value for value in _others(known, key)) else {}


def _source(reference: Reference) -> dict[str, str]:
    """The label of a blob that says where it is from."""
    host = reference.domain
    host = host[1 : host.index("]")] if host.startswith("[") else host.partition(":")[0]
    return labels.source(host, reference.path, {})
