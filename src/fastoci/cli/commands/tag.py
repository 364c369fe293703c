"""``fastoci tag``: another tag for an image in a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fastoci.cli import options, registry_options, report, sections

if TYPE_CHECKING:
    from fastoci import Limits, RegistryOptions


class TagOptions(options.Given):
    """What was asked for."""

    source: str
    target: str
    registry: RegistryOptions
    limits: Limits


@click.command(cls=sections.Command)
@click.argument("source", metavar="REF")
@click.argument("target", metavar="NEW")
@registry_options.registry
@options.limits("request_rate", "max_wait_s", "first_byte_s")
@options.gather(TagOptions)
def tag(asked: TagOptions) -> None:
    """Give the image REF of a registry the tag NEW in its repository, and print its digest on stdout. No blob moves.

    NEW is a tag alone, or a name in full. The store has nothing to do with it. What NEW named before keeps its digest
    alone.

    \b
    fastoci tag registry.example.com/app:1.2.3 latest
    fastoci tag registry.example.com/app:1.2.3 registry.example.com/app:latest
    """
    from fastoci.cli import run

    async def work() -> str:
        async with options.of_ends([f"docker://{asked.source}"], None, (), asked.registry, asked.limits) as engine:
            return str((await engine.tag(asked.source, asked.target)).digest)

    report.current().result(run.run(work()))
