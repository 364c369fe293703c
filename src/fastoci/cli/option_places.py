"""Options of a command that may stand before its name, as skopeo has them: ``fastoci --override-os linux copy ...``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

_WITH_VALUE: Final = frozenset({"--override-os", "--override-arch", "--override-variant", "--policy"})
_FLAGS: Final = frozenset({"--insecure-policy"})


def put_behind(arguments: Sequence[str], program: click.Command) -> list[str]:
    """The arguments with such options behind the command's name; whether it has them is the command's matter.

    Args:
        program: its own options may stand among them, and stay where they are.
    """
    own = {name: not each.is_flag for each in program.params if isinstance(each, click.Option) for name in each.opts}
    with_value = own | dict.fromkeys(_WITH_VALUE, True) | dict.fromkeys(_FLAGS, False)
    stay: list[str] = []
    moved: list[str] = []
    position = 0
    while position < len(arguments):
        name, equals, _ = arguments[position].partition("=")
        if name not in with_value:
            break
        count = 2 if with_value[name] and not equals else 1
        (stay if name in own else moved).extend(arguments[position : position + count])
        position += count
    return [*stay, *arguments[position : position + 1], *moved, *arguments[position + 1 :]]
