"""Whether this process is root of the machine, or of a user namespace, or neither. Spec: user_namespaces(7)."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

ALL_IDS: Final = 0xFFFFFFFF  # of the first user namespace


def is_machine_root() -> bool:
    """Whether this is root of the machine, and not of a user namespace, whose rights end with its ids."""
    return os.geteuid() == 0 and id_count("uid") >= ALL_IDS


def id_count(kind: str) -> int:
    """How many ids (``uid``, ``gid``) this process's user namespace has; 0 where that is not known."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/self/{kind}_map") as file:
        return sum(int(line.split()[2]) for line in file)
    return 0
