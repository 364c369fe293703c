"""``fastoci cat``: one file of an image, on stdout."""

from __future__ import annotations

from pathlib import Path

import click

from fastoci.cli import options


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("path", metavar="PATH")
@options.platform
@options.store
@options.additional
def cat(reference: str, path: str, platform: str | None, store: Path | None, additional: tuple[Path, ...]) -> None:
    """Print a file of an image in the store, byte for byte. Nothing is unpacked.

    Symbolic links in PATH lead to where they lead in the image.

    \b
    fastoci cat alpine /etc/os-release
    """
    from fastoci.cli.image_files import copy_to_stdout, opened

    with opened(lambda image: image.open(path), reference, platform, store, additional) as file:
        copy_to_stdout(file)
