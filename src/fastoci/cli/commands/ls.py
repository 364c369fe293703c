"""``fastoci ls``: what the store holds, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fastoci.cli import options
from fastoci.cli.formatting import aligned, plain
from fastoci.cli.formatting import size as size_text

if TYPE_CHECKING:
    from fastoci import StoredImage

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

    async def work() -> tuple[StoredImage, ...]:
        async with options.existing(store, additional) as engine:
            return await engine.images()

    click.echo("\n".join(aligned([_HEADER, *map(_row, run.run(work()))])))


def _row(image: StoredImage) -> tuple[str, ...]:
    platforms = plain(",".join(image.images)) or "-"
    digest = image.descriptor.digest.hex[:_HEX]
    return plain(image.name), digest, platforms, size_text(image.size or 0), plain(image.pulled_at)
