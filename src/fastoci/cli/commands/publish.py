"""``fastoci publish``: an image goes to a registry with merged metadata. An experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import options, registry_options, report, sections

if TYPE_CHECKING:
    from fastoci import Limits, RegistryOptions
    from fastoci.cli.progress.display import Display


class PublishOptions(options.Given):
    """What was asked for."""

    reference: str
    target: str
    platform: str | None
    store: Path | None
    additional: tuple[Path, ...]
    registry: RegistryOptions
    limits: Limits
    progress: Display


@click.command(cls=sections.Command)
@click.argument("reference", metavar="REF")
@click.argument("target", metavar="TARGET")
@options.platform
@options.store
@options.additional
@registry_options.registry
@options.limits(*options.MOVING, "unpacked_size", "unpacked_entries", "memory", "durability")
@options.progress
@options.gather(PublishOptions)
def publish(asked: PublishOptions) -> None:
    """Push the image REF of the store to TARGET's registry, with the EROFS metadata of all its layers beside it.

    An experiment: what it writes follows a draft. The image itself is pushed unchanged, and is what everybody pulls who
    does not ask for EROFS. The index gets the name TARGET, in the store and in the registry, and NAME@DIGEST of it is
    printed on stdout. REF is as of `fastoci unpack`.

    \b
    fastoci publish redis:7 registry.example.com/redis:7
    """
    from fastoci.cli import run

    async def work() -> str:
        engine = options.existing(
            asked.store, asked.additional, registry=asked.registry, limits=asked.limits, observer=asked.progress
        )
        async with engine:
            published = await engine.publish(asked.reference, asked.target, platform=asked.platform)
            return f"{published.reference.name}@{published.index.digest}"

    report.current().result(run.run(work(), asked.progress))
