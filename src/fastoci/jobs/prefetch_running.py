"""A job of many images under way: its blobs come, each once, and each image is used as soon as it is whole.

Numbered rules:
1. Each registry has a queue of its own: one that is slow or dead holds up no other.
2. A blob that cannot be had from one repository is asked for in those of the other images that need it.
3. What fails, fails for the images that need it. The others go on, unless the first failure is to end the job.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from fastoci.aio import all_or_first
from fastoci.errors import FastociError, StoreFullError
from fastoci.events import ImageDone, ImageFailed, ImageRecorded
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import StoreSession, StoreWriter
from fastoci.jobs.destination import NOWHERE, Keeping
from fastoci.jobs.layers import Arriving
from fastoci.jobs.outputs import Making, Outputs, Terms
from fastoci.jobs.plan import PullPlan, stored_together
from fastoci.jobs.prefetch_plan import (
    BlobOutcome,
    ImageOutcome,
    Outcome,
    PrefetchPlan,
    RefusedImage,
)
from fastoci.jobs.prefetch_planning import Followed
from fastoci.jobs.pull import PullContext, Repository, image_failed
from fastoci.jobs.stored import Mending

_FINISHING: Final = 8  # images that are recorded side by side


class Fetcher(Protocol):
    """Brings the missing blobs of a job: ``Scheduler`` in this process, ``FetchProcesses`` in others."""

    async def fetch(
        self, writer: StoreWriter, blob: Descriptor, source: Repository, *, image: str = "", cached: bool = False
    ) -> bytes:
        """Bring a blob of the writer's session into the store; its first bytes, as far as they are known.

        Args:
            image: the name that it is for, which leads to the source.
            cached: it is read back soon.
        Raises:
            FastociError: the blob could not be fetched, verified or stored.
        """


class _Job:
    """One image of a job under way."""

    def __init__(self, image: Followed, missing: set[Digest]) -> None:
        self.image = image
        self.left = image.blobs & missing
        self.fetched = 0  # bytes that came for it
        self.is_over = False
        self.recorded: ImageRecorded | None = None


class Running:
    """A plan under way."""

    def __init__(
        self,
        context: PullContext,
        plan: PrefetchPlan,
        followed: Sequence[Followed],
        session: StoreSession,
        began: float,
        *,
        list_name: str,
        terms: Terms,
    ) -> None:
        self._list_name = list_name
        self._layers = terms.layers
        self._into = terms.into
        self._context = context
        self._plan = plan
        self._session = session
        self._began = began
        self._fail_fast = terms.fail_fast
        self._absent = {blob.digest for blob in session.missing}
        self._jobs = [_Job(image, self._absent) for image in followed]
        self._users: defaultdict[Digest, list[_Job]] = defaultdict(list)
        for job in self._jobs:
            for digest in job.left:
                self._users[digest].append(job)
        self._outcomes: dict[int, ImageOutcome] = {}  # by the identity of a job
        self._whole: asyncio.Queue[_Job | None] = asyncio.Queue()  # of which all blobs are there; None ends one waiter
        self.blobs: list[BlobOutcome] = []

    async def run(self, fetching: AbstractAsyncContextManager[Fetcher]) -> None:
        """Fetch, record and unpack; whatever fails is an outcome."""
        root, unpacked = self._plan.unpacking
        if root is None:
            images = [resolved for job in self._jobs for resolved, _ in job.image.resolved]
            root, unpacked = await self._context.space(Making(self._layers, into=self._into), images, self._absent)
        try:
            async with self._session.reserve(root=root, unpacked=unpacked) as writer, fetching as fetcher:
                await self._work(writer, fetcher)
        except StoreFullError as error:
            self.refuse(error)
        except asyncio.CancelledError:
            for job in self._jobs:
                if not job.is_over:
                    name = job.image.request.reference
                    self._context.observer(ImageFailed(name, "cancelled", "cancelled", None))
            raise

    def refuse(self, error: FastociError, outcome: Outcome = "failed") -> None:
        """Do no more: images that are there are there, unless files of them are wanted; the others are not."""
        for job in self._jobs:
            if job.is_over:
                continue
            if not job.left and job.image.is_recorded and not self._makes(job) and self._into is NOWHERE:
                self._end(job)
            else:
                self._fail(job, error, outcome)

    async def _work(self, writer: StoreWriter, fetcher: Fetcher) -> None:
        unproven = [job for job in self._jobs if job.image.unproven]
        first = {config.digest for job in unproven for config in job.image.unproven}

        async def fetch_all() -> None:
            missing = self._plan.missing
            await self._fetch_these(writer, fetcher, [blob for blob in missing if blob.digest in first])
            for job in unproven:
                await self._prove(writer, job)
            await self._fetch_these(writer, fetcher, [blob for blob in missing if blob.digest not in first])
            for _ in range(_FINISHING):
                self._whole.put_nowait(None)

        async def finish() -> None:
            while (job := await self._whole.get()) is not None:
                await self._finish(writer, job)

        for job in self._jobs:
            if not job.left:
                self._whole.put_nowait(job)
        await all_or_first(map(asyncio.create_task, (fetch_all(), *(finish() for _ in range(_FINISHING)))))

    async def _fetch_these(self, writer: StoreWriter, fetcher: Fetcher, blobs: Sequence[Descriptor]) -> None:
        """Fetch blobs in their order, several of each registry at a time."""
        queues: defaultdict[str, deque[Descriptor]] = defaultdict(deque)
        for blob in blobs:
            queues[self._users[blob.digest][0].image.source.name.partition("/")[0]].append(blob)

        async def fetch(queue: deque[Descriptor]) -> None:
            while queue:
                await self._fetch(writer, fetcher, queue.popleft())

        at_once = self._context.limits.connections
        await all_or_first(
            asyncio.create_task(fetch(queue)) for queue in queues.values() for _ in range(min(at_once, len(queue)))
        )

    async def _prove(self, writer: StoreWriter, job: _Job) -> None:
        """Let an image fail whose config says that it is for another platform, before its layers are fetched."""
        image, context = job.image, self._context
        try:
            for resolved, for_ in image.resolved:
                if not job.is_over and resolved.manifest.config in image.unproven:
                    plan = PullPlan(resolved, (), for_)
                    await context.checked_config(
                        writer, plan, image.source, image=image.request.reference, strict=False
                    )
        except FastociError as error:
            self._fail(job, error)

    async def _fetch(self, writer: StoreWriter, fetcher: Fetcher, blob: Descriptor) -> None:
        """Bring one blob for all images that need it, from any of their repositories; the first that is whole ends."""
        asked: set[str] = set()
        began, failed = self._now(), None
        while (job := self._next(blob, asked)) is not None:
            source = job.image.source
            asked.add(source.name)
            try:
                request = job.image.request
                head = await fetcher.fetch(writer, blob, source, image=request.reference, cached=self._makes(job))
            except FastociError as error:
                failed = error
                continue
            await self._context.layering.notice_lie(blob, head, request.reference)
            job.fetched += blob.size
            self._note(blob, source.name, began, "")
            self._came(blob)
            return
        if failed is not None:
            self._note(blob, "", began, str(failed))
            for job in self._users[blob.digest]:
                self._fail(job, failed)

    def _next(self, blob: Descriptor, asked: set[str]) -> _Job | None:
        """An image that still needs the blob, and is of a repository that was not asked for it."""
        jobs = (job for job in self._users[blob.digest] if not job.is_over and job.image.source.name not in asked)
        return next(jobs, None)

    def _came(self, blob: Descriptor) -> None:
        self._into.arrived(blob, self._users[blob.digest][0].image.resolved[0][0].reference)
        for job in self._users[blob.digest]:
            job.left.discard(blob.digest)
            if not job.left:
                self._whole.put_nowait(job)

    async def _finish(self, writer: StoreWriter, job: _Job) -> None:
        """All blobs of an image are there: unpack if asked, and give it its name. Others are fetched meanwhile."""
        if job.is_over:
            return
        try:
            async with AsyncExitStack() as kept:
                await self._complete(await self._converted(writer, job, kept), job)
            request, images = job.image.request, [resolved for resolved, _ in job.image.resolved]
            keeping = Keeping(request.pinned, self._list_name)
            job.recorded = await self._into.record(request.reference, images, keeping)
        except FastociError as error:
            self._fail(job, error)
        else:
            self._end(job)

    def _end(self, job: _Job) -> None:
        image, job.is_over = job.image, True
        top = image.resolved[0][0].top.digest
        self._context.observer(ImageDone(image.request.reference, str(top)))
        outcome: Outcome = "fetched" if image.blobs & self._absent else "present"
        self._outcomes[id(job)] = self._outcome(job, outcome)

    async def _converted(self, writer: StoreWriter, job: _Job, kept: AsyncExitStack) -> StoreWriter:
        """Have an image of Docker's schema 1 be what it becomes; who records it."""
        image, name = job.image, job.image.request.reference
        if not any(each.is_outline for each, _ in image.resolved):
            return writer
        resolved = [
            (await self._context.whole(each, image.source, image=name, kept=kept), for_)
            for each, for_ in image.resolved
        ]
        job.image = msgspec.structs.replace(image, resolved=tuple(resolved))
        session = await kept.enter_async_context(self._context.store.session(list(job.image.needed.values())))
        return await kept.enter_async_context(session.reserve())

    async def _complete(self, writer: StoreWriter, job: _Job) -> None:
        """Unpack and record an image; one that is there as it was recorded last is only used."""
        image, context = job.image, self._context
        name = image.request.reference
        if self._is_recorded(image) and not (image.needed.keys() & self._absent):
            await writer.use(str(image.resolved[0][0].reference))
            async with AsyncExitStack() as kept:
                await self._make(job, [None] * len(image.resolved), kept)
            return
        plans = [PullPlan(resolved, (), for_) for resolved, for_ in image.resolved]
        configs = [
            await context.checked_config(writer, plan, image.source, image=name, strict=self._makes(job))
            for plan in plans
        ]
        async with AsyncExitStack() as kept:
            await self._make(job, configs, kept)
            await self._record(writer, job, plans, configs)

    async def _record(
        self, writer: StoreWriter, job: _Job, plans: Sequence[PullPlan], configs: Sequence[ImageConfig | None]
    ) -> None:
        """Give an image its name."""
        request = job.image.request
        for plan in plans:
            for descriptor, raw in plan.resolved.chain:
                known = descriptor.digest in self._absent
                await self._context.keep_document(writer, descriptor, raw, request.reference, absent=known)
        stored = stored_together(plans, configs)
        lists = {self._list_name: request.pinned} if self._list_name else {}
        recorded = replace(stored, pinned=request.pinned, lists=lists, is_brought=bool(lists))
        await writer.record(replace(recorded, layers_only=self._layers.only))

    def _is_recorded(self, image: Followed) -> bool:
        """Whether an image is recorded as this job would do it."""
        if image.known is None or not image.is_recorded:
            return False
        if image.known.layers_only != self._layers.only:
            return False
        return self._list_name in image.known.lists if self._list_name else not image.known.is_brought

    def _makes(self, job: _Job) -> bool:
        """Whether anything is made of an image's layers."""
        return self._layers.form != "none" or bool(job.image.request.rootfs)

    async def _make(self, job: _Job, configs: Sequence[ImageConfig | None], kept: AsyncExitStack) -> None:
        """Make of an image's layers what is asked for; a tree of the first platform."""
        context, image = self._context, job.image
        root, name = image.request.rootfs, image.request.reference
        for (resolved, _), config in zip(image.resolved, configs, strict=True):
            outputs = Outputs(context.target(root) if root else None, None, self._layers)
            making, root = await context.making(outputs, resolved.descriptor, name), ""
            if making.reads:
                await context.make(resolved, config, making, Arriving(Mending(name, image.source)), kept)

    def _fail(self, job: _Job, error: FastociError, outcome: Outcome = "failed") -> None:
        if job.is_over:
            return
        job.is_over = True
        name = job.image.request.reference
        error = copy.copy(error)  # each image's names it
        error.image = name
        event = ImageFailed(name, error.message, "skipped", None) if outcome == "skipped" else image_failed(name, error)
        self._context.observer(event)
        self._outcomes[id(job)] = self._outcome(job, outcome, error)
        if self._fail_fast and outcome == "failed":
            for other in self._jobs:
                text = f"not fetched any more: {name} failed first"
                self._fail(other, FastociError(text), "skipped")

    def _outcome(self, job: _Job, outcome: Outcome, error: FastociError | None = None) -> ImageOutcome:
        return ImageOutcome(
            job.image.request,
            outcome,
            digest=str(job.image.resolved[0][0].top.digest),
            size=sum(blob.size for resolved, _ in job.image.resolved for blob in resolved.blobs),
            fetched=job.fetched,
            seconds=self._now(),
            error=error,
            recorded=job.recorded,
        )

    def outcomes(self, refused: Sequence[RefusedImage]) -> tuple[ImageOutcome, ...]:
        """Of all images, those that were refused last."""
        self.refuse(FastociError("not fetched: another image failed first"), "skipped")
        failed = (ImageOutcome(each.request, "failed", error=each.error) for each in refused)
        return (*(self._outcomes[id(job)] for job in self._jobs), *failed)

    def _note(self, blob: Descriptor, source: str, began: float, error: str) -> None:
        registry = source.partition("/")[0]
        self.blobs.append(BlobOutcome(str(blob.digest), blob.size, registry, began, self._now(), error))

    def _now(self) -> float:
        return time.monotonic() - self._began
