"""``fastoci push``: an image of the store goes to a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import options, registry_options, report, sections

if TYPE_CHECKING:
    from fastoci import Limits, RegistryOptions
    from fastoci.cli.progress.display import Display


class PushOptions(options.Given):
    """What was asked for."""

    reference: str
    destination: str
    platforms: tuple[str, ...]
    store: Path | None
    additional: tuple[Path, ...]
    registry: RegistryOptions
    limits: Limits
    progress: Display


@click.command(cls=sections.Command)
@click.argument("reference", metavar="REF")
@click.argument("destination", metavar="[NAME]", default="")
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH[/VARIANT]",
    help="Push the image for this platform. May be repeated; all: everything that the name stands for."
    "  [default: what the store has]",
)
@options.store
@options.additional
@registry_options.registry
@options.limits(*options.MOVING, "memory")
@options.progress
@options.gather(PushOptions)
def push(asked: PushOptions) -> None:
    """Push the image REF of the store to its registry, or under NAME to NAME's, and print NAME@DIGEST on stdout.

    What the registry has is not sent again, and what another of its repositories has is mounted. An upload that broke
    goes on where it was, also after a crash. The tag comes last, and all that was taken is asked for again.

    \b
    fastoci push registry.example.com/app:1
    fastoci push redis:7 registry.example.com/redis:7
    """
    from fastoci import Reference
    from fastoci.cli import run

    async def work() -> str:
        engine = options.existing(
            asked.store, asked.additional, registry=asked.registry, limits=asked.limits, observer=asked.progress
        )
        async with engine:
            pushed = await engine.push(asked.reference, asked.destination, platforms=asked.platforms)
            name = Reference.parse(pushed.destination.removeprefix("docker://")).name
            return f"{name}@{pushed.descriptor.digest}"

    report.current().result(run.run(work(), asked.progress))
