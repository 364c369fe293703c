"""Whether a path leads to the same directory here and for containerd, which may have mounts of its own.

Spec: proc(5), ``/proc/PID/root``.
"""

from __future__ import annotations

import os
from contextlib import suppress

from fastoci.errors import StoreError


def demand_same(path: str, fd: int, pid: int) -> None:
    """Refuse a directory that has the path here, and another one for containerd: in a container, perhaps.

    Args:
        fd: the directory, open.
        pid: containerd's process, 0 when it is not known.
    Raises:
        StoreError: it is another one.
    """
    with suppress(FileNotFoundError, PermissionError):  # nobody can tell
        if pid and not os.path.samestat(os.stat(f"/proc/{pid}/root{path}"), os.fstat(fd)):
            raise StoreError(f"{path} is another directory for containerd: it has mounts of its own", path=path)
