"""``fastoci ls``: what the store holds, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fastoci.cli import options
from fastoci.cli.formatting import plain, table
from fastoci.cli.formatting import size as size_text

if TYPE_CHECKING:
    from fastoci import StoredImage

_HEADER: Final = ("NAME", "DIGEST", "PLATFORMS", "SIZE", "PULLED", "USED", "PINNED")
_HEX: Final = 12  # digits of a digest


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Print the names of the images alone, one a line.")
@options.output
@options.store
@options.additional
def ls(quiet: bool, form: str, store: Path | None, additional: tuple[Path, ...]) -> None:
    """List the images in the store.

    SIZE is the sum of an image's blobs, over all its platforms in the store. Images may share blobs. USED is the last
    use, known to the hour.

    \b
    fastoci ls
    fastoci ls -q | xargs fastoci verify
    fastoci ls --format json --store /srv/images
    """
    from fastoci.cli import run

    async def work() -> tuple[StoredImage, ...]:
        async with options.existing(store, additional) as engine:
            return await engine.images()

    images = run.run(work())
    if form == "json":
        click.echo(_json(images))
    elif quiet:
        for image in images:
            click.echo(plain(image.name))
    else:
        click.echo("\n".join(table([_HEADER, *map(_row, images)])))


def _row(image: StoredImage) -> tuple[str, ...]:
    platforms = plain(",".join(image.images)) or "-"
    digest = image.descriptor.digest.hex[:_HEX]
    times = plain(image.pulled_at), image.used_at or "-"
    return plain(image.name), digest, platforms, size_text(image.size or 0), *times, "pinned" if image.pinned else "-"


def _json(images: Sequence[StoredImage]) -> str:
    import json

    rows = [
        {
            "name": image.name,
            "digest": str(image.descriptor.digest),
            "platforms": {platform: str(manifest.digest) for platform, manifest in image.images.items()},
            "size": image.size,
            "pulled_at": image.pulled_at,
            "used_at": image.used_at,
            "pinned": image.pinned,
            "lists": sorted(image.lists),
        }
        for image in images
    ]
    return json.dumps({"images": rows}, indent=1)
