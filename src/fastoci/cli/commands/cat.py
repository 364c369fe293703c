"""``fastoci cat``: one file of an image, on stdout."""

from __future__ import annotations

import click

from fastoci.cli import options
from fastoci.cli.image_files import LIMITS, AskedPath, copy_to_stdout, opened


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("path", metavar="PATH")
@options.platform
@options.store
@options.additional
@options.limits(*LIMITS)
@options.gather(AskedPath)
def cat(asked: AskedPath) -> None:
    """Print a file of an image in the store, byte for byte. Nothing is unpacked.

    Symbolic links in PATH lead to where they lead in the image.

    \b
    fastoci cat alpine /etc/os-release
    """
    with opened(lambda image: image.open(asked.path), asked) as file:
        copy_to_stdout(file)
