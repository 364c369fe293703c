"""What options are about: the sections of help, and the tables of the configuration file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from fastoci.cli.command_table import GROUPS

C = TypeVar("C", bound=Callable[..., Any])

TARGET: Final = "Target"  # of options that nobody put elsewhere
REGISTRY: Final = "Registry"
ENDS: Final = "Source and destination"
LIMITS: Final = "Limits"
OUTPUT: Final = "Output"
_ORDER: Final = (TARGET, ENDS, REGISTRY, LIMITS, OUTPUT)
_KEY: Final = "fastoci_section"


def under(section: str, option: Callable[[C], C]) -> Callable[[C], C]:
    """An option of that section."""

    def decorate(command: C) -> C:
        decorated = option(command)
        made: Any = vars(decorated)["__click_params__"][-1]
        made.__dict__[_KEY] = section
        return decorated

    return decorate


def of(option: click.Parameter) -> str:
    """The section of an option."""
    return str(vars(option).get(_KEY, OUTPUT if option.is_eager else TARGET))


class Command(click.Command):
    """A command with so many options that its help has sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section with its options."""
        for section in _ORDER:
            options = [each for each in self.get_params(ctx) if isinstance(each, click.Option) and of(each) == section]
            if rows := [row for each in options if (row := each.get_help_record(ctx)) is not None]:
                with formatter.section(section):
                    formatter.write_dl(rows)


class Program(click.Group):
    """The program, whose help shows the commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group with its commands."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))
