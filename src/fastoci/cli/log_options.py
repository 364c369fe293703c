"""``--debug`` and ``--log-level``, which the program takes before and behind a command's name."""

from __future__ import annotations

from typing import Final

import click

LEVELS: Final = ("debug", "info", "warning", "error")


def add_to(command: click.Command) -> None:
    """Let the program, or a command, take these options. The environment is asked once, by the program."""
    command.params += _options(environment=isinstance(command, click.Group))


def _options(*, environment: bool) -> list[click.Parameter]:
    return [
        click.Option(
            ["--debug"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=lambda context, parameter, wanted: _enable("debug" if wanted else None),
            envvar="FASTOCI_DEBUG" if environment else None,
            help="Log everything to stderr, with tracebacks, as --log-level debug does.",
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(LEVELS),
            is_eager=True,
            expose_value=False,
            callback=lambda context, parameter, level: _enable(level),
            envvar="FASTOCI_LOG_LEVEL" if environment else None,
            help="Log to stderr what is of this level or above.  [default: warning]",
        ),
    ]


def _enable(level: str | None) -> None:
    if level is not None:
        from fastoci.cli import log

        log.enable(level)
