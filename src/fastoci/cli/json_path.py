"""Choose of a JSON value by a path: ``config.Env[0]``, ``layers[*].digest``, ``annotations['org.example/a.b']``.

Spec: RFC 9535, of which it has names, indexes and ``*``; ``$`` in front may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_NAMED: Final = 16  # fields in a message
_SHOWN: Final = 60  # characters of the name of one
_STEP: Final = re.compile(
    r"\[(?P<index>-?[0-9]{1,9})\]"
    r"|\[(?P<all>\*)\]|\.(?P<every>\*)"
    r"|\['(?P<single>[^']*)'\]|\[\"(?P<double>[^\"]*)\"\]"
    r"|\.(?P<name>[^.\[\]'\"*\s]+)"
)

Step = str | int | None  # a name, an index, or all that there is


class PathError(ValueError):
    """A text is not a path, or leads to nothing; the message says where."""


def parse(text: str) -> tuple[Step, ...]:
    """Read a path.

    Raises:
        PathError: it is none; the message says from which character on.
    """
    begin = text.startswith("$")
    rest = text[1:] if begin else text if text.startswith(("[", ".")) else f".{text}"
    steps: list[Step] = []
    at = 0
    while at < len(rest):
        match = _STEP.match(rest, at)
        if match is None:
            where = at + len(text) - len(rest)
            raise PathError(f"{text!r} is not a path, from character {max(where, 0) + 1} on: {rest[at:]!r}")
        found = match.groupdict()
        steps.append(
            int(found["index"])
            if found["index"] is not None
            else next((found[name] for name in ("single", "double", "name") if found[name] is not None), None)
        )
        at = match.end()
    if not steps and not begin:
        raise PathError("an empty path leads to nothing: $ is the whole")
    return tuple(steps)


def select(value: object, text: str) -> Iterator[object]:
    """All that a path leads to in a value, in its order.

    Raises:
        PathError: the text is not a path; or what it names is not there, or not of that kind.
    """
    found: list[tuple[str, object]] = [("$", value)]
    for step in parse(text):
        found = [each for path, inner in found for each in _step(path, inner, step)]
    return (inner for _, inner in found)


def _step(path: str, value: object, step: Step) -> Iterator[tuple[str, object]]:
    if step is None:
        if isinstance(value, dict):
            yield from ((f"{path}[{name!r}]", inner) for name, inner in value.items())
        elif isinstance(value, list):
            yield from ((f"{path}[{number}]", inner) for number, inner in enumerate(value))
        else:
            raise PathError(f"{path} is {_kind(value)}: there is nothing in it")
    elif isinstance(step, int):
        if not isinstance(value, list):
            raise PathError(f"{path} is {_kind(value)}, and no array: it has no [{step}]")
        if not -len(value) <= step < len(value):
            raise PathError(f"{path} has {len(value)} elements, and no [{step}]")
        yield f"{path}[{step}]", value[step]
    else:
        if not isinstance(value, dict):
            raise PathError(f"{path} is {_kind(value)}, and no object: it has no {step!r}")
        if step not in value:
            raise PathError(f"{path} has no {step!r}{_near(step, value)}")
        yield f"{path}.{step}", value[step]


def _near(name: str, value: dict[str, object]) -> str:
    from difflib import get_close_matches  # when somebody erred

    folded = [key for key in value if key.casefold() == name.casefold()]
    near = folded or get_close_matches(name, value, n=1)
    if near:
        return f": did you mean {near[0]!r}?"
    there = [repr(key[:_SHOWN]) for key in value]
    more = ", ..." if len(there) > _NAMED else ""
    return f"; there are {', '.join(there[:_NAMED])}{more}" if there else ""


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return "a text"
    return "null" if value is None else "a number" if not isinstance(value, bool) else "a boolean"
