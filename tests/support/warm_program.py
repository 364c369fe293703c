"""fastoci as a process of its own, forked from one that has loaded it: to load it costs more than most commands do.

The process has its own argv, environment, working directory and streams, and ends as the interpreter ends: it waits
for threads, runs what ``atexit`` has and deletes what is unreachable. But what was loaded before stays as it is: to
take that apart costs ten times what most commands do. For tests of start-up itself, of imports, signals and closed
streams, ``python -m fastoci`` is the program.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Final, Self

import fastoci
from fastoci.registry.fetch import retry
from support.scratch import SOURCE, TESTS, scratch

_NUMBER_BYTES: Final = 8
_TIMEOUT_S: Final = 100.0
_ORPHANED_S: Final = 2.0  # between two looks whether those who ask are still there


class Ended(subprocess.CompletedProcess[str]):
    """How a command ended. ``peak``: the most memory that it had, in bytes."""

    def __init__(self, args: Sequence[str], returncode: int, stdout: str, stderr: str, *, peak: int) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.peak = peak


class WarmProgram:
    """The process that has fastoci loaded, for those who ask it.

    Args:
        address: the path of its socket.
    """

    def __init__(self, address: Path) -> None:
        self._address = str(address)

    def run(
        self,
        *arguments: str | Path,
        given: str = "",
        environ: Mapping[str, str] | None = None,
        hasty: bool = False,
        program: str = "fastoci.__main__",
    ) -> Ended:
        """A command to its end, as ``subprocess.run`` does it.

        Args:
            given: on its stdin.
            environ: its environment, that of the test when left out.
            hasty: where a try failed, the wait before the next is a hundredth of the longest that there might be.
            program: the module whose ``main`` is run.
        """
        with self.start(*arguments, given=given, environ=environ, hasty=hasty, program=program) as running:
            return running.wait()

    def start(
        self,
        *arguments: str | Path,
        given: str = "",
        environ: Mapping[str, str] | None = None,
        hasty: bool = False,
        program: str = "fastoci.__main__",
        waits: bool = False,
    ) -> Running:
        """Begin a command, as ``subprocess.Popen`` does it.

        Args:
            waits: before it does anything it waits for ``Running.go``. The rest is as for ``run``.
        """
        words = [str(each) for each in arguments]
        request = {
            "arguments": words,
            "environ": dict(os.environ if environ is None else environ),
            "at": os.getcwd(),
            "hasty": hasty,
            "program": program,
            "waits": waits,
        }
        with ExitStack() as held:
            streams = [os.memfd_create("stream") for _ in range(3)]
            for fd in streams:
                held.callback(os.close, fd)
            os.pwrite(streams[0], given.encode(), 0)
            connection = held.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(self._address)
            socket.send_fds(connection, [b"."], streams)
            connection.sendall(json.dumps(request).encode() + b"\n")
            number, (process,), _, _ = socket.recv_fds(connection, _NUMBER_BYTES, 1)
            held.callback(os.close, process)
            return Running(["fastoci", *words], int.from_bytes(number, "little"), process, streams, connection, held)


class Running:
    """A command under way. It is waited for at the end of its context; where that fails, it is killed before.

    Args:
        process: its descriptor, which names nothing else after its end.
        connection: tells how it ended.
        held: all that is open for it.
    """

    def __init__(
        self,
        command: Sequence[str],
        pid: int,
        process: int,
        streams: Sequence[int],
        connection: socket.socket,
        held: ExitStack,
    ) -> None:
        self.pid = pid
        self._command = command
        self._process = process
        self._streams = streams
        self._connection = connection
        self._held = held.pop_all()
        self._ended: Ended | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is not None:
            self.send_signal(signal.SIGKILL)
        self.wait()

    def go(self) -> None:
        """Let it begin, when it waits."""
        self._connection.sendall(b".")

    def poll(self) -> Ended | None:
        """How it ended, None when it has not."""
        if self._ended is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self._ended

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)

    def wait(self) -> Ended:
        """How it ended, once it has.

        Raises:
            TimeoutError: it does not; it is killed.
        """
        if self._ended is None:
            with self._held:
                self._connection.settimeout(_TIMEOUT_S)
                try:
                    code, peak = os.waitstatus_to_exitcode(_number(self._connection)), _number(self._connection)
                except TimeoutError:
                    signal.pidfd_send_signal(self._process, signal.SIGKILL)
                    raise
                _, stdout, stderr = map(_text, self._streams)
                self._ended = Ended(self._command, code, stdout, stderr, peak=peak)
        return self._ended


def _number(connection: socket.socket) -> int:
    data = b""
    while len(data) < _NUMBER_BYTES:
        more = connection.recv(_NUMBER_BYTES - len(data))
        assert more, "the process that forks has ended"
        data += more
    return int.from_bytes(data, "little")


@contextmanager
def started_warm_program(*, below: Sequence[str] = ()) -> Iterator[WarmProgram]:
    """The process, from its start to its end.

    Args:
        below: a command that runs another one in its place.
    """
    with scratch("warm") as directory:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{directory}/socket")
            listening.listen(64)
            process = subprocess.Popen(
                [*below, sys.executable, "-P", __file__, str(listening.fileno())],
                env={**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
            )
        try:
            yield WarmProgram(directory / "socket")
        finally:
            process.terminate()
            process.wait(20)


def _text(fd: int) -> str:
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    return io.StringIO(data.decode(), newline=None).read()


class _Forking:
    """Answers each connection with the process that does what it asks for, and with how that ended."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._running: dict[int, tuple[int, socket.socket]] = {}  # by the process's descriptor
        self.program = ""

    def serve(self) -> None:
        """Return in each process that is to be a ``program``; end when nobody is there any more who could ask."""
        parent = os.getppid()
        while os.getppid() == parent:
            for key, _ in self._selector.select(_ORPHANED_S):
                if key.fileobj is not self._listening:
                    self._ended(key.fd)
                elif self._begin():
                    return
        sys.exit()

    def _begin(self) -> bool:
        """Fork; whether this is the new process."""
        connection, _ = self._listening.accept()
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("rb") as asked:
            request = json.loads(asked.readline())
        if (pid := os.fork()) == 0:
            self._become(request, streams, connection)
            return True
        for each in streams:
            os.close(each)
        ended = os.pidfd_open(pid)
        socket.send_fds(connection, [pid.to_bytes(_NUMBER_BYTES, "little")], [ended])
        self._running[ended] = (pid, connection)
        self._selector.register(ended, selectors.EVENT_READ)
        return False

    def _become(self, request: dict[str, object], streams: Sequence[int], asked: socket.socket) -> None:
        """Keep nothing but what is loaded, and have what was asked for."""
        self._selector.close()
        self._listening.close()
        for ended, (_, connection) in self._running.items():
            os.close(ended)
            connection.close()
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
            os.close(fd)
        environ, arguments, at, program = (request[name] for name in ("environ", "arguments", "at", "program"))
        assert isinstance(environ, dict) and isinstance(arguments, list)
        assert isinstance(at, str) and isinstance(program, str)
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(at)
        sys.argv[1:] = arguments
        self.program = program
        if request["waits"]:
            asked.recv(1)
        asked.close()
        if request["hasty"]:
            vars(retry)["random"] = SimpleNamespace(random=lambda: 0.01)

    def _ended(self, ended: int) -> None:
        pid, connection = self._running.pop(ended)
        self._selector.unregister(ended)
        os.close(ended)
        _, status, usage = os.wait4(pid, 0)
        with connection, suppress(ConnectionError):  # whoever asked may be gone, by a timeout of its test
            for number in (status, usage.ru_maxrss << 10):
                connection.sendall(number.to_bytes(_NUMBER_BYTES, "little"))


def _load() -> None:
    """All modules of the program, and what these import."""
    for module in pkgutil.walk_packages(fastoci.__path__, "fastoci."):
        if not module.name.startswith(("fastoci.testing", "fastoci.__main__")):
            importlib.import_module(module.name)


def _end_quickly(ends: Sequence[int]) -> None:
    """The last thing that ``atexit`` runs: end here, when it is known how."""
    if ends:
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()  # what it holds may warn, or be told of, when it is deleted
        os._exit(ends[-1])


def _run(program: str, ends: list[int]) -> None:
    try:
        importlib.import_module(program).main()
    except SystemExit as end:
        if isinstance(end.code, int):
            ends.append(end.code)
        raise
    ends.append(0)


if __name__ == "__main__":
    _load()
    assert len(os.listdir("/proc/self/task")) == 1, "a thread is not there after a fork"
    ends: list[int] = []
    atexit.register(_end_quickly, ends)
    gc.collect()
    gc.freeze()  # no child looks through what it shares with all
    forking = _Forking(socket.socket(fileno=int(sys.argv[1])))
    forking.serve()
    _run(forking.program, ends)
