"""``fastoci find``: the paths of an image's files."""

from __future__ import annotations

import click

from fastoci.cli import options
from fastoci.cli.formatting import plain
from fastoci.cli.image_files import LIMITS, AskedPath, opened


class FindOptions(AskedPath):
    """What was asked for."""

    form: str


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("path", metavar="[PATH]", default="/")
@options.platform
@options.output
@options.store
@options.additional
@options.limits(*LIMITS)
@options.gather(FindOptions)
def find(asked: FindOptions) -> None:
    """Print PATH of an image in the store, / by default, and all that is below it. Nothing is unpacked.

    Symbolic links in PATH lead to where they lead in the image, those below are not followed. With --format json each
    line is an object with all that is known of one file.

    \b
    fastoci find alpine /etc
    fastoci find alpine --format json | jq -r 'select(.mode[0:1] == "4").path'
    """
    import json

    from fastoci.cli.file_lines import fields_of

    with opened(lambda image: image.files(), asked) as files:
        for file in files.walk(asked.path):
            click.echo(json.dumps(fields_of(file)) if asked.form == "json" else plain(file.path))
