"""Lists of images that a command line names: their bytes, from files or stdin, and what they say."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from fastoci.cli.signals import seen_in_time
from fastoci.errors import ConfigError

if TYPE_CHECKING:
    from fastoci import ImageList

_SIZE: Final = 256 << 20  # bytes of one list: a million lines of 256
_STDIN: Final = Path("-")


class Lists:
    """The lists of one command. What can be read only once, stdin or a pipe, is read here and kept.

    Args:
        files: in their order; ``-`` is stdin.
    Raises:
        click.UsageError: stdin is asked for twice.
        ConfigError: stdin or a pipe cannot be read, or is too large.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        has_password = bool(click.get_current_context().params.get("password_stdin"))
        if files.count(_STDIN) + has_password > 1 and _STDIN in files:
            raise click.UsageError("stdin is asked for twice")
        self._files = files
        once = dict.fromkeys(file for file in files if _is_read_once(file))  # what is named twice has nothing left
        with seen_in_time():
            self._kept = {file: _bytes(file) for file in once}

    def read(self) -> list[ImageList]:
        """What the lists say now; blocks on the disk.

        Raises:
            ConfigError: one cannot be read, or is too large.
        """
        from fastoci import parse_list

        found = []
        for file in self._files:
            data = self._kept[file] if file in self._kept else _bytes(file, lasting=True)
            found.append(parse_list(data, _name(file)))
        return found


def _is_read_once(file: Path) -> bool:
    if file == _STDIN:
        return True
    try:
        return not stat.S_ISREG(file.stat().st_mode)
    except OSError:  # whoever reads it says why
        return False


def _name(file: Path) -> str:
    return "stdin" if file == _STDIN else str(file)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe may have taken its name, and nobody may write to that


def _bytes(path: Path, *, lasting: bool = False) -> bytes:
    """What is there now; ``lasting`` is what is read again, and was a file."""
    try:
        if path == _STDIN:
            return _bounded(sys.stdin.buffer, path)
        with open(path, "rb", opener=_opener if lasting else None) as file:
            if lasting and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"list {_name(path)}: it was a file, and is none any more")
            return _bounded(file, path)
    except OSError as error:
        raise ConfigError(f"list {_name(path)}: {error.strerror or error}") from error


def _bounded(file: IO[bytes], path: Path) -> bytes:
    data = file.read(_SIZE + 1)
    if len(data) > _SIZE:
        raise ConfigError(f"list {_name(path)}: larger than {_SIZE >> 20} MiB")
    return data
