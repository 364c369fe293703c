"""Rules that choose tags: each repository is asked once, and what chooses nothing is told.

Covers: jobs/tag_queries.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from fastoci.errors import ConfigError, NotFoundError, ReferenceSyntaxError, TimedOutError
from fastoci.jobs.tag_queries import expand
from fastoci.lists.request import Entry, ListProblem, PrefetchRequest, TagQuery

TAGS = {"r.example/a": ["1.0.0", "1.1.0", "2.0.0", "latest", "2.1.0-rc1"], "r.example/b": ["x"], "r.example/c": []}


class Registry:
    """Tells the tags of repositories, and notes who was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def tags(self, repository: str) -> Sequence[str]:
        self.asked.append(repository)
        await asyncio.sleep(0)
        if repository == "r.example/slow":
            raise TimedOutError("no answer", url="https://r.example/v2/")
        return TAGS[repository]


async def test_what_rules_choose_comes_in_the_place_of_the_rule_and_each_repository_is_asked_once() -> None:
    registry = Registry()
    entries: list[Entry] = [
        PrefetchRequest("first"),
        TagQuery("r.example/a", "semver", ">=1.1.0", origin="l:2", platforms=("linux",), priority=3, rootfs="/t/a"),
        PrefetchRequest("second"),
        TagQuery("r.example/a", "regex", "^l", pinned=True),
        TagQuery("r.example/b", "all"),
    ]
    requests, refused = await expand(entries, registry.tags)
    assert refused == []
    assert requests == [
        PrefetchRequest("first"),
        PrefetchRequest("r.example/a:1.1.0", ("linux",), 3, rootfs="/t/a:1.1.0", origin="l:2"),
        PrefetchRequest("r.example/a:2.0.0", ("linux",), 3, rootfs="/t/a:2.0.0", origin="l:2"),
        PrefetchRequest("second"),
        PrefetchRequest("r.example/a:latest", pinned=True),
        PrefetchRequest("r.example/b:x"),
    ]
    assert sorted(registry.asked) == ["r.example/a", "r.example/b"]


@pytest.mark.parametrize(
    ("query", "kind", "message"),
    [
        (TagQuery("r.example/a", "semver", "^3"), NotFoundError, "none of the 5 tags is one of '^3'"),
        (TagQuery("r.example/c", "all"), NotFoundError, "none of the 0 tags is one"),
        (TagQuery("r.example/slow", "all"), TimedOutError, "no answer"),
        (TagQuery("r.example/a", "regex", "("), ConfigError, "is not a regular expression"),
        (TagQuery("NOT A NAME", "all"), ReferenceSyntaxError, "NOT A NAME"),
        (TagQuery("r.example/a:1", "all"), ReferenceSyntaxError, "the name has none"),
        (TagQuery("r.example/a@sha256:" + "0" * 64, "all"), ReferenceSyntaxError, "the name has none"),
    ],
)
async def test_a_rule_that_brings_nothing_is_refused_with_its_line(
    query: TagQuery, kind: type[Exception], message: str
) -> None:
    requests, [refused] = await expand([replace(query, origin="l:7"), PrefetchRequest("x")], Registry().tags)
    assert requests == [PrefetchRequest("x")]
    assert refused.request.origin == "l:7"
    assert type(refused.error) is kind
    assert message in str(refused.error)


async def test_a_problem_of_a_list_is_an_image_that_cannot_come() -> None:
    requests, [refused] = await expand([ListProblem("l:3", "what is this")], Registry().tags)
    assert requests == []
    assert refused.request == PrefetchRequest("", origin="l:3")
    assert (str(refused.error), refused.error.exit_code) == ("what is this", 2)
