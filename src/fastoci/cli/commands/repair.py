"""``fastoci repair``: what is bad or missing, fetched again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import errors, options

if TYPE_CHECKING:
    from fastoci import Repair


@click.command(short_help="Fetch bad and missing blobs again.")
@click.argument("references", metavar="[REF]...", nargs=-1)
@options.store
@options.additional
@options.tls_verify
@options.authfile
@options.progress
def repair(
    references: tuple[str, ...],
    store: Path | None,
    additional: tuple[Path, ...],
    tls_verify: bool,
    authfile: Path | None,
    progress: str,
) -> int:
    """Hash again what images need, and fetch what is bad or missing from where they were pulled; print its digests.

    Nothing is deleted: a bad blob is replaced when the good one is here and verified. Bad blobs of no image are gc's.

    \b
    fastoci repair
    fastoci repair registry.example.com/app:1
    """
    from fastoci.cli import run
    from fastoci.cli.progress.display import choose

    display = choose(progress)

    async def work() -> Repair:
        engine = options.existing(store, additional, tls_verify=tls_verify, authfile=authfile, observer=display)
        async with engine:
            return await engine.upkeep.repair(references)

    result = run.run(work(), display)
    for digest in result.repaired:
        click.echo(digest)
    errors.report(result.failed)
    return errors.merge([errors.code(error) for _, error in result.failed] or [0])
