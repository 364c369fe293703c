"""Edits of configuration files: read before anything is planned, shown as a diff, written one at a time.

1. A file is reached by a held directory. A symbolic link is followed inside that directory only: what it leads to
   elsewhere is another place, which nobody named.
2. Only a regular file of root or of this user is read for an edit, in a directory of theirs that not everyone can
   write to. Mode, user and group stay.
3. Who opens the file finds the old one or the new one. A file that changed since it was read is not written.
"""

from __future__ import annotations

import difflib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from fastoci import files, path_walk
from fastoci.errors import ConfigError

FILE_SIZE: Final = 1 << 20  # bytes; a real one has a few kilobytes
_NEW: Final = 0o644
_FOLDER: Final = 0o755


class Edit(msgspec.Struct, frozen=True):
    """What becomes of a file; None is no file."""

    path: str
    before: bytes | None
    after: bytes | None

    @property
    def diff(self) -> str:
        """The change, as ``diff -u`` shows it."""
        old, new = (_lines(data) for data in (self.before, self.after))
        names = ["/dev/null" if data is None else self.path for data in (self.before, self.after)]
        lines = difflib.unified_diff(old, new, names[0], names[1], lineterm="")
        return "".join(f"{line}\n" for line in lines)


class _Found(NamedTuple):
    data: bytes
    mode: int
    owner: tuple[int, int]


def read(path: str) -> bytes | None:
    """The bytes of a file, for a plan; None when there is none. Whether it may be edited is for ``check``.

    Raises:
        ConfigError: it is too large to be one.
        StoreError: it cannot be read.
    """
    with files.translated("read", path):
        try:
            return _bounded(files.read_start(Path(path), FILE_SIZE + 1), path)
        except FileNotFoundError:
            return None


def check(edits: Sequence[Edit]) -> None:
    """Look whether each file may be edited, before any is.

    Raises:
        ConfigError: a file is a link to elsewhere, another user's, of another kind, or not as it was read.
        StoreError: the disk refused.
    """
    for edit in filter(_is_needed, edits):
        with files.translated("read", edit.path):
            try:
                with _held(edit.path, make=None) as (directory, name):
                    _expected(directory, name, edit)
            except FileNotFoundError:  # of its directory, which is made
                continue


def write(edits: Sequence[Edit]) -> None:
    """Make the edits, in their order; after a failure those before it are made.

    Raises:
        ConfigError: as ``check``.
        StoreError: the disk refused.
    """
    for edit in filter(_is_needed, edits):
        with files.translated("write", edit.path), _held(edit.path, make=_FOLDER) as (directory, name):
            found = _expected(directory, name, edit)
            if edit.after is None:
                os.unlink(name, dir_fd=directory)
                files.sync_directory(directory)
                continue
            temporary = f".{files.fitted(name, 18)}-{secrets.token_hex(8)}"
            mode, owner = (found.mode, found.owner) if found else (_NEW, None)
            files.replace_at(directory, name, edit.after, temporary=temporary, mode=mode, owner=owner)


def make_folder(path: str) -> None:
    """Have a directory, with those that it is in.

    Raises:
        StoreError: the disk refused, or a link on the way is another user's.
    """
    with files.translated("make", path):
        directory, name = path_walk.open_parent(Path(path), make=_FOLDER)
        try:
            files.make_directory_at(directory, name, _FOLDER)
        finally:
            os.close(directory)


def _is_needed(edit: Edit) -> bool:
    return edit.before != edit.after


def _expected(directory: int, name: str, edit: Edit) -> _Found | None:
    found = _found(directory, name, edit.path)
    if (None if found is None else found.data) != edit.before:
        raise ConfigError(f"{edit.path} has changed meanwhile, and is left as it is")
    return found


@contextmanager
def _held(path: str, *, make: int | None) -> Iterator[tuple[int, str]]:
    """The directory of a file, and its name in it."""
    directory, name = path_walk.open_parent(Path(path), make=make)
    try:
        _check_directory(directory, os.path.dirname(path))
        if stat.S_ISLNK(_mode(directory, name)):
            name = _end_of_link(directory, path)
        yield directory, name
    finally:
        os.close(directory)


def _mode(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _end_of_link(directory: int, path: str) -> str:
    """The name in this directory that a link leads to."""
    other, name = path_walk.open_parent(Path(path), follow=True)
    try:
        if os.path.samestat(os.fstat(other), os.fstat(directory)):
            return name
    finally:
        os.close(other)
    raise ConfigError(
        f"{path} is a symbolic link into another directory: name the file itself, {os.path.realpath(path)}"
    )


def _check_directory(directory: int, path: str) -> None:
    info = os.fstat(directory)
    if info.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path} belongs to user {info.st_uid}, who decides what is in it: nothing is written there")
    if info.st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path} can be written by everyone: nothing is written there")


def _found(directory: int, name: str, path: str) -> _Found | None:
    if not (mode := _mode(directory, name)):
        return None
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{path} is not a regular file")
    fd = files.open_file_at(directory, name)
    try:
        info = os.fstat(fd)
        if info.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"{path} belongs to user {info.st_uid}, not to 0 or {os.geteuid()}")
        if info.st_mode & stat.S_IWOTH:
            raise ConfigError(f"{path} can be written by everyone")
        data = _bounded(files.read_all(fd, min(info.st_size, FILE_SIZE + 1)), path)
        return _Found(data, stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid))
    finally:
        os.close(fd)


def _bounded(data: bytes, path: str) -> bytes:
    if len(data) > FILE_SIZE:
        raise ConfigError(f"{path} has more than {FILE_SIZE} bytes: that is no configuration")
    return data


def _lines(data: bytes | None) -> list[str]:
    return (data or b"").decode(errors="replace").splitlines()
