"""``fastoci mounts``: where images are mounted."""

from __future__ import annotations

from typing import Final

import click

from fastoci.cli import options
from fastoci.cli.formatting import plain, table

_HEADER: Final = ("DIRECTORY", "IMAGE", "MANIFEST", "WAY", "WRITABLE")
_HEX: Final = 12  # digits of a digest


@click.command()
@options.output
def mounts(form: str) -> None:
    """List the directories on which images are mounted, and how.

    WRITABLE is the directory that changes are written to, - when the image is only read.

    \b
    fastoci mounts
    fastoci mounts --format json
    """
    import fastoci

    found = fastoci.mounts()
    if form == "json":
        import json

        fields = ("directory", "reference", "manifest", "way", "upper")
        listed = [{field: getattr(each, field) for field in fields} for each in found]
        click.echo(json.dumps({"mounts": listed}, indent=1))
        return
    rows = [
        (plain(each.directory), plain(each.reference) or "-", each.manifest[:_HEX], each.way, plain(each.upper) or "-")
        for each in found
    ]
    click.echo("\n".join(table([_HEADER, *rows])))
