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

from fastoci.arguments import expect, several
from fastoci.errors import FastociError, StoreError
from fastoci.events import Observer, Warned
from fastoci.image.reference import Reference
from fastoci.jobs.prefetch_plan import Pruned
from fastoci.lists.request import PrefetchRequest
from fastoci.store.gc.retention import Retention
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
    Raises:
        ValueError: ``list_name`` is not a name; ``prune`` without one.
        TypeError: a field is of another type.
    """

    list_name: str = ""
    prune: bool = False
    complete: bool = True
    allow_empty: bool = False
    gc: bool = False

    def __post_init__(self) -> None:
        if expect(str, self.list_name, "list_name") and not _NAME.fullmatch(self.list_name):
            raise ValueError(f"{self.list_name!r:.200} is no name of a list: letters, digits and ._:/@-, 128 at most")
        if self.prune and not self.list_name:
            raise ValueError("prune needs a list_name")


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
        for request in several(requests, PrefetchRequest) if state.list_name else ():
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

    async def prune(self, *, cut_short: bool) -> Pruned:
        """Give up what the list does not want any more; then delete what no image needs.

        Inside the job's session: what it brought for images that failed stays for the next run.

        Args:
            cut_short: the job ended at its first failure, and prunes nothing.
        """
        withheld = self._withheld or ("the job ended at its first failure" if self.state.prune and cut_short else "")
        pruned = Pruned(withheld=withheld)
        try:
            if self.state.prune and not withheld:
                pruned = self._told(await self._lists.leave(self.state.list_name, self._wanted))
            if self.state.gc:
                deleted = await self._lists.store.gc(await self._lists.store.plan_gc(Retention()))
                pruned = msgspec.structs.replace(pruned, deleted=deleted)
        except StoreError as error:  # the images are there all the same
            pruned = msgspec.structs.replace(pruned, error=error)
        return pruned

    def _told(self, leaving: Leaving) -> Pruned:
        for error in leaving.broken:
            self._observer(Warned("", str(error)))
        return Pruned(leaving.removed, leaving.unpinned)
