"""Who sent wrong bytes of a blob: kept beside its ingest, so that the next run asks others first.

Only a hint: it is not synced, and whoever loses it may be sent the wrong bytes again. Spec: docs/store-format.md 4.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from fastoci import files
from fastoci.directory import Directory
from fastoci.errors import StoreError

NAME: Final = "corrupt"
_SIZE: Final = 1 << 16  # bytes of it


def read(directory: Directory) -> tuple[str, ...]:
    """The servers, none when nobody is known to have."""
    with suppress(StoreError):  # a hint that cannot be read is none
        data = files.read(directory, NAME, _SIZE) or b""
        return tuple(filter(None, data.decode("utf-8", "replace").split("\n")))
    return ()


def write(directory: Directory, servers: Iterable[str]) -> None:
    """Replace what is there.

    Raises:
        OSError: the disk refused.
    """
    data = "".join(f"{server}\n" for server in servers if "\n" not in server).encode("utf-8", "replace")
    fd = directory.open(NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        files.write_all(fd, data[:_SIZE])
    finally:
        files.close(fd)
