"""``fastoci delete``: a tag or a manifest of a registry goes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from fastoci.cli import options, registry_options, sections
from fastoci.cli.formatting import plain
from fastoci.cli.signals import seen_in_time

if TYPE_CHECKING:
    from fastoci import Limits, RegistryOptions


class DeleteOptions(options.Given):
    """What was asked for."""

    references: tuple[str, ...]
    yes: bool
    registry: RegistryOptions
    limits: Limits


class NobodySaidYesError(click.ClickException):
    """Nobody said that something may go."""

    exit_code = 2


@click.command(cls=sections.Command)
@click.argument("references", metavar="REF...", nargs=-1, required=True)
# An eager option has no variable: one that is set for ``rm`` deletes nothing in a registry.
@click.option("-y", "--yes", is_flag=True, is_eager=True, help="Delete without asking whether that is meant.")
@registry_options.registry
@options.limits("request_rate", "max_wait_s", "first_byte_s")
@options.gather(DeleteOptions)
def delete(asked: DeleteOptions) -> int:
    """Delete images in registries: NAME:TAG takes away the tag, NAME@DIGEST the manifest with all its tags.

    It asks on the terminal. The store has nothing to do with it: `fastoci rm` removes images there. The failure of one
    does not stop the others. Many registries free no space before their own garbage collection.

    \b
    fastoci delete registry.example.com/app:old
    fastoci delete registry.example.com/app@sha256:... --yes
    """
    from fastoci.cli import each, run

    if not asked.yes:
        _ask(asked.references)

    async def work() -> int:
        ends = [f"docker://{reference}" for reference in asked.references]
        async with options.of_ends(ends, None, (), asked.registry, asked.limits) as engine:
            return await each.each(asked.references, engine.delete)

    return run.run(work())


def _ask(references: tuple[str, ...]) -> None:
    terminal = sys.stdin.isatty()
    with seen_in_time():
        for reference in references:
            if not (terminal and click.confirm(f"Delete {plain(reference)} in its registry?", err=True)):
                raise NobodySaidYesError(f"{plain(reference)} stays: --yes deletes it without asking")
