"""The options that make a list the wanted state of a node, and what is told of it."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import click

from fastoci.cli.formatting import plain, plural, size
from fastoci.cli.options import Command, Size

if TYPE_CHECKING:
    from fastoci import Evicted, Pruned
    from fastoci.cli.report import Report


class KeepFree(Size):
    """Bytes as a size, or percent of a file system: both, one of which is 0."""

    name = "size or percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value of an option's text; a usage error when it has none."""
        percent = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]+)?) ?%", str(value))
        if percent is None and "%" in str(value):
            self.fail(f"{value!r} is no percentage from 0% to 99%", param, ctx)
        return (0, float(percent[1])) if percent else (super().convert(value, param, ctx), 0.0)


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
    click.option(
        "--keep-free",
        type=KeepFree(),
        metavar="SIZE|PERCENT",
        help="Keep so much of the store's file system free, as 20G or 15%: for that, what no image needs goes, then"
        " images used least recently that are not pinned and not asked for. A job that does not fit fetches nothing.",
    ),
    click.option("--gc", is_flag=True, help="Delete at the end what no image needs any more, as fastoci gc does."),
)


def wanted_state(command: Command) -> Command:
    """The options, given to the command as ``state``, a ``WantedState``."""

    @functools.wraps(command)
    def gathered(
        *, list_name: str, prune: bool, allow_empty: bool, gc: bool, keep_free: tuple[int, float] | None, **given: Any
    ) -> int | None:
        from fastoci import WantedState

        size, percent = keep_free or (0, 0.0)

        if prune and not list_name:
            raise click.UsageError("--prune needs --list-name: the images of which list?")
        if allow_empty and not prune:
            raise click.UsageError("--allow-empty needs --prune")
        try:
            state = WantedState(
                list_name=list_name,
                prune=prune,
                allow_empty=allow_empty,
                gc=gc,
                keep_free=size,
                keep_free_percent=percent,
            )
        except ValueError as error:
            raise click.UsageError(f"--list-name: {error}") from error
        return command(state=state, **given)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def tell(told: Report, pruned: Pruned, evicted: Evicted) -> None:
    """Say on stderr what went, and why nothing did."""
    for name in evicted.images:
        told.note(f"evicted {plain(name)}")
    if pruned.withheld:
        told.warn(f"nothing is pruned: {pruned.withheld}")
    for what, names in (("removed", pruned.removed), ("unpinned", pruned.unpinned)):
        for name in names:
            told.note(f"{what} {plain(name)}")
    for name in pruned.in_containerd:
        told.note(f"removed {plain(name)} where the images go, too")
    if pruned.error is not None:
        told.fail(pruned.error)
    if deleted := (*evicted.items, *pruned.deleted):
        freed = sum(item.size for item in deleted)
        told.note(f"deleted {plural(sum(item.kind == 'blob' for item in deleted), 'blob')}, {size(freed)}")
