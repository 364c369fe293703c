"""Where a password comes from that must not be on the command line, where every user of the machine can read it."""

from __future__ import annotations

import sys
from typing import Final

import click

from fastoci.cli.signals import Stopped, seen_in_time

_SIZE: Final = 1 << 16  # bytes; no header holds as much


def password(*, from_stdin: bool, hint: str) -> str:
    """Read a password from stdin, or ask for it on a terminal.

    Args:
        hint: what to give instead, for a program that has no terminal.
    Raises:
        click.UsageError: stdin holds none, or there is no terminal to ask on.
    """
    if from_stdin:
        return _read()
    if not sys.stdin.isatty():
        raise click.UsageError(f"there is no terminal to ask on: give {hint}")
    try:
        with seen_in_time():
            return str(click.prompt("Password", hide_input=True, err=True))
    except Stopped:
        click.echo(err=True)  # the line of the prompt ends here
        raise


def _read() -> str:
    with seen_in_time():
        data = sys.stdin.buffer.read(_SIZE + 1)
    try:
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > _SIZE or any(c in text for c in "\r\n\0"):
        raise click.UsageError("stdin holds no password: expected one line of text")
    return text
