"""The program: its commands, and the one place where an exception becomes a line on stderr and an exit code.

Nothing that a command needs is imported before that command runs.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import cast

import click

from fastoci.cli import config_file, environment, errors, log_options, option_places, sections, standard_streams
from fastoci.cli.command_table import Commands
from fastoci.cli.report import Report
from fastoci.cli.signals import Signals, Stopped
from fastoci.errors import FastociError
from fastoci.release import VERSION

_EXIT_CODES = """\b
Exit codes:
  0  done                        5  the registry or the network failed
  1  any other failure           6  wrong bytes: digest or size
  2  wrong usage or reference    7  malformed, unsupported or unsafe image
  3  no such image or platform   8  the disk refused
  4  credentials missing or bad  9  several images, several outcomes
  129 hung up, 130 interrupted, 143 terminated
"""


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"fastoci {VERSION}")
        context.exit()


def _prepare(command: click.Command) -> None:
    """Let a command, or those of a group, take the options of all, and variables and files for its own."""
    for each in environment.commands_of(command) if isinstance(command, click.Group) else (command,):
        _add_common_to(each)
        environment.tell_unknown(each, os.environ)


def _add_common_to(command: click.Command) -> None:
    environment.add_to(command)
    config_file.add_to(command)
    log_options.add_to(command)


@click.group(
    cls=sections.Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES,
    commands=cast("dict[str, click.Command]", Commands(_prepare)),  # which click only reads
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def program() -> None:
    """Move container images from registries onto this machine: verified, stored once, unpacked safely.

    \b
    fastoci pull alpine                       into the store
    fastoci pull alpine --rootfs ./alpine     and its files into a directory
    fastoci pull alpine --oci ./layout        and into an OCI image layout

    Results go to stdout, everything else to stderr. Each option has a variable: FASTOCI_STORE is --store.
    """


_add_common_to(program)


def main() -> None:
    """Run the program on ``sys.argv`` and exit."""
    stdout = standard_streams.never_fail()
    report = Report()
    signals = Signals()
    signals.catch(ignored=False)
    try:
        code = _run(sys.argv[1:], report)
        signals.release(signal.SIG_DFL)  # nothing is left to be let go of
    except Stopped as stop:
        report.stopped(stop.number)
        code = 128 + stop.number
    sys.stdout.flush()
    if stdout.failed is not None:
        lost = FastociError(f"cannot write to stdout: {stdout.failed.strerror}")
        report.fail(lost)
        code = code or lost.exit_code
    report.end(code)
    sys.exit(code)


def _run(arguments: list[str], report: Report) -> int:
    try:
        arguments = option_places.put_behind(arguments, program)
        code = program.main(arguments, prog_name="fastoci", standalone_mode=False, obj=report)
    except click.Abort:
        raise Stopped(signal.SIGINT) from None
    except click.ClickException as error:
        config_file.blame(error)
        report.misused(error)
        return error.exit_code
    except Exception as error:
        report.fail(error)
        return errors.code(error)
    return code if isinstance(code, int) else 0
