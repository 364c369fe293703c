"""``fastoci inspect``: the documents of an image in the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import options

if TYPE_CHECKING:
    from fastoci import Image


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--raw", is_flag=True, help="Print the manifest alone, byte for byte.")
@options.platform
@options.store
@options.additional
def inspect(reference: str, raw: bool, platform: str | None, store: Path | None, additional: tuple[Path, ...]) -> None:
    """Print the manifest and the config of an image in the store, as JSON.

    \b
    fastoci inspect alpine
    fastoci inspect alpine --raw | sha256sum
    """
    import json

    from fastoci.cli import run

    async def work() -> Image:
        async with options.existing(store, additional) as engine:
            return await engine.image(reference, platform=platform)

    image = run.run(work())
    if raw:
        click.echo(image.manifest.raw, nl=False)
        return
    config = json.loads(image.config.raw) if image.config is not None else None
    # All but ASCII is escaped: a label may hold what moves the cursor or turns the text around.
    click.echo(json.dumps({"manifest": json.loads(image.manifest.raw), "config": config}, indent=2))
