"""Regular expressions that are searched in tags in a time that is bounded, whatever the expression.

All ways through an expression are followed at once, a character at a time (Thompson's construction); no way is tried
twice, as it is by those who go back. Sets of places that were met are remembered, so that most tags cost one look-up a
character. docs/decisions/0017-lists.md says why this is written here.
"""

from __future__ import annotations

from typing import Final

from fastoci.lists.expression_syntax import WORD, Chars, Choice, Edge, Part, Repeat, Sequence, parse

_SIZE: Final = 1000  # characters of an expression
_PLACES: Final = 2000  # of an expression whose repetitions are written out
_REMEMBERED: Final = 10_000  # steps
_WORK: Final = 50_000_000  # places that one expression may look at, in all tags: 17 s
_TAG: Final = 128  # characters


class Expression:
    """An expression, and what was found out about it. Used by one thread at a time.

    Raises:
        ValueError: it is no expression, or too large a one; says why.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _SIZE:
            raise ValueError(f"an expression of {len(text)} characters, at most {_SIZE} are allowed")
        try:
            self._allowed: list[int] = []  # of each place: the characters that lead on; 0: none
            self._next: list[tuple[int, ...]] = []  # the places behind it; with a character, or without
            self._edge: list[Edge | None] = []
            self._end = self._place(())
            self._start = self._build(parse(text), self._end)
        except ValueError as error:
            raise ValueError(f"{text[:100]!r} is not a regular expression: {error}") from error
        self._steps: dict[tuple[frozenset[int], int, int], tuple[frozenset[int], bool]] = {}
        self._work = 0

    def is_in(self, tag: str) -> bool:
        """Whether a part of a tag matches; a text that cannot be a tag has none.

        Raises:
            ValueError: the tags were more than this expression can be searched in.
        """
        if len(tag) > _TAG or not tag.isascii():
            return False
        places: frozenset[int] = frozenset()
        before = -1
        for after in (*tag.encode(), -1):
            key = (places, before, after)
            found = self._steps.get(key)
            if found is None:
                if len(self._steps) >= _REMEMBERED:
                    self._steps.clear()
                found = self._steps[key] = self._step(*key)
            places, matches = found
            if matches:
                return True
            before = after
        return False

    def _step(self, places: frozenset[int], before: int, after: int) -> tuple[frozenset[int], bool]:
        """Where a character leads from these places and from the start, and whether the end is there before it."""
        is_edge = _is_word(before) != _is_word(after)
        edges = {"begin": before < 0, "end": after < 0, "word": is_edge, "no word": not is_edge}
        seen, waiting = set[int](), [*places, self._start]
        reached: set[int] = set()
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            edge = self._edge[place]
            if self._allowed[place]:
                if after >= 0 and self._allowed[place] >> after & 1:
                    reached.update(self._next[place])
            elif edge is None or edges[edge.kind]:
                waiting.extend(self._next[place])
        self._work += len(seen)
        if self._work > _WORK:
            raise ValueError("too much work for these tags: write a simpler expression")
        return frozenset(reached), self._end in seen

    def _place(self, leads_to: tuple[int, ...], allowed: int = 0, edge: Edge | None = None) -> int:
        if len(self._next) >= _PLACES:
            raise ValueError(f"with its repetitions it has more than {_PLACES} places")
        self._next.append(leads_to)
        self._allowed.append(allowed)
        self._edge.append(edge)
        return len(self._next) - 1

    def _build(self, part: Part, behind: int) -> int:
        """Make the places of a part, and say which is its first; ``behind`` is what follows it."""
        if isinstance(part, Chars):
            return self._place((behind,) if part.allowed else (), part.allowed)
        if isinstance(part, Edge):
            return self._place((behind,), edge=part)
        if isinstance(part, Sequence):
            for each in reversed(part.parts):
                behind = self._build(each, behind)
            return behind
        if isinstance(part, Choice):
            return self._place(tuple(self._build(each, behind) for each in part.parts))
        return self._repeat(part, behind)

    def _repeat(self, part: Repeat, behind: int) -> int:
        first = behind
        if part.most is None:
            first = self._place(())
            self._next[first] = (self._build(part.part, first), behind)
        else:
            for _ in range(part.most - part.least):
                first = self._place((self._build(part.part, first), behind))
        for _ in range(part.least):
            first = self._build(part.part, first)
        return first


def _is_word(char: int) -> bool:
    return char >= 0 and bool(WORD >> char & 1)
