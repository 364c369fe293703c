"""``fastoci prefetch --every`` as a service manager runs it: a process, and what it says on ``NOTIFY_SOCKET``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from support.scratch import SOURCE

_PATIENCE_S: Final = 60.0  # of a test, for one message
_LOOK_S: Final = 0.5  # between two looks whether the process is there


class Service:
    """One process of the program.

    Args:
        arguments: of ``fastoci prefetch``.
        directory: gets what the process prints, as ``stdout`` and ``stderr``.
    """

    def __init__(self, arguments: list[str | Path], directory: Path, receiver: socket.socket) -> None:
        self.stdout, self.stderr = directory / "stdout", directory / "stderr"
        self._receiver = receiver
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "NOTIFY_SOCKET": receiver.getsockname()}
        command = ["env", "--default-signal=INT,TERM,HUP", sys.executable, "-m", "fastoci", "prefetch", *arguments]
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr)

    def heard(self) -> str:
        """The next message."""
        deadline = time.monotonic() + _PATIENCE_S
        self._receiver.settimeout(_LOOK_S)
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(TimeoutError):
                return self._receiver.recv(4096).decode()
        raise AssertionError(f"{self.process.returncode}: {self.stderr.read_text()}")

    def rest(self) -> list[str]:
        """What it said that nobody took yet."""
        self._receiver.setblocking(False)
        messages = []
        with suppress(BlockingIOError):
            while True:
                messages.append(self._receiver.recv(4096).decode())
        return messages

    def ready(self) -> str:
        """Wait until a run is over and no other was asked for; what it came to."""
        while not (message := self.heard()).startswith("READY=1\nSTATUS="):
            pass
        return message.partition("STATUS=")[2].partition(";")[0]

    def reload(self) -> str:
        """Have it run now; what that came to."""
        self.process.send_signal(signal.SIGHUP)
        while not self.heard().startswith("RELOADING=1\nMONOTONIC_USEC="):
            pass
        return self.ready()

    def stop(self) -> int:
        """Stop it as a service manager does; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_PATIENCE_S)


@contextmanager
def service(directory: Path, *arguments: str | Path) -> Iterator[Service]:
    """A service that ends with the block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(directory / "notify"))
        running = Service(list(arguments), directory, receiver)
        try:
            yield running
        finally:
            running.process.kill()
            running.process.wait()
