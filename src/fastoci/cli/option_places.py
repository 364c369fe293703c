"""Options of a command that may stand before its name, as skopeo has them: ``fastoci --override-os linux copy ...``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_WITH_VALUE: Final = frozenset({"--override-os", "--override-arch", "--override-variant", "--policy"})
_FLAGS: Final = frozenset({"--insecure-policy"})


def put_behind(arguments: Sequence[str]) -> list[str]:
    """The arguments with such options behind the command's name; whether it has them is the command's matter."""
    moved: list[str] = []
    position = 0
    while position < len(arguments):
        name, equals, _ = arguments[position].partition("=")
        if name not in _WITH_VALUE | _FLAGS:
            break
        count = 2 if name in _WITH_VALUE and not equals else 1
        moved += arguments[position : position + count]
        position += count
    return [*arguments[position : position + 1], *moved, *arguments[position + 1 :]] if moved else list(arguments)
