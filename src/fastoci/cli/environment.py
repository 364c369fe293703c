"""``FASTOCI_*``: a variable of the environment for each option, of whatever command. docs/configuration.md lists them.

``--max-wait`` is ``FASTOCI_MAX_WAIT``, of every command that has it. Options that may be given several times take
several values: paths with colons between them, others with blanks.
"""

from __future__ import annotations

from collections.abc import Iterator

import click


def add_to(command: click.Command) -> None:
    """Let each option of the program, or of a command, be given by its variable, but those that have one, or none."""
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar is None and not option.is_eager:
            option.envvar = variable(option)


def commands_of(program: click.Group) -> Iterator[click.Command]:
    """Each command that does something, also those of a group."""
    for command in program.commands.values():
        if isinstance(command, click.Group):
            yield from commands_of(command)
        else:
            yield command


def options_of(program: click.Group) -> Iterator[click.Option]:
    """Each option of the program and of its commands."""
    for command in (program, *commands_of(program)):
        yield from (option for option in command.params if isinstance(option, click.Option))


def flag(option: click.Option) -> str:
    """The name that users know an option by: ``--max-wait``."""
    return max(option.opts, key=len)


def variable(option: click.Option) -> str:
    """``FASTOCI_MAX_WAIT``, of ``--max-wait``."""
    return "FASTOCI_" + flag(option).removeprefix("--").replace("-", "_").upper()
