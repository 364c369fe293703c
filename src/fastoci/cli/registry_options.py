"""The options of ``fastoci pull`` that say how registries are asked, as one value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fastoci.cli import options
from fastoci.cli.password import password

if TYPE_CHECKING:
    from fastoci import Engine, Limits, events


def _credentials(text: str | None, password_stdin: bool) -> tuple[str, str] | None:
    if text is None:
        if password_stdin:
            raise click.UsageError("--password-stdin needs --creds USER")
        return None
    user, colon, secret = text.partition(":")
    if not user:
        raise click.BadParameter("expected USER or USER:PASSWORD", param_hint="--creds")
    if not colon:
        return user, password(from_stdin=password_stdin, hint="--password-stdin, or USER:PASSWORD in FASTOCI_CREDS")
    if password_stdin:
        raise click.UsageError("--creds has a password: --password-stdin goes with --creds USER")
    return user, secret


@dataclass(frozen=True, slots=True)
class Network:
    """What the options were."""

    tls_verify: bool
    authfile: Path | None
    creds: tuple[str, str] | None
    provider_config: Path | None
    provider_bin_dir: Path | None
    registries_conf: Path | None
    hosts_dir: Path | None
    cert_dir: Path | None

    def __post_init__(self) -> None:
        if (self.provider_config is None) != (self.provider_bin_dir is None):
            raise click.UsageError(
                "--image-credential-provider-config and --image-credential-provider-bin-dir go together"
            )

    def engine(
        self, store: Path | None, limits: Limits, observer: events.Observer, *, additional: tuple[Path, ...] = ()
    ) -> Engine:
        """An engine that asks registries so."""
        from fastoci import Engine

        config, programs = self.provider_config, self.provider_bin_dir
        return Engine(
            store,
            additional=additional,
            limits=limits,
            tls_verify=self.tls_verify,
            authfile=self.authfile,
            creds=self.creds,
            credential_providers=None if config is None or programs is None else (config, programs),
            registries_conf=self.registries_conf,
            hosts_dir=self.hosts_dir,
            cert_dir=self.cert_dir,
            observer=observer,
        )


_F = Callable[..., int]


def _path(flag: str, metavar: str, text: str, name: str | None = None) -> Callable[[_F], _F]:
    return click.option(flag, *([name] if name else []), type=click.Path(path_type=Path), metavar=metavar, help=text)


_OPTIONS: Final = (
    options.tls_verify,
    options.authfile,
    click.option(
        "--creds",
        envvar="FASTOCI_CREDS",
        metavar="USER[:PASSWORD]",
        help="Who asks the registry. The password is better asked for, on stdin, or in $FASTOCI_CREDS: "
        "every user of the machine sees command lines.",
    ),
    click.option("--password-stdin", is_flag=True, help="Read the password of --creds USER from stdin."),
    _path(
        "--image-credential-provider-config",
        "FILE",
        "The kubelet's CredentialProviderConfig, asked after the auth files.",
        "provider_config",
    ),
    _path("--image-credential-provider-bin-dir", "DIR", "Where its plugins are.", "provider_bin_dir"),
    _path("--registries-conf", "FILE", "Mirrors, as podman has them; instead of the usual files."),
    _path("--hosts-dir", "DIR", "Mirrors, as containerd has them: HOST/hosts.toml; instead of the usual files."),
    options.cert_dir,
)


def network(command: Callable[..., int]) -> Callable[..., int]:
    """These options, given to the command as ``network``."""

    @functools.wraps(command)
    def gathered(**given: object) -> int:
        given["creds"] = _credentials(given["creds"], given.pop("password_stdin"))  # type: ignore[arg-type]
        asked = {field.name: given.pop(field.name) for field in fields(Network)}
        return command(network=Network(**asked), **given)  # type: ignore[arg-type]

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered
