"""``fastoci find``: the paths of an image's files."""

from __future__ import annotations

from pathlib import Path

import click

from fastoci.cli import options
from fastoci.cli.formatting import plain


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("path", metavar="[PATH]", default="/")
@options.platform
@options.output
@options.store
@options.additional
def find(
    reference: str, path: str, platform: str | None, form: str, store: Path | None, additional: tuple[Path, ...]
) -> None:
    """Print PATH of an image in the store, / by default, and all that is below it. Nothing is unpacked.

    Symbolic links in PATH lead to where they lead in the image, those below are not followed. With --format json each
    line is an object with all that is known of one file.

    \b
    fastoci find alpine /etc
    fastoci find alpine --format json | jq -r 'select(.mode[0:1] == "4").path'
    """
    import json

    from fastoci.cli.file_lines import fields_of
    from fastoci.cli.image_files import files_of

    with files_of(reference, platform, store, additional) as files:
        for file in files.walk(path):
            click.echo(json.dumps(fields_of(file)) if form == "json" else plain(file.path))
