"""``fastoci apply``: layer files onto a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fastoci.cli import options

if TYPE_CHECKING:
    from fastoci import Limits
    from fastoci.cli.progress.display import Display

_LAYER: Final = options.FilePath(exists=True, dir_okay=False)  # all are there before the first is applied


@click.command()
@click.argument("directory", metavar="DIR", type=options.FilePath())
@click.argument("layers", metavar="LAYER...", nargs=-1, required=True, type=_LAYER)
@options.same_owner
@options.limits("unpacked_size", "unpacked_entries", "memory")
@options.progress
def apply(
    directory: Path, layers: tuple[Path, ...], same_owner: bool | None, limits: Limits, progress: Display
) -> None:
    """Apply layers (tar, gzip or zstd) onto a directory, in order, lowest first.

    Whiteouts remove what lower layers or the directory hold; nothing outside DIR is touched, and no mount below it.

    \b
    fastoci apply ./rootfs base.tar.gz app.tar.zst
    """
    import fastoci
    from fastoci.cli import run

    applying = fastoci.apply(directory, layers, same_owner=same_owner, limits=limits, observer=progress)
    run.run(applying, progress)
