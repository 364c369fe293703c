"""``fastoci login``: credentials checked at a registry and kept for later pulls."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fastoci.cli import registry_options
from fastoci.cli.formatting import plain
from fastoci.cli.password import password
from fastoci.cli.signals import seen_in_time


@click.command()
@click.argument("host", metavar="HOST[:PORT]")
@click.option("-u", "--username", metavar="USER", help="Log in as USER; without it the terminal asks for one.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin, not from the terminal.")
@click.option("--get-login", is_flag=True, help="Print the user that pulls from HOST log in as, and do nothing else.")
@registry_options.authfile
@registry_options.tls_verify
@registry_options.cert_dir
def login(
    host: str,
    username: str | None,
    password_stdin: bool,
    get_login: bool,
    authfile: Path | None,
    tls_verify: bool,
    cert_dir: Path | None,
) -> None:
    """Check a user and password at a registry, and keep them where fastoci, podman and skopeo look for them.

    Without --authfile that is $REGISTRY_AUTH_FILE, else $DOCKER_CONFIG/config.json, else containers/auth.json below
    $XDG_RUNTIME_DIR. When that file names a credential helper, the helper keeps them.

    \b
    fastoci login registry.example.com
    fastoci login ghcr.io -u me --password-stdin < token
    """
    if get_login:
        _print_login(host, authfile)
        return
    if password_stdin and username is None:
        raise click.UsageError("--password-stdin needs --username")
    if not password_stdin and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: give --username and --password-stdin")
    user = username if username is not None else _ask_user()
    if not user or ":" in user:
        raise click.BadParameter("a user is not empty and has no colon", param_hint="--username")
    secret = password(from_stdin=password_stdin, hint="--username and --password-stdin")

    import fastoci
    from fastoci.cli import run

    asking = fastoci.login(host, user, secret, authfile=authfile, tls_verify=tls_verify, cert_dir=cert_dir)
    if not run.run(asking):
        click.echo(f"fastoci: warning: {plain(host)} asked for no credentials: they are not checked", err=True)
    click.echo("Login succeeded")


def _print_login(host: str, authfile: Path | None) -> None:
    import fastoci
    from fastoci.cli import run

    user = run.run(fastoci.logged_in(host, authfile=authfile))
    if user is None:
        raise fastoci.errors.CredentialError(f"{host}: not logged in")
    click.echo(plain(user))


def _ask_user() -> str:
    with seen_in_time():
        return str(click.prompt("Username", err=True))
