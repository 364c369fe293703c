"""``fastoci view``: images of the store as an OCI layout of their own."""

from __future__ import annotations

from pathlib import Path

import click

from fastoci.cli import options
from fastoci.cli.formatting import plain, plural


@click.command()
@click.argument("directory", metavar="DIR", type=options.FilePath())
@click.argument("references", metavar="[REF]...", nargs=-1)
@options.store
@options.additional
def view(directory: Path, references: tuple[str, ...], store: Path | None, additional: tuple[Path, ...]) -> None:
    """Write images, all by default, to an OCI image layout for other tools.

    Blobs are hard links to the store's: they use no more disk, and stay when gc deletes the store's. On another file
    system they are copied. An existing layout is extended.

    \b
    fastoci view ./layout alpine redis:7
    skopeo inspect oci:./layout:docker.io/library/alpine:latest
    """
    from fastoci.cli import run

    async def work() -> int:
        async with options.existing(store, additional) as engine:
            return await engine.export(directory, references)

    count = run.run(work())
    click.echo(f"fastoci: {plural(count, 'image')} in {plain(str(directory))}", err=True)
