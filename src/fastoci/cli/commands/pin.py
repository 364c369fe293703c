"""``fastoci pin`` and ``fastoci unpin``: which images gc never makes room by."""

from __future__ import annotations

from pathlib import Path

import click

from fastoci.cli import options


@click.command(short_help="Keep images whatever gc makes room for.")
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@options.store
def pin(references: tuple[str, ...], store: Path | None) -> None:
    """Keep images, whatever age, number or size `fastoci gc` is asked for."""
    _set(references, store, True)


@click.command(short_help="Let gc remove images again.")
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@options.store
def unpin(references: tuple[str, ...], store: Path | None) -> None:
    """Let `fastoci gc` remove images again that were pinned."""
    _set(references, store, False)


def _set(references: tuple[str, ...], store: Path | None, pinned: bool) -> None:
    from fastoci.cli import run

    async def work() -> None:
        async with options.existing(store) as engine:
            for reference in references:
                await engine.pin(reference, pinned)

    run.run(work())
