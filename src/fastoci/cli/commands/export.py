"""``fastoci export``: the files of an image as a tar."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from fastoci.cli import options
from fastoci.cli.image_files import LIMITS, Asked, copy_to_stdout, opened

_STDOUT = "-"


class ExportOptions(Asked):
    """What was asked for."""

    places: tuple[str, ...]


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("places", metavar="[PATH] FILE", nargs=-1, required=True)
@options.platform
@options.store
@options.additional
@options.limits(*LIMITS)
@options.gather(ExportOptions)
def export(asked: ExportOptions) -> None:
    """Write the files of an image in the store to FILE, or to stdout when that is -, as one tar. Nothing is unpacked.

    All layers are in it as one tree, whiteouts applied. With PATH, it is that file or directory alone, under its own
    path. The same image gives the same bytes.

    \b
    fastoci export alpine alpine.tar
    fastoci export alpine /etc - | tar -t
    """
    from fastoci.cli.results.output_file import OutputFile

    if len(asked.places) > 2:
        raise click.UsageError("one PATH and one FILE: fastoci export REF [PATH] FILE")
    path, target = asked.places if len(asked.places) == 2 else ("/", asked.places[0])
    if target == _STDOUT:
        if sys.stdout.isatty():
            raise click.UsageError("a tar is not for a terminal: name a file, or pipe it to a program")
        with opened(lambda image: image.tar(path), asked) as tar:
            copy_to_stdout(tar)
        return
    with (
        OutputFile(Path(target)) as output,
        output.replaced() as file,
        opened(lambda image: image.tar(path), asked) as tar,
    ):
        shutil.copyfileobj(tar, file, 1 << 20)
