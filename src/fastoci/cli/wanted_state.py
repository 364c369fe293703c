"""The options that make a list the wanted state of a node, and what is told of it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from fastoci.cli.formatting import plain, plural, size
from fastoci.cli.options import Command

if TYPE_CHECKING:
    from fastoci import Pruned
    from fastoci.cli.report import Report

_OPTIONS = (
    click.option(
        "--list-name",
        metavar="NAME",
        default="",
        help="Remember what this job brings as the images of the list NAME.",
    ),
    click.option(
        "--prune",
        is_flag=True,
        help="Remove the images that earlier jobs of the list brought and that are not on it any more, and the pins"
        " that it does not ask for any more. Needs --list-name.",
    ),
    click.option(
        "--allow-empty", is_flag=True, help="Let --prune with no image at all remove all that the list brought."
    ),
    click.option("--gc", is_flag=True, help="Delete at the end what no image needs any more, as fastoci gc does."),
)


def wanted_state(command: Command) -> Command:
    """The options, given to the command as ``state``, a ``WantedState``."""

    @functools.wraps(command)
    def gathered(*, list_name: str, prune: bool, allow_empty: bool, gc: bool, **given: Any) -> int | None:
        from fastoci import WantedState

        if prune and not list_name:
            raise click.UsageError("--prune needs --list-name: the images of which list?")
        if allow_empty and not prune:
            raise click.UsageError("--allow-empty needs --prune")
        try:
            state = WantedState(list_name=list_name, prune=prune, allow_empty=allow_empty, gc=gc)
        except ValueError as error:
            raise click.UsageError(f"--list-name: {error}") from error
        return command(state=state, **given)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def tell(told: Report, pruned: Pruned) -> None:
    """Say on stderr what went, and why nothing did."""
    if pruned.withheld:
        told.warn(f"nothing is pruned: {pruned.withheld}")
    for what, names in (("removed", pruned.removed), ("unpinned", pruned.unpinned)):
        for name in names:
            told.note(f"{what} {plain(name)}")
    if pruned.error is not None:
        told.fail(pruned.error)
    if pruned.deleted:
        freed = sum(item.size for item in pruned.deleted)
        told.note(f"deleted {plural(sum(item.kind == 'blob' for item in pruned.deleted), 'blob')}, {size(freed)}")
