"""What the service manager is told, by systemd's protocol: datagrams to a socket. Never blocks, and fails nothing.

Without a service manager nobody is told anything.
Spec: sd_notify(3), sd_watchdog_enabled(3); systemd.service(5), ``Type=notify-reload``.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_SOCKET: Final = "NOTIFY_SOCKET"


class ServiceManager:
    """The service manager that started this process, as its environment says."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get(_SOCKET, ""))
        self._watchdog_s = _watchdog_s(environ) if self._address else None

    @property
    def keepalive_s(self) -> float | None:
        """Seconds between two calls of ``keepalive``: half of the time that the watchdog waits; None without one."""
        return None if self._watchdog_s is None else self._watchdog_s / 2

    def ready(self, status: str) -> None:
        """The service is up, or has read anew what it was asked to."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line on what the service does."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """The service reads anew what it is to do; ``ready`` is the end of that."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._send("STOPPING=1")

    def keepalive(self) -> None:
        """The service is not hung."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if self._address is not None:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(text.encode(), self._address)


def _address(name: str) -> bytes | None:
    """The address of a socket in the file system, or of an abstract one, whose name begins with ``@``."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """The seconds of the watchdog of this process."""
    time_us, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
    if re.fullmatch(r"[0-9]{1,18}", time_us) is None or process != str(os.getpid()):
        return None
    return int(time_us) / 1e6 or None
