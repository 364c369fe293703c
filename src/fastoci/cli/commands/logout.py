"""``fastoci logout``: what ``fastoci login`` kept is forgotten."""

from __future__ import annotations

from pathlib import Path

import click

from fastoci.cli import registry_options
from fastoci.cli.formatting import plain


@click.command()
@click.argument("host", metavar="[HOST[:PORT]]", required=False)
@click.option("--all", "everything", is_flag=True, help="Forget the credentials of all registries in the auth file.")
@registry_options.authfile
def logout(host: str | None, everything: bool, authfile: Path | None) -> None:
    """Remove credentials from the file, or the helper, in which `fastoci login` keeps them.

    \b
    fastoci logout registry.example.com
    fastoci logout --all
    """
    if (host is None) != everything:
        raise click.UsageError("give HOST or --all")

    import fastoci
    from fastoci.cli import run

    gone = run.run(fastoci.logout(host, authfile=authfile))
    if host is not None and not gone:
        raise fastoci.errors.CredentialError(f"{host}: not logged in")
    for name in gone:
        click.echo(f"Removed login credentials for {plain(name)}")
