"""``FASTOCI_*``: a variable of the environment for each option, of whatever command. docs/configuration.md lists them.

``--max-wait`` is ``FASTOCI_MAX_WAIT``, of every command that has it. Options that may be given several times take
several values: paths with colons between them, others with blanks.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.core import ParameterSource


def add_to(program: click.Group) -> None:
    """Let each option of the program and its commands be given by its variable, but those that have one, or none."""
    for option in options_of(program):
        if option.envvar is None and not option.is_eager:
            option.envvar = variable(option)


def options_of(program: click.Group) -> Iterator[click.Option]:
    """Each option of the program and of all commands below it."""
    for command in (program, *program.commands.values()):
        if command is not program and isinstance(command, click.Group):
            yield from options_of(command)
        else:
            yield from (option for option in command.params if isinstance(option, click.Option))


def flag(option: click.Option) -> str:
    """The name that users know an option by: ``--max-wait``."""
    return max(option.opts, key=len)


def variable(option: click.Option) -> str:
    """``FASTOCI_MAX_WAIT``, of ``--max-wait``."""
    return "FASTOCI_" + flag(option).removeprefix("--").replace("-", "_").upper()


def blame(error: click.ClickException) -> None:
    """Let a usage error name the variable whose value cannot be used."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or not isinstance(error.param, click.Option):
        return
    name = error.param.name
    if name is not None and error.ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
        error.param_hint = str(error.param.envvar)
