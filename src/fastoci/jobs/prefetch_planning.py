"""From the requests of a job to one graph of unique blobs: every name is followed first, and nothing fetched.

Spec: distribution-spec v1.1, pulling manifests.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from fastoci.aio import all_or_first
from fastoci.errors import ConfigError, FastociError, ReferenceSyntaxError
from fastoci.events import ImageResolved, ImageStarted
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.platform import ALL, Platform
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.jobs.fetch_order import in_fetch_order
from fastoci.jobs.plan import Resolved, Wanted
from fastoci.jobs.prefetch_plan import PlannedImage, PrefetchPlan, RefusedImage
from fastoci.jobs.pull import PullContext, Repository, image_failed
from fastoci.jobs.resolve import resolve_all
from fastoci.lists.request import PrefetchRequest
from fastoci.store.free_space import UNLIMITED, Space

_AT_ONCE: Final = 4  # names of one registry that are followed, for each connection to it: most wait for an answer
_IN_ALL: Final = 256  # of all registries: a list may name very many
_ORIGINS: Final = 200  # characters
_MORE: Final = ", ..."
_NEVER_ASKED: Final = (ConfigError, ReferenceSyntaxError)  # what refuses a line that nobody can be asked about

Open = Callable[[Reference, str], Awaitable[Repository]]


class Followed(msgspec.Struct, frozen=True):
    """A request whose name was followed, and who has its blobs."""

    request: PrefetchRequest
    source: Repository
    resolved: tuple[tuple[Resolved, Wanted], ...]
    known: StoredImage | None  # what the store had under the name

    @property
    def blobs(self) -> set[Digest]:
        """Configs and layers: what is fetched. Documents came while the name was followed."""
        return {blob.digest for each, _ in self.resolved for blob in each.blobs}

    @property
    def is_recorded(self) -> bool:
        """Whether the store has under the name what it leads to now, and as firmly as it is wanted."""
        if self.known is None or self.known.pinned < self.request.pinned:
            return False
        held = {manifest.digest for manifest in self.known.images.values()}
        same = self.known.descriptor.digest == self.resolved[0][0].top.digest
        signed = {str(each.descriptor.digest): each.signatures for each, _ in self.resolved if each.signatures}
        same = same and signed.items() <= self.known.signatures.items()
        return same and held.issuperset(each.descriptor.digest for each, _ in self.resolved)

    @property
    def unproven(self) -> list[Descriptor]:
        """Configs that alone say whether an image is for a platform that was asked for: no index does."""
        found = [each for each, for_ in self.resolved if for_ and each.platform is None]
        return [each.manifest.config for each in found if not each.is_outline]

    @property
    def needed(self) -> dict[Digest, Descriptor]:
        """Documents and blobs, each once."""
        return {blob.digest: blob for each, _ in self.resolved for blob in (*each.documents, *each.blobs)}


def merge(requests: Sequence[PrefetchRequest]) -> tuple[list[tuple[Reference, PrefetchRequest]], list[RefusedImage]]:
    """Each image once, with all that its lines ask for; and what cannot be a reference or platform.

    The platforms of all lines are taken, the largest priority, and the pin of any.
    """
    merged: dict[Reference, PrefetchRequest] = {}
    refused: list[RefusedImage] = []
    for request in requests:
        try:
            reference = Reference.parse(request.reference)
            for platform in request.platforms:
                if platform != ALL:
                    Platform.parse(platform)
        except FastociError as error:
            # A copy has no frames, which take 2 kB each: a list may have a million such lines.
            refused.append(RefusedImage(request, copy.copy(error)))
            continue
        before = merged.get(reference)
        merged[reference] = request if before is None else _both(before, request)
    return list(merged.items()), refused


def _both(one: PrefetchRequest, other: PrefetchRequest) -> PrefetchRequest:
    platforms = one.platforms
    if one.platforms != other.platforms:
        host = (str(Platform.host()),)
        platforms = tuple(dict.fromkeys((*(one.platforms or host), *(other.platforms or host))))
    return msgspec.structs.replace(
        one,
        platforms=platforms,
        priority=max(one.priority, other.priority),
        pinned=one.pinned or other.pinned,
        origin=_origins(one.origin, other.origin),
    )


def _origins(one: str, other: str) -> str:
    """Where an image is asked for; of a list with a million equal lines the first of them."""
    if not other or one.endswith(_MORE) or other == one:
        return one
    return f"{one}{_MORE}" if len(one) > _ORIGINS else ", ".join(filter(None, (one, other)))


class Following:
    """Follows the names of one job, several of each registry at a time: a registry that is slow holds up no other."""

    def __init__(self, context: PullContext, source: Open) -> None:
        self._context = context
        self._open = source
        self._known: Mapping[str, StoredImage] = {}
        self._plain: dict[tuple[str, Digest, int], Descriptor] = {}  # one object for equal ones: images share layers

    async def follow(
        self, requests: Sequence[tuple[Reference, PrefetchRequest]]
    ) -> tuple[list[Followed], list[RefusedImage]]:
        """Follow every name; in the order of ``requests``."""
        self._known = await self._context.store.recorded([str(reference) for reference, _ in requests])
        queues: defaultdict[str, deque[int]] = defaultdict(deque)
        for number, (reference, _) in enumerate(requests):
            queues[reference.domain].append(number)
        outcomes: dict[int, Followed | RefusedImage] = {}

        in_all = asyncio.Semaphore(_IN_ALL)

        async def work(queue: deque[int]) -> None:
            while queue:
                async with in_all:
                    if queue:  # else others took the rest meanwhile
                        number = queue.popleft()
                        outcomes[number] = await self._one(*requests[number])

        at_once = _AT_ONCE * self._context.limits.connections
        await all_or_first(
            asyncio.create_task(work(queue)) for queue in queues.values() for _ in range(min(len(queue), at_once))
        )
        ordered = [outcomes[number] for number in range(len(requests))]
        return (
            [each for each in ordered if isinstance(each, Followed)],
            [each for each in ordered if isinstance(each, RefusedImage)],
        )

    async def _one(self, reference: Reference, request: PrefetchRequest) -> Followed | RefusedImage:
        context, name = self._context, request.reference
        context.observer(ImageStarted(name))
        try:
            await context.trust.admit(reference)
            source = await self._open(reference, name)
            platforms = wanted(request)
            found = await resolve_all(reference, source, platforms, context.store, context.limits, known=self._known)
            trusted = await context.trust.check(reference, [each for each, _ in found], source)
        except FastociError as error:
            error.image = error.image or name
            context.observer(image_failed(name, error))
            return RefusedImage(request, error)
        context.observer(ImageResolved(name, str(found[0][0].top.digest)))
        resolved = tuple((self._shared(each), for_) for each, (_, for_) in zip(trusted, found, strict=True))
        return Followed(request, source, resolved, self._known.get(str(reference)))

    def _shared(self, resolved: Resolved) -> Resolved:
        manifest = resolved.manifest
        config, *layers = map(self._one_object, (manifest.config, *manifest.layers))
        shared = msgspec.structs.replace(manifest, config=config, layers=tuple(layers))
        return msgspec.structs.replace(resolved, manifest=shared)

    def _one_object(self, blob: Descriptor) -> Descriptor:
        if blob.annotations or blob.urls or blob.data is not None:
            return blob
        return self._plain.setdefault((blob.media_type, blob.digest, blob.size), blob)


def wanted(request: PrefetchRequest) -> Wanted:
    """The platforms of a request, as ``resolve_all`` takes them."""
    if ALL in request.platforms:
        return ()
    return tuple(map(Platform.parse, request.platforms)) or None


def assemble(
    followed: Sequence[Followed],
    refused: Sequence[RefusedImage],
    missing: Collection[Descriptor],
    *,
    connections: int,
    free: Space,
) -> PrefetchPlan:
    """One graph out of what the names led to.

    Args:
        missing: what the store lacks of all of them, each digest once.
        connections: to one registry.
        free: of the store's file system.
    """
    lacking, counted = {blob.digest: blob for blob in missing}, set[Digest]()
    users, sizes, by_registry, documents = Counter[Digest](), dict[Digest, int](), Counter[str](), 0
    images = []
    for image in followed:
        needed = image.needed
        users.update(needed.keys())
        sizes.update((digest, blob.size) for digest, blob in needed.items())
        lacks = image.blobs & lacking.keys()
        for digest in lacks - counted:
            by_registry[image.resolved[0][0].reference.domain] += lacking[digest].size
        counted |= lacks
        documents += _asked_documents(image, lacking)
        size = sum(lacking[digest].size for digest in lacks)
        images.append(PlannedImage(image.request, tuple(each for each, _ in image.resolved), size))
    fetched = tuple(in_fetch_order(images, lacking, connections=connections))
    return PrefetchPlan(
        images=tuple(images),
        refused=tuple(refused),
        missing=fetched,
        blobs=len(sizes),
        size=sum(sizes.values()),
        shared_size=sum(sizes[digest] * (count - 1) for digest, count in users.items()),
        by_registry=dict(by_registry),
        requests=documents + sum(not isinstance(each.error, _NEVER_ASKED) for each in refused) + len(fetched),
        free_size=None if free.size == UNLIMITED else free.size,
        free_inodes=None if free.inodes == UNLIMITED else free.inodes,
        needed_inodes=len(lacking),
    )


def _asked_documents(image: Followed, lacking: Collection[Digest]) -> int:
    """Requests that it took to follow the name: one for a tag in any case, and one for each document not held."""
    first = image.resolved[0][0]
    below = {document.digest for each, _ in image.resolved for document in each.documents} - {first.top.digest}
    return (first.reference.digest is None or first.top.digest in lacking) + sum(digest in lacking for digest in below)


def needed_of(followed: Sequence[Followed]) -> list[Descriptor]:
    return list({digest: blob for image in followed for digest, blob in image.needed.items()}.values())
