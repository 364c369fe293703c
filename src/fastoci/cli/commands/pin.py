"""``fastoci pin`` and ``fastoci unpin``: which images gc never removes."""

from __future__ import annotations

from pathlib import Path

import click

from fastoci.cli import options


@click.command()
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@options.store
def pin(references: tuple[str, ...], store: Path | None) -> int:
    """Protect images from `fastoci gc`, whatever age, number or size it is given."""
    return _set(references, store, True)


@click.command()
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@options.store
def unpin(references: tuple[str, ...], store: Path | None) -> int:
    """Let `fastoci gc` remove pinned images again."""
    return _set(references, store, False)


def _set(references: tuple[str, ...], store: Path | None, pinned: bool) -> int:
    from fastoci.cli import each, run

    async def work() -> int:
        async with options.existing(store) as engine:
            return await each.each(references, lambda reference: engine.pin(reference, pinned))

    return run.run(work())
