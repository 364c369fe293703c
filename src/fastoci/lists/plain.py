"""Plain lists: an image a line, ``REF platform=linux/arm64,linux/amd64 priority=5 pin``, and comments from ``#`` on.

Whether a reference or a platform can be one is not checked here: who plans the job refuses it, with its line.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Final

from fastoci.lists.findings import Findings
from fastoci.lists.request import PrefetchRequest

_LINE: Final = 4096  # characters: a reference has a host, a path of 255, a tag and a digest
_SHOWN: Final = 100  # characters of a wrong word in a message
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_PRIORITY: Final = re.compile(r"-?[0-9]{1,9}")
_WORDS: Final = "platform=OS/ARCH[,OS/ARCH], priority=N and pin"


def lines(text: bytes) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers, without comments and blanks around them."""
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", newline=None), 1):
        said = (_COMMENT.sub("", line) if "#" in line else line).strip()
        if said:
            yield number, said


def read(text: bytes, found: Findings) -> None:
    """Find the image of each line.

    Args:
        text: UTF-8.
    """
    for number, line in lines(text):
        if len(line) > _LINE:
            found.problem(number, f"a line of {len(line)} characters, at most {_LINE} are allowed")
            continue
        reference, *words = line.split()
        if not words:
            found.requests.append(PrefetchRequest(reference, origin=found.origin(number)))
            continue
        try:
            platforms, priority, pinned = _options(words)
        except ValueError as error:
            found.problem(number, f"{reference[:_SHOWN]}: {error}")
            continue
        found.requests.append(PrefetchRequest(reference, platforms, priority, pinned, origin=found.origin(number)))


def _options(words: list[str]) -> tuple[tuple[str, ...], int, bool]:
    """The platforms, the priority, and whether the image is pinned.

    Raises:
        ValueError: a word is none of these, or is there twice.
    """
    platforms: tuple[str, ...] | None = None
    priority: int | None = None
    pinned = False
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("platform", "priority") and not value:
            raise ValueError(f"{name}= has no value")
        if name == "platform" and platforms is None:
            platforms = tuple(value.split(","))
        elif name == "priority" and priority is None:
            if not _PRIORITY.fullmatch(value):
                raise ValueError(f"priority={value[:_SHOWN]} is not a whole number of nine digits at most")
            priority = int(value)
        elif word == "pin" and not pinned:
            pinned = True
        elif word == "pin" or (equals and name in ("platform", "priority")):
            raise ValueError(f"{name} is there twice")
        else:
            raise ValueError(f"{word[:_SHOWN]!r} is not known: behind the image of a line are {_WORDS}")
    return platforms or (), priority or 0, pinned
