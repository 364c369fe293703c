"""``--nice``: this program gives way, at the CPU and at the disk, to whatever else the machine does.

Threads and processes that start later inherit it. Nothing needs a privilege; a sandbox may refuse it all the same.
Spec: setpriority(2), ioprio_set(2).
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Final

_NICE: Final = 19  # a busy loop on the same core loses 2 % to it, and 10 % to 10
_IDLE: Final = 3 << 13  # the class of those that get the disk when nobody else wants it
_SELF: Final = 1, 0  # IOPRIO_WHO_PROCESS, this thread
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}


def lower() -> list[str]:
    """Take the lowest CPU priority and the idle I/O class; what could not be done, in words."""
    problems = []
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    except OSError as error:
        problems.append(f"the CPU priority stays as it is: {error.strerror}")
    try:
        _be_idle()
    except OSError as error:
        problems.append(f"the I/O class stays as it is: {error.strerror}")
    return problems


def _be_idle() -> None:
    import ctypes  # not at the start of every command

    number = _IOPRIO_SET.get(platform.machine()) if sys.maxsize > 1 << 32 else None
    if number is None:
        raise OSError(0, "nobody knows how to ask this kernel")
    if ctypes.CDLL(None, use_errno=True).syscall(number, *_SELF, _IDLE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
