"""The rules of a list that choose tags become requests, when the registries have told their tags."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, get_args

from fastoci.aio import all_or_first
from fastoci.arguments import several
from fastoci.errors import ConfigError, FastociError, NotFoundError, ReferenceSyntaxError
from fastoci.image.reference import Reference
from fastoci.jobs.prefetch_plan import RefusedImage
from fastoci.lists.request import Entry, ListProblem, PrefetchRequest, TagQuery

_AT_ONCE: Final = 8  # repositories of one registry that are asked for their tags

ListTags = Callable[[str], Awaitable[Sequence[str]]]


async def expand(entries: Sequence[Entry], tags: ListTags) -> tuple[list[PrefetchRequest], list[RefusedImage]]:
    """All requests of a job, each at the place of what asks for it; and what cannot be a request.

    Args:
        tags: lists those of a repository; each is asked about once.
    Raises:
        TypeError: something of another type is among them.
    """
    queries = [entry for entry in several(entries, *get_args(Entry)) if isinstance(entry, TagQuery)]
    found = await _chosen(queries, tags) if queries else {}
    requests: list[PrefetchRequest] = []
    refused: list[RefusedImage] = []
    for entry in entries:
        if isinstance(entry, PrefetchRequest):
            requests.append(entry)
        elif isinstance(entry, ListProblem):
            refused.append(RefusedImage(PrefetchRequest("", origin=entry.origin), ConfigError(entry.message)))
        elif isinstance(outcome := found[entry], FastociError):
            refused.append(RefusedImage(PrefetchRequest(entry.repository, origin=entry.origin), outcome))
        else:
            requests += map(entry.request, outcome)
    return requests, refused


async def _chosen(queries: Sequence[TagQuery], tags: ListTags) -> dict[TagQuery, list[str] | FastociError]:
    """The tags of each query, or why it has none."""
    of_repository: defaultdict[str, list[TagQuery]] = defaultdict(list)
    for query in queries:
        of_repository[query.repository].append(query)
    found: dict[TagQuery, list[str] | FastociError] = {}
    at_once: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))

    async def ask(repository: str, asked: list[TagQuery]) -> None:
        try:
            reference = Reference.parse(repository)
            if reference.digest is not None or (reference.tag is not None and repository.endswith(f":{reference.tag}")):
                raise ReferenceSyntaxError(f"{repository}: a rule chooses the tags, so the name has none")
            async with at_once[reference.domain]:
                named = await tags(repository)
        except FastociError as error:
            found.update(dict.fromkeys(asked, error))
            return
        for query in asked:
            found[query] = await _choose(query, named)

    await all_or_first(asyncio.create_task(ask(*each)) for each in of_repository.items())
    return found


async def _choose(query: TagQuery, tags: Sequence[str]) -> list[str] | FastociError:
    from fastoci.lists.tag_rules import chosen  # which plain lists do not need

    try:
        matching = await asyncio.to_thread(chosen, query, tags)  # a million tags take seconds
    except ValueError as error:
        return ConfigError(str(error))
    if not matching:
        rule = f" of {query.text!r}" if query.text else ""
        return NotFoundError(f"none of the {len(tags)} tags is one{rule}", url="")
    return matching
