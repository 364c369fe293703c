"""``fastoci umount``: an image is taken away from where it is mounted."""

from __future__ import annotations

from pathlib import Path

import click

from fastoci.cli import options


@click.command()
@click.argument("directory", metavar="DIR", type=options.FilePath())
def umount(directory: Path) -> None:
    """Take away the image that is mounted on DIR.

    What was written to the upper directory of a writable mount stays there. A mount that is in use stays, and the
    processes are named that are seen to use it.

    \b
    fastoci umount /mnt/redis
    """
    import fastoci

    fastoci.umount(directory)
