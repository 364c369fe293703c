"""``fastoci ls``: what the store holds, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fastoci.cli import options
from fastoci.cli.text import plain
from fastoci.cli.text import size as size_text

if TYPE_CHECKING:
    from fastoci import Engine

_HEADER: Final = ("NAME", "DIGEST", "PLATFORMS", "SIZE", "PULLED")
_HEX: Final = 12  # digits of a digest


@click.command(short_help="List the images in the store.")
@options.store
def ls(store: Path | None) -> None:
    """List the images in the store.

    SIZE is what an image's blobs take, over all its platforms that are here; images may share them.

    \b
    fastoci ls
    fastoci ls --store /srv/images
    """
    from fastoci.cli import job

    async def work() -> list[tuple[str, ...]]:
        async with options.existing(store) as engine:
            return await _rows(engine)

    for line in _aligned([_HEADER, *job.run(work())]):
        click.echo(line)


async def _rows(engine: Engine) -> list[tuple[str, ...]]:
    from fastoci.errors import FastociError

    rows: list[tuple[str, ...]] = []
    for ref in await engine.images():
        total = 0
        for platform in ref.images:
            try:
                wanted = platform if len(ref.images) > 1 else None  # the only one may have no platform
                total += (await engine.image(ref.name, platform=wanted)).size
            except FastociError:  # a blob was removed or broken: the rest is still worth showing
                continue
        platforms = ",".join(ref.images) or "-"
        digest = ref.descriptor.digest.hex[:_HEX]
        rows.append((plain(ref.name), digest, plain(platforms), size_text(total), plain(ref.pulled_at)))
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
