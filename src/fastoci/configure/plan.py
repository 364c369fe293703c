"""What is to be done, as a value: the edits, what a person should know, and what has to start anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from fastoci.configure.edits import Edit, make_folder, write
from fastoci.errors import ConfigError

Read = Callable[[str], bytes | None]


class ConfigurationPlan(msgspec.Struct, frozen=True):
    """How a program is configured, or is no more.

    Args:
        edits: what changes, in an order in which each alone leaves a configuration that the program takes.
        notes: sentences for whoever asked.
        restart: the services that have to start anew when something changed.
        folder: a directory without which the program fails from then on; made, and empty, where it is not there.
    """

    edits: tuple[Edit, ...] = ()
    notes: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    folder: str = ""

    @property
    def diff(self) -> str:
        """All that changes, as ``diff -u`` shows it; empty when nothing does."""
        return "".join(edit.diff for edit in self.edits)

    def write(self) -> None:
        """Make the edits, each at once. Synchronous.

        Raises:
            ConfigError: a file has changed since the plan was made, or may not be edited; those before it are written.
            StoreError: the disk refused.
        """
        if self.folder:
            make_folder(self.folder)
        write(self.edits)


def header(by: str) -> bytes:
    """The first line of a file that is this program's own."""
    return f"# Written by `{by}`; `{by} --undo` takes it away.\n".encode()


def own_file(path: str, by: str, text: str | None, read: Read) -> Edit:
    """The edit of a file that is this program's own.

    Args:
        text: what it says below its header; None for no file.
    Raises:
        ConfigError: somebody else's file has that name.
    """
    before = read(path)
    if before is not None and not before.startswith(header(by)):
        raise ConfigError(f"{path} is not of `{by}`: it is left as it is")
    return Edit(path, before, None if text is None else header(by) + text.encode())


def after(edits: Mapping[str, Edit], read: Read) -> Read:
    """Read files as they are once the edits are made."""
    return lambda path: edits[path].after if path in edits else read(path)
