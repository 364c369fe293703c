"""Many images as one job: planned as a whole, each missing blob fetched once, each image usable as soon as it is whole.

Numbered rules:
1. One session is open from the plan to the end: what is there stays, what comes is not fetched for anybody else.
2. What comes of it is ``Running``'s: this plans, and keeps what is to be kept.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from fastoci.errors import UnsupportedError
from fastoci.events import ImagePlanned, JobDone, JobPlanned, JobStarted
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.jobs.destination import NOWHERE, IntoPodman
from fastoci.jobs.outputs import Terms
from fastoci.jobs.prefetch_plan import (
    Evicted,
    PrefetchPlan,
    PrefetchResult,
    RefusedImage,
)
from fastoci.jobs.prefetch_planning import Followed, Following, Open, assemble, merge, needed_of
from fastoci.jobs.prefetch_running import Fetcher, Running
from fastoci.jobs.pull import PullContext, image_failed
from fastoci.jobs.tag_queries import ListTags, expand
from fastoci.jobs.wanted_state import StateKeeping, WantedState
from fastoci.lists.request import Entry, PrefetchRequest
from fastoci.store.free_space import Space
from fastoci.store.lists import Lists

if TYPE_CHECKING:
    from fastoci.jobs.containerd import Into


class Prefetch:
    """Plans and executes one job.

    Args:
        source: opens the repository of a reference.
        tags: lists the tags of a repository.
        free: what the store's file system has free.
        lists: of the store.
    """

    def __init__(
        self, context: PullContext, source: Open, tags: ListTags, free: Callable[[], Space], lists: Lists
    ) -> None:
        self._context = context
        self._lists = lists
        self._source = source
        self._tags = tags
        self._free = free
        self._began = time.monotonic()
        self._began_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def plan(
        self, requests: Sequence[Entry], state: WantedState | None = None, into: Into | IntoPodman | None = None
    ) -> PrefetchPlan:
        """What the job would do. Fetches no blob, and leaves the store as it is, and containerd.

        Raises:
            StoreError: the disk refused. ContainerdError: nobody answers where images are to go.
        """
        named, lost = await expand(requests, self._tags)
        keeping = StateKeeping(self._lists, self._context.observer, state, named, lost=len(lost))
        followed, refused = await self._follow(named, lost)
        missing = await self._context.store.missing(needed_of(followed))
        if into is not None and not isinstance(into, IntoPodman):
            from fastoci.jobs.containerd import held_by  # which most jobs do not need

            layers = {
                layer.digest for image in followed for each, _ in image.resolved for layer in each.manifest.layers
            }
            held = await held_by(into, [blob for blob in missing if blob.digest in layers])
            missing = [blob for blob in missing if blob.digest not in held]
        plan = self._assemble(followed, refused, missing)
        evicted = await keeping.make_space(plan, needed_of(followed), execute=False)
        return msgspec.structs.replace(plan, pruned=await keeping.plan(), evicted=evicted)

    async def run(
        self,
        requests: Sequence[Entry],
        fetching: AbstractAsyncContextManager[Fetcher],
        state: WantedState | None,
        terms: Terms,
    ) -> PrefetchResult:
        """Plan the job, and do it.

        Args:
            fetching: is entered for as long as blobs are fetched.
        Raises:
            StoreError: the disk refused before anything was fetched.
            StoreBusyError: another job of the list is at work.
        """
        named, lost = await expand(requests, self._tags)
        keeping = StateKeeping(self._lists, self._context.observer, state, named, lost=len(lost))
        async with keeping.alone():
            followed, refused = self._taken(*await self._follow(named, lost), terms)
            needed = await self._needed(followed, terms)
            async with self._context.store.session(needed) as session:
                plan = self._assemble(followed, refused, session.missing)
                name = keeping.state.list_name
                running = Running(self._context, plan, followed, session, self._began, list_name=name, terms=terms)
                evicted = Evicted()
                if not (refused and terms.fail_fast):
                    evicted = await keeping.make_space(plan, needed, execute=True)
                    if evicted.error is None:
                        await running.run(fetching)
                    else:
                        running.refuse(evicted.error)
                images = running.outcomes(refused)
                counted = Counter(image.outcome for image in images)
                pruned = await keeping.prune(terms.into, cut_short=terms.fail_fast and counted["failed"] > 0)
        self._context.observer(JobDone(*(counted[each] for each in ("present", "fetched", "failed", "skipped"))))
        return PrefetchResult(
            pruned=pruned,
            evicted=evicted,
            images=images,
            blobs=tuple(running.blobs),
            plan=plan,
            began_at=self._began_at,
            seconds=time.monotonic() - self._began,
        )

    def _taken(
        self, followed: Sequence[Followed], refused: Sequence[RefusedImage], terms: Terms
    ) -> tuple[list[Followed], list[RefusedImage]]:
        """What there is to bring, without what cannot be taken where it is to go."""
        found, lost = [], list(refused)
        for image in followed:
            try:
                terms.into.check([each for each, _ in image.resolved])
            except UnsupportedError as error:
                self._context.observer(image_failed(image.request.reference, error))
                lost.append(RefusedImage(image.request, error))
            else:
                found.append(image)
        return found, lost

    async def _needed(self, followed: Sequence[Followed], terms: Terms) -> list[Descriptor]:
        """What must be in the store: not the blobs that layer files stand for, where these are to be enough."""
        resolved = [each for image in followed for each, _ in image.resolved]
        await terms.into.claim([layer for each in resolved for layer in each.manifest.layers])
        alone = terms.layers.only and terms.into is NOWHERE
        spared = await self._context.layering.spared(resolved) if alone else set()
        return [blob for blob in needed_of(followed) if blob.digest not in spared]

    async def _follow(
        self, requests: Sequence[PrefetchRequest], lost: Sequence[RefusedImage]
    ) -> tuple[list[Followed], list[RefusedImage]]:
        unique, malformed = merge(requests)
        errors = {each.request.subject: each.error for each in lost}
        errors |= {each.request.reference: each.error for each in malformed}
        self._context.observer(JobStarted(len({request.reference for _, request in unique} | errors.keys())))
        for name, error in errors.items():
            self._context.observer(image_failed(name, error))
        followed, refused = await Following(self._context, self._source).follow(unique)
        return followed, [*lost, *malformed, *refused]

    def _assemble(
        self, followed: Sequence[Followed], refused: Sequence[RefusedImage], missing: Sequence[Descriptor]
    ) -> PrefetchPlan:
        connections = self._context.limits.connections
        plan = assemble(followed, refused, missing, connections=connections, free=self._free())
        absent = {blob.digest for blob in missing}
        for image in followed:
            self._announce(image, absent)
        self._context.observer(JobPlanned(len(plan.images), len(plan.missing), plan.missing_size))
        return plan

    def _announce(self, image: Followed, absent: set[Digest]) -> None:
        for resolved, _ in image.resolved:
            self._context.observer(
                ImagePlanned(
                    image.request.reference,
                    digest=str(resolved.descriptor.digest),
                    platform=str(resolved.platform) if resolved.platform else "",
                    blobs=len(resolved.blobs),
                    size=sum(blob.size for blob in resolved.blobs),
                    missing={str(blob.digest): blob.size for blob in resolved.blobs if blob.digest in absent},
                )
            )
