"""The files that configure access to registries, of whatever tool: read in one way, within bounds of size and time.

What is in them is for those who know the form. A file that this user may not read, or that is far too large to be what
it should be, is an error of one kind; a pipe without a writer is not waited for.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import BinaryIO, Final

from fastoci import files
from fastoci.errors import ConfigError

FILE_SIZE: Final = 1 << 20  # bytes; a real one holds a few kilobytes

_LOG: Final = logging.getLogger(__name__)


def read(path: Path, kind: str) -> bytes:
    """The bytes of a file.

    Args:
        kind: what it should be, for messages: ``auth file``.
    Raises:
        ConfigError: it cannot be read (caused by the ``OSError``), or is too large to be one.
    """
    try:
        data = files.read_start(path, FILE_SIZE + 1)
    except OSError as error:
        _LOG.debug("%s: not read: %s", path, error.strerror)
        raise ConfigError(f"{path}: cannot read this {kind}: {error.strerror}") from error
    return _whole(data, path, kind)


def names(directory: Path) -> tuple[str, ...] | None:
    """The names in a directory, in order; None where there is none that this user may list."""
    try:
        return tuple(sorted(os.listdir(directory)))
    except OSError:
        return None


def read_if_there(path: Path, kind: str) -> bytes | None:
    """The bytes of a file that nobody asked for by name; None when it is absent.

    Raises:
        ConfigError: as ``read``.
    """
    try:
        return read(path, kind)
    except ConfigError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def read_open(file: BinaryIO, path: Path, kind: str) -> bytes:
    """The bytes of a file that is open.

    Raises:
        ConfigError: it is too large to be one.
        OSError: the disk refused.
    """
    return _whole(file.read(FILE_SIZE + 1), path, kind)


def _whole(data: bytes, path: Path, kind: str) -> bytes:
    if len(data) > FILE_SIZE:
        raise ConfigError(f"{path}: this {kind} is larger than {FILE_SIZE} bytes")
    _LOG.debug("%s: read this %s, %d bytes", path, kind, len(data))
    return data
