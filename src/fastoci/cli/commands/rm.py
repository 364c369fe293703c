"""``fastoci rm``: forgets the names of images."""

from __future__ import annotations

from pathlib import Path

import click

from fastoci.cli import options


@click.command(short_help="Remove images from the store, by name.")
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@options.store
def rm(references: tuple[str, ...], store: Path | None) -> None:
    """Remove images from the store, by name. `fastoci gc` then frees what only they needed.

    \b
    fastoci rm alpine redis:7
    fastoci rm alpine && fastoci gc
    """
    from fastoci.cli import run

    async def work() -> None:
        async with options.existing(store) as engine:
            for reference in references:
                await engine.remove(reference)

    run.run(work())
