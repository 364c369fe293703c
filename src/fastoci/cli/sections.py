"""What options are about: the sections of help, and the tables of the configuration file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])

TARGET: Final = "Target"  # of options that nobody put elsewhere
REGISTRY: Final = "Registry"
LIMITS: Final = "Limits"
OUTPUT: Final = "Output"
_ORDER: Final = (TARGET, REGISTRY, LIMITS, OUTPUT)
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

    groups: Final = {
        "Images": ("pull", "unpack", "ls", "inspect", "view", "rm", "pin", "unpin"),
        "Files": ("apply",),
        "Store": ("df", "gc", "verify", "repair"),
        "Registries": ("login", "logout"),
    }

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group with its commands; what is in none comes last."""
        grouped = {name for names in self.groups.values() for name in names}
        rest = tuple(name for name in self.list_commands(ctx) if name not in grouped)
        for title, names in {**self.groups, "Program": rest}.items():
            commands = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
            if rows := [(name, command.get_short_help_str(80)) for name, command in commands]:
                with formatter.section(title):
                    formatter.write_dl(rows)
