"""``fastoci repair``: what is bad or missing, fetched again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import errors, options, registry_options, report, sections

if TYPE_CHECKING:
    from fastoci import Limits, RegistryOptions, Repair
    from fastoci.cli.progress.display import Display


class RepairOptions(options.Given):
    """What was asked for."""

    references: tuple[str, ...]
    store: Path | None
    additional: tuple[Path, ...]
    registry: RegistryOptions
    limits: Limits
    progress: Display


@click.command(cls=sections.Command)
@click.argument("references", metavar="[REF]...", nargs=-1)
@options.store
@options.additional
@registry_options.registry
@options.limits(*options.MOVING, "memory", "durability")
@options.progress
@options.gather(RepairOptions)
def repair(asked: RepairOptions) -> int:
    """Hash the blobs and layer files of images again, mend the bad and missing ones, and print their digests.

    A bad blob is replaced when the good one is fetched from the image's registry and verified. A bad layer file is
    deleted and made again of its blob.

    \b
    fastoci repair
    fastoci repair registry.example.com/app:1
    """
    from fastoci.cli import run

    async def work() -> Repair:
        engine = options.existing(
            asked.store, asked.additional, registry=asked.registry, limits=asked.limits, observer=asked.progress
        )
        async with engine:
            return await engine.repair(asked.references)

    told = report.current()
    result = run.run(work(), asked.progress)
    for digest in result.repaired:
        told.result(digest)
    for name, error in result.failed:
        told.fail(error, name)
    return errors.merge([errors.code(error) for _, error in result.failed] or [0])
