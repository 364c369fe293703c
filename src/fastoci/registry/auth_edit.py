"""Changing an auth file: all else that it holds stays, and a reader sees the old file or the new one, whole.

Knows no keys and no secrets' meaning; two processes of ours that change a file at once take turns.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fastoci.errors import FormatError, StoreError
from fastoci.registry.auth_files import document, read


def edit(path: Path, change: Callable[[dict[str, object]], bool]) -> bool:
    """Let ``change`` change the document of an auth file, and write it, for its owner only, if it says that it did.

    A file that is absent begins empty; a link stays, what it leads to is changed.

    Raises:
        FormatError: the file is no auth file; it is left as it is.
        StoreError: it cannot be written.
    """
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            found = _document(real)
            changed = change(found)
            if changed:
                _replace(real, json.dumps(found, indent="\t").encode() + b"\n")
                os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StoreError(f"{path}: cannot write this auth file: {error.strerror}", path=str(path)) from error
    return changed


def _document(path: Path) -> dict[str, object]:
    try:
        return document(read(path), str(path))
    except FormatError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return {}
        raise


def _replace(path: Path, data: bytes) -> None:
    file, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    try:
        with open(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            with suppress(FileNotFoundError, PermissionError):
                old = path.stat()
                os.fchown(file, old.st_uid, old.st_gid)  # root changes a user's file: it stays the user's
            os.fsync(file)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
