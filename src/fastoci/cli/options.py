"""Options that several commands share, each once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import click

C = TypeVar("C", bound=Callable[..., object])

MODES: Final = ("auto", "bar", "log", "json", "none")


def store(command: C) -> C:
    """``--store DIR``."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Where images are kept.  [default: /var/lib/fastoci for root, else ~/.local/share/fastoci]",
    )(command)


def platform(command: C) -> C:
    """``--platform OS/ARCH[/VARIANT]``."""
    return click.option(
        "--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of several.  [default: this machine's]"
    )(command)


def progress(command: C) -> C:
    """``--progress MODE``."""
    return click.option(
        "--progress",
        type=click.Choice(MODES),
        default="auto",
        show_default=True,
        help="On stderr: bars, a line now and then, or a JSON object for each event. auto is bar on a terminal.",
    )(command)
