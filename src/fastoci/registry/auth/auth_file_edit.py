"""Changing an auth file: all else that it holds stays, and a reader sees the old file or the new one, whole.

Knows no keys and no secrets' meaning; two processes of ours that change a file at once take turns.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from fastoci import files, locks, path_walk
from fastoci.errors import ConfigError, StoreError
from fastoci.registry.auth.auth_file import KIND, document
from fastoci.registry.config import files as config_files


def edit(path: Path, change: Callable[[dict[str, object]], bool]) -> bool:
    """Let ``change`` change the document of an auth file, and write it, for its owner only, if it says that it did.

    A file that is absent begins empty; a link stays, what it leads to is changed.

    Args:
        path: absolute.
    Raises:
        ConfigError: the file is not an auth file; it is left as it is.
        StoreBusyError: another process changes it; nothing was done.
        StoreError: it cannot be written, or is another user's.
    """
    try:
        directory, name = path_walk.open_parent(path, make=0o700, follow=True)
        try:
            return _edit(directory, name, path, change)
        finally:
            os.close(directory)
    except OSError as error:
        raise StoreError(f"{path}: cannot write this auth file: {error.strerror}", path=str(path)) from error


def _edit(directory: int, name: str, path: Path, change: Callable[[dict[str, object]], bool]) -> bool:
    lock = f".{files.fitted(name, 6)}.lock"
    # Where nothing can be written, there may be nothing to change.
    writable = os.access(".", os.W_OK, dir_fd=directory, effective_ids=True)
    with locks.locked_at(directory, lock, f"{path.parent}/{lock}") if writable else nullcontext():
        found, owner = _document(directory, name, path)
        changed = change(found)
        if changed:
            data = json.dumps(found, indent="\t").encode() + b"\n"
            temporary = f".{files.fitted(name, 18)}-{secrets.token_hex(8)}"
            files.replace_at(directory, name, data, temporary=temporary, mode=0o600, owner=owner)
    return changed


def _document(directory: int, name: str, path: Path) -> tuple[dict[str, object], tuple[int, int] | None]:
    """What the file holds, and its user and group: root changes a user's file, and it stays the user's."""
    try:
        fd = files.open_file_at(directory, name)
    except FileNotFoundError:
        return {}, None
    except PermissionError as error:
        raise ConfigError(f"{path}: cannot read this auth file: {error.strerror}") from error
    with open(fd, "rb") as file:
        info, above = os.fstat(fd), os.fstat(directory)
        if info.st_uid not in (0, os.geteuid(), above.st_uid):  # in /tmp: it would be given what is written
            text = f"{path}: this auth file belongs to user {info.st_uid}, in a directory of user {above.st_uid}"
            raise StoreError(text, path=str(path))
        return document(config_files.read_open(file, path, KIND), str(path)), (info.st_uid, info.st_gid)
