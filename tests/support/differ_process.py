"""``fastoci differ`` as systemd runs it: the listener is the test's, and outlives each process."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from support.scratch import SOURCE

_END_S: Final = 30.0
_LOOK_S: Final = 0.05  # how late the end of the test is seen
# What systemd does between fork and exec: the listener has the number that it must have, and the variables say so.
_START: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", "fastoci", "differ", *sys.argv[2:]])
"""


class PassedDiffer:
    """A process of the differ; another is started when somebody connects and there is none."""

    def __init__(self, socket_path: Path, log: Path, arguments: list[str]) -> None:
        self.log = log
        log.touch()
        self.started = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(socket_path))
        self._listener.listen(64)
        self._arguments = arguments
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def warm(self) -> None:
        """Have a process that answers: containerd waits for a second alone, which is little on a busy machine."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_END_S)
            client.connect(self._listener.getsockname())
            client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
            assert client.recv(1)

    def kill(self) -> None:
        """End the process as nothing that cleans up is ended."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ask the process to end, and let no other come; its exit code."""
        self._over.set()
        self._thread.join()
        if self.process is None:
            return 0
        self.process.terminate()
        return self.process.wait(_END_S)

    def close(self) -> None:
        """End all."""
        self._over.set()
        self._thread.join()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._listener.close()

    def _watch(self) -> None:
        while not self._over.is_set():
            if self.process is not None and self.process.poll() is None:
                self._over.wait(_LOOK_S)
            elif select.select([self._listener], [], [], _LOOK_S)[0]:
                self._start()

    def _start(self) -> None:
        self.started += 1
        number = self._listener.fileno()
        command = [sys.executable, "-c", _START, str(number), *self._arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, pass_fds=[number], env={**os.environ, "PYTHONPATH": str(SOURCE)}
            )


@contextmanager
def passed_differ(home: Path, *arguments: str) -> Iterator[PassedDiffer]:
    """A differ behind ``home/differ.sock`` that says what it does in ``home/differ.log``."""
    running = PassedDiffer(home / "differ.sock", home / "differ.log", list(arguments))
    try:
        yield running
    finally:
        running.close()
