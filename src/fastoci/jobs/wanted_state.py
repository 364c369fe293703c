"""A list as the wanted state of a node: a job notes what its list wants, and at its end what the list gave up goes.

Only names decide what goes, so an image that could not be followed or fetched stays, and so does everything when the
list cannot be read whole.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from fastoci.arguments import at_least, expect, several
from fastoci.errors import ContainerdError, FastociError, StoreError
from fastoci.events import Observer, Warned
from fastoci.image.descriptor import Descriptor
from fastoci.image.reference import Reference
from fastoci.jobs.destination import Destination
from fastoci.jobs.prefetch_plan import Evicted, PrefetchPlan, Pruned
from fastoci.lists.request import PrefetchRequest
from fastoci.store.gc.retention import Retention
from fastoci.store.keep_free import Demand, make_space, plan_space
from fastoci.store.lists import Leaving, Lists

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")


class WantedState(msgspec.Struct, frozen=True, kw_only=True):
    """What a job does beside bringing its images.

    Args:
        list_name: the list that the job is of; what it brings is remembered as the list's. Letters, digits and
            ``._:/@-``.
        prune: images that earlier jobs of the list brought, and that are not asked for now, go.
        complete: the requests are all that the list says; else nothing is pruned.
        allow_empty: the list may prune all that it brought.
        gc: blobs that no image needs any more are deleted at once.
        keep_free, keep_free_percent: bytes, and percent of the store's file system: the larger stays free beside what
            the job takes. What no image needs, then images that nobody pinned and the job is not of, make way for that.
    Raises:
        ValueError: ``list_name`` is not a name; ``prune`` without one; a percentage that there is not.
        TypeError: a field is of another type.
    """

    list_name: str = ""
    prune: bool = False
    complete: bool = True
    allow_empty: bool = False
    gc: bool = False
    keep_free: int = 0
    keep_free_percent: float = 0.0

    def __post_init__(self) -> None:
        if expect(str, self.list_name, "list_name") and not _NAME.fullmatch(self.list_name):
            raise ValueError(f"{self.list_name!r:.200} is no name of a list: letters, digits and ._:/@-, 128 at most")
        for field in ("prune", "complete", "allow_empty", "gc"):
            expect(bool, getattr(self, field), field)
        if self.prune and not self.list_name:
            raise ValueError("prune needs a list_name")
        at_least(0, self.keep_free, "keep_free")
        if not 0 <= self.keep_free_percent < 100:
            raise ValueError(f"keep_free_percent: {self.keep_free_percent} is not from 0 to less than 100")

    @property
    def keeps_free(self) -> bool:
        """Whether any space has to stay free."""
        return self.keep_free > 0 or self.keep_free_percent > 0


class StateKeeping:
    """The wanted state of one job.

    Args:
        lost: how many parts of the list could not become requests.
    Raises:
        ValueError: the list is empty, and may not be.
    """

    def __init__(
        self,
        lists: Lists,
        observer: Observer,
        state: WantedState | None,
        requests: Sequence[PrefetchRequest],
        *,
        lost: int = 0,
    ) -> None:
        self.state = state = expect(WantedState, WantedState() if state is None else state, "state")
        self._lists = lists
        self._observer = observer
        self._wanted: dict[str, bool] = {}  # names of references, and whether pinned
        unreadable = 0
        for request in several(requests, PrefetchRequest) if state.list_name or state.keeps_free else ():
            try:
                name = str(Reference.parse(request.reference))
                self._wanted[name] = self._wanted.get(name, False) or request.pinned
            except FastociError:
                unreadable += 1
        if state.prune and not requests and not lost and not state.allow_empty:
            raise ValueError("an empty list would prune all that it brought: allow_empty says that this is meant")
        self._withheld = ""
        if state.prune and not state.complete:
            self._withheld = "the list could not be read whole"
        elif state.prune and lost:
            self._withheld = f"{lost} of its lines cannot be read, or choose no image"
        elif state.prune and unreadable:
            self._withheld = f"{unreadable} of its names cannot be read"

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be the only job of the list, and note what it wants of what is there.

        Raises:
            StoreBusyError: another job of the list is at work.
            StoreError: the disk refused.
        """
        if not self.state.list_name:
            yield
            return
        async with self._lists.alone(self.state.list_name):
            await self._lists.join(self.state.list_name, self._wanted)
            yield

    async def plan(self) -> Pruned:
        """What ``prune`` would do.

        Raises:
            StoreError: the disk refused.
        """
        if not self.state.prune or self._withheld:
            return Pruned(withheld=self._withheld)
        return self._told(await self._lists.leaving(self.state.list_name, self._wanted))

    async def make_space(self, plan: PrefetchPlan, needed: Sequence[Descriptor], *, execute: bool) -> Evicted:
        """Let make way what has to, so that the job fits.

        Args:
            needed: all blobs and documents of the job.
            execute: do it; otherwise say what would go.
        """
        if not self.state.keeps_free:
            return Evicted()
        root, unpacked = plan.unpacking
        try:
            prunes = self.state.prune and not self._withheld
            leaving = await self._lists.leaving(self.state.list_name, self._wanted) if prunes else Leaving()
            stay = await self._lists.names(self.state.list_name) if self._withheld else frozenset()  # perhaps wanted
            demand = Demand(
                keep_free=self.state.keep_free,
                keep_free_percent=self.state.keep_free_percent,
                missing=plan.missing,
                needed=tuple(needed),
                names=stay.union(self._wanted),
                given_up=frozenset(leaving.removed),
                root=root,
                unpacked=unpacked,
            )
            return Evicted(await (make_space if execute else plan_space)(self._lists.store, demand))
        except StoreError as error:
            return Evicted(error=error)

    async def prune(self, into: Destination, *, cut_short: bool) -> Pruned:
        """Give up what the list does not want any more, here and where the job's images go; then delete what no image
        needs.

        Inside the job's session: what it brought for images that failed stays for the next run.

        Args:
            cut_short: the job ended at its first failure, and prunes nothing.
        """
        withheld = self._withheld or ("the job ended at its first failure" if self.state.prune and cut_short else "")
        pruned = Pruned(withheld=withheld)
        try:
            if self.state.prune and not withheld:
                pruned = self._told(await self._lists.leave(self.state.list_name, self._wanted))
                gone = await into.prune(self.state.list_name, self._wanted)
                pruned = msgspec.structs.replace(pruned, in_containerd=gone)
            if self.state.gc:
                deleted = await self._lists.store.gc(await self._lists.store.plan_gc(Retention()))
                pruned = msgspec.structs.replace(pruned, deleted=deleted)
        except (ContainerdError, StoreError) as error:  # the images are there all the same
            pruned = msgspec.structs.replace(pruned, error=error)
        return pruned

    def _told(self, leaving: Leaving) -> Pruned:
        for error in leaving.broken:
            self._observer(Warned("", str(error)))
        return Pruned(leaving.removed, leaving.unpinned)
