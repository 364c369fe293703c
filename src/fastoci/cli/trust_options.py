"""The options that say which images may be had, the same for every command that brings some."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fastoci.cli import options, sections

if TYPE_CHECKING:
    from fastoci import TrustPolicy

_OPTIONS: Final = (
    click.option(
        "--policy",
        "policy_file",
        type=options.FilePath(),
        metavar="FILE",
        help="Take only images that this policy.json allows.  [default: the machine's, if there is one]",
    ),
    click.option("--insecure-policy", is_flag=True, help="Take any image, whatever the machine's policy says."),
)


def trust(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Both of them, given to the command as ``trust``: a ``fastoci.TrustPolicy``, or None for the machine's."""

    @functools.wraps(command)
    def gathered(**given: Any) -> int | None:
        return command(trust=_policy(given.pop("policy_file"), given.pop("insecure_policy")), **given)

    for option in reversed(_OPTIONS):
        gathered = sections.under(sections.REGISTRY, option)(gathered)
    return gathered


def _policy(file: Path | None, insecure: bool) -> TrustPolicy | None:
    if file is None and not insecure:
        return None
    if file is not None and insecure:
        raise click.UsageError("--policy and --insecure-policy exclude each other")
    from fastoci import TrustPolicy, read_trust_policy

    return TrustPolicy.accept_anything() if file is None else read_trust_policy(file)
