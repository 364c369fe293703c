"""The options that say which platforms are copied, and how the two ends are reached, as skopeo spells them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec.structs import replace

from fastoci.cli import options, registry_options, sections

if TYPE_CHECKING:
    from fastoci import EndOptions, RegistryOptions

Command = Callable[..., int | None]

_PLATFORM: Final = (
    click.option("--all", "-a", "all_", is_flag=True, help="Copy all that the name stands for, as it is."),
    options.platforms,
    click.option("--override-os", metavar="OS", help="Take the image for this system."),
    click.option("--override-arch", metavar="ARCH", help="Take the image for this architecture."),
    click.option("--override-variant", metavar="VARIANT", help="Take the image for this variant of it."),
)
_ENDS: Final = {"src": "source", "dest": "destination"}


def platforms(command: Command) -> Command:
    """Which platforms are copied, given to the command as ``platforms``."""

    @functools.wraps(command)
    def gathered(**given: Any) -> int | None:
        overridden = [given.pop(f"override_{name}") for name in ("os", "arch", "variant")]
        return command(platforms=_platforms(given.pop("all_"), given.pop("platforms"), overridden), **given)

    for option in reversed(_PLATFORM):
        gathered = option(gathered)
    return gathered


def ends(command: Command) -> Command:
    """How the two ends are reached, where that is another way: given as ``source`` and ``destination``.

    They are functions of the options for all registries, and make ``fastoci.EndOptions``.
    """

    @functools.wraps(command)
    def gathered(**given: Any) -> int | None:
        made = {end: _End(prefix, given) for prefix, end in _ENDS.items()}
        return command(**made, **given)

    decorated: Command = gathered
    for prefix, end in reversed(_ENDS.items()):
        for option in reversed(_of_end(prefix, end)):
            decorated = sections.under(sections.ENDS, option)(decorated)
    return decorated


class _End:
    """What was asked for one end."""

    def __init__(self, prefix: str, given: dict[str, Any]) -> None:
        self._prefix = prefix
        names = ("creds", "username", "password", "no_creds", "authfile", "cert_dir", "tls_verify", "shared_blob_dir")
        self._given = {name: given.pop(f"{prefix}_{name}") for name in names}

    def __call__(self, registry: RegistryOptions) -> EndOptions:
        """How the end is reached."""
        from fastoci import EndOptions

        given = dict(self._given)
        shared: Path | None = given.pop("shared_blob_dir")
        creds = self._creds(*(given.pop(name) for name in ("creds", "username", "password")))
        if given.pop("no_creds"):
            if creds is not None:
                raise click.UsageError(f"--{self._prefix}-no-creds goes with no other credentials of that end")
            given["no_creds"], registry = True, replace(registry, creds=None)
        changed = {name: value for name, value in {**given, "creds": creds}.items() if value is not None}
        return EndOptions(replace(registry, **changed) if changed else None, "" if shared is None else str(shared))

    def _creds(self, together: str | None, username: str | None, password: str | None) -> tuple[str, str] | None:
        """The user and password, by either way of giving them.

        Raises:
            click.UsageError: by both; or a password without a user.
        """
        option = f"--{self._prefix}"
        if username is None and password is None:
            return registry_options.credentials(together, False, f"{option}-creds", "")
        if together is not None or username is None:
            raise click.UsageError(f"give {option}-username and {option}-password, or {option}-creds")
        given = username if password is None else f"{username}:{password}"
        return registry_options.credentials(given, False, f"{option}-creds", "")


def _of_end(prefix: str, end: str) -> Sequence[Callable[[Command], Command]]:
    return (
        click.option(
            f"--{prefix}-creds",
            metavar="USER[:PASSWORD]",
            help=f"Log in to the registry of the {end} as USER, as --creds says it for both.",
        ),
        click.option(
            f"--{prefix}-username",
            metavar="USER",
            help=f"Log in to the registry of the {end} as USER, with --{prefix}-password.",
        ),
        click.option(
            f"--{prefix}-password",
            metavar="PASSWORD",
            help=f"The password of --{prefix}-username; every user of the machine can read command lines.",
        ),
        click.option(f"--{prefix}-no-creds", is_flag=True, help=f"Log in to no registry of the {end}."),
        _path(f"--{prefix}-authfile", "FILE", f"File of credentials for the registry of the {end}."),
        _path(f"--{prefix}-cert-dir", "DIR", f"Directory of certificates for the registry of the {end}."),
        click.option(
            f"--{prefix}-tls-verify",
            type=bool,
            metavar="BOOL",
            help=f"Whether the registry of the {end} must show a trusted certificate.",
        ),
        _path(f"--{prefix}-shared-blob-dir", "DIR", f"Directory of the blobs of the {end}, if that is oci:."),
    )


def _path(flag: str, metavar: str, text: str) -> Callable[[Command], Command]:
    return click.option(flag, type=options.FilePath(), metavar=metavar, help=text)


def _platforms(all_: bool, named: tuple[str, ...], overridden: Sequence[str | None]) -> tuple[str, ...]:
    """The platforms that are asked for: all whatever is overridden, as with skopeo.

    Raises:
        click.UsageError: ``named`` beside another way to ask.
    """
    if named and (all_ or any(overridden)):
        raise click.UsageError("--platform excludes --all and --override-...")
    if all_:
        return ("all",)
    if not any(overridden):
        return named
    from fastoci import Platform

    host = Platform.host()
    system, architecture, variant = overridden
    parts = (system or host.os, architecture or host.architecture, variant)
    return ("/".join(part for part in parts if part),)
