"""``fastoci info``: versions, and which tier of each kernel is live."""

from __future__ import annotations

import click

from fastoci.cli.formatting import plain


@click.command()
def info() -> None:
    """Show versions, and which kernels of the native core are in use.

    \b
    fastoci info
    FASTOCI_SHA256=scalar fastoci info
    """
    import fastoci

    facts = fastoci.info()
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {plain(value)}")
