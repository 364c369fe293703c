"""The options that say how registries are asked, the same for every command that may ask one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from fastoci.cli import options, sections
from fastoci.cli.password import password

C = TypeVar("C", bound=Callable[..., object])


def _path(flag: str, metavar: str, text: str, name: str | None = None) -> Callable[[C], C]:
    return click.option(flag, *([name] if name else []), type=options.FilePath(), metavar=metavar, help=text)


def _shared(option: Callable[[C], C]) -> Callable[[C], C]:
    return sections.under(sections.REGISTRY, option)


authfile = _shared(_path("--authfile", "FILE", "File of credentials for registries, as docker login writes it."))
cert_dir = _shared(
    _path(
        "--cert-dir",
        "DIR",
        "Directory of certificates for every registry: *.crt of authorities, *.cert and *.key of this client. Instead"
        " of certs.d.",
    )
)
tls_verify = _shared(
    click.option(
        "--tls-verify",
        type=bool,
        default=True,
        metavar="BOOL",
        help="Whether registries must show a trusted certificate. false: any will do, and plain http.  [default: true]",
    )
)

_OPTIONS: Final = (
    tls_verify,
    authfile,
    click.option(
        "--creds",
        metavar="USER[:PASSWORD]",
        help="Log in to the registry as USER. Give the password on the terminal, on stdin, or in $FASTOCI_CREDS: "
        "every user of the machine can read command lines.",
    ),
    click.option("--password-stdin", is_flag=True, help="Read the password of --creds USER from stdin."),
    _path(
        "--image-credential-provider-config",
        "FILE",
        "The kubelet's CredentialProviderConfig: plugins that are asked for credentials that no auth file has.",
        "provider_config",
    ),
    _path(
        "--image-credential-provider-bin-dir",
        "DIR",
        "Directory of the plugins that the kubelet's CredentialProviderConfig names.",
        "provider_bin_dir",
    ),
    _path("--registries-conf", "FILE", "File of mirrors in podman's form, instead of the usual files."),
    _path(
        "--hosts-dir", "DIR", "Directory of mirrors in containerd's form (HOST/hosts.toml), instead of the usual files."
    ),
    cert_dir,
    click.option(
        "--allow-private-redirects",
        multiple=True,
        metavar="HOST[:PORT]",
        help="Let this registry or mirror send requests on to addresses in private networks. May be repeated.",
    ),
    click.option(
        "--download-foreign-layers",
        is_flag=True,
        help="Fetch layers that their registry does not have (Windows base layers) where the image says that they are.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0),
        metavar="N",
        help="Send a request again at most N times when it made no progress.  [default: 7, after a timeout 2]",
    ),
    click.option(
        "--retry-delay",
        "retry_delay_s",
        type=options.Duration(),
        metavar="TIME",
        help="Wait TIME before each retry.  [default: a random time up to 20s, more each time]",
    ),
)


_AS_GIVEN: Final = (
    "tls_verify",
    "authfile",
    "registries_conf",
    "hosts_dir",
    "cert_dir",
    "allow_private_redirects",
    "download_foreign_layers",
    "retries",
    "retry_delay_s",
)


def registry(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """All of them, given to the command as ``registry``, a ``fastoci.RegistryOptions``."""

    @functools.wraps(command)
    def gathered(**given: Any) -> int | None:
        from fastoci import RegistryOptions

        asked = RegistryOptions(
            creds=credentials(given.pop("creds"), given.pop("password_stdin")),
            credential_providers=_providers(given.pop("provider_config"), given.pop("provider_bin_dir")),
            **{name: given.pop(name) for name in _AS_GIVEN},
        )
        return command(registry=asked, **given)

    for option in reversed(_OPTIONS):
        gathered = _shared(option)(gathered)
    return gathered


def credentials(
    text: str | None, password_stdin: bool, option: str = "--creds", hint: str = "--password-stdin, or "
) -> tuple[str, str] | None:
    """The user and password that an option names; what it does not name is asked for.

    Args:
        option: for messages; ``hint`` says what else there is.
    Raises:
        click.UsageError: they cannot be.
    """
    if text is None:
        if password_stdin:
            raise click.UsageError("--password-stdin needs --creds USER")
        return None
    user, colon, secret = text.partition(":")
    if not user:
        raise click.BadParameter("expected USER or USER:PASSWORD", param_hint=option)
    if not colon:
        variable = f"FASTOCI_{option.removeprefix('--').replace('-', '_').upper()}"
        return user, password(from_stdin=password_stdin, hint=f"{hint}USER:PASSWORD in {variable}")
    if password_stdin:
        raise click.UsageError("--creds has a password: --password-stdin goes with --creds USER")
    return user, secret


def _providers(config: Path | None, programs: Path | None) -> tuple[Path, Path] | None:
    if config is None and programs is None:
        return None
    if config is None or programs is None:
        raise click.UsageError("--image-credential-provider-config and --image-credential-provider-bin-dir go together")
    return config, programs
