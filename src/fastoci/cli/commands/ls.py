"""``fastoci ls``: what the store holds, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fastoci.cli import options
from fastoci.cli.formatting import aligned, plain
from fastoci.cli.formatting import size as size_text

if TYPE_CHECKING:
    from fastoci import Listing

_HEADER: Final = ("NAME", "DIGEST", "PLATFORMS", "SIZE", "PULLED")
_HEX: Final = 12  # digits of a digest


@click.command(short_help="List the images in the store.")
@options.store
@options.additional
def ls(store: Path | None, additional: tuple[Path, ...]) -> None:
    """List the images in the store.

    SIZE is the sum of an image's blobs, over all its platforms in the store. Images may share blobs.

    \b
    fastoci ls
    fastoci ls --store /srv/images
    """
    from fastoci.cli import run

    async def work() -> tuple[Listing, ...]:
        async with options.existing(store, additional) as engine:
            return await engine.images()

    click.echo("\n".join(aligned([_HEADER, *map(_row, run.run(work()))])))


def _row(image: Listing) -> tuple[str, ...]:
    platforms = plain(",".join(image.platforms)) or "-"
    digest = plain(image.digest.partition(":")[2][:_HEX])
    return plain(image.name), digest, platforms, size_text(image.size), plain(image.pulled_at)
