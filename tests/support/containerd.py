"""A containerd of our own: content and native snapshots, nothing that needs the machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CRI = '"io.containerd.grpc.v1.cri", '
_CONFIG = """\
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = [{cri}"io.containerd.internal.v1.opt",
 "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
 "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{home}/sock"
[ttrpc]
address = "{home}/sock.ttrpc"
[plugins."io.containerd.gc.v1.scheduler"]
pause_threshold = 0.5
schedule_delay = "0s"
startup_delay = "10ms"
"""


class Daemon:
    """containerd, which keeps all in ``home``. ``socket`` is its address, ``content`` where it has blobs.

    Args:
        ctr: its client.
        policy: of sharing content between namespaces.
        cri: it takes the kubelet's calls.
        more: lines of its configuration; a snapshotter that they are about is used.
    """

    def __init__(
        self, home: Path, program: str, ctr: str, *, policy: str = "shared", cri: bool = False, more: str = ""
    ) -> None:
        self.home = home
        self.socket = home / "sock"
        self.root = home / "root"
        self.content = self.root / "io.containerd.content.v1.content"
        self._program = program
        self._ctr = ctr
        self._process: subprocess.Popen[bytes] | None = None
        bolt = f'[plugins."io.containerd.metadata.v1.bolt"]\ncontent_sharing_policy = "{policy}"\n'
        text = _CONFIG.format(home=home, cri="" if cri else _CRI)
        if "snapshotter.v1.btrfs" in more:
            text = text.replace('"io.containerd.snapshotter.v1.btrfs", ', "")
        (home / "config.toml").write_text(text + bolt + more)

    @property
    def blobs(self) -> Path:
        """The directory of its blobs."""
        return self.content / "blobs" / "sha256"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.home / "log").open("ab") as log:
            command = [self._program, "--config", str(self.home / "config.toml")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(20)

    def log(self) -> str:
        """What it said."""
        return (self.home / "log").read_text()

    def run(self, *arguments: str, namespace: str = "default") -> str:
        """What ``ctr`` says, of a namespace."""
        command = [self._ctr, "--address", str(self.socket), "--namespace", namespace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def pull(self, name: str, namespace: str) -> str:
        """Pull an image of a registry without TLS by containerd's own means, and unpack it; what that says."""
        local = ["--local"] if "--local" in self.run("images", "pull", "--help") else []  # 2.x: native is unknown else
        pull = ["images", "pull", *local, "--plain-http", "--snapshotter", "native", name]
        return self.run(*pull, namespace=namespace)

    def names(self, namespace: str, kind: str = "images") -> set[str]:
        """What there is of a kind."""
        command = [self._ctr, "--address", str(self.socket), "--namespace", namespace, kind, "ls", "-q"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return set(done.stdout.split())

    def clear(self, namespace: str) -> None:
        """Forget all leases and images of a namespace, and their blobs."""
        if leases := self.names(namespace, "leases"):
            self.run("leases", "rm", *leases, namespace=namespace)
        if names := self.names(namespace):
            self.run("images", "rm", "--sync", *names, namespace=namespace)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(self.socket))
            return True
        return False


@contextmanager
def daemon(
    home: Path, program: str, ctr: str, *, policy: str = "shared", cri: bool = False, more: str = ""
) -> Iterator[Daemon]:
    """A containerd that runs."""
    started = Daemon(home, program, ctr, policy=policy, cri=cri, more=more)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@contextmanager
def containerd(program: str, ctr: str, home: Path) -> Iterator[Callable[..., str]]:
    """Run ``ctr`` against a containerd that keeps all in ``home``; what it says."""
    with daemon(home, program, ctr) as started:
        yield started.run


class Wire:
    """A socket before a daemon's, which counts what clients send, and can cut them off.

    Attributes:
        sent: bytes that clients sent.
        calls: calls that they began.
        at_call: is called with the number of each call before it is handed on; what it returns is whether it is.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.sent = 0
        self.calls = 0
        self.at_call: Callable[[int], bool] = lambda number: True
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Wire:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def cut(self) -> None:
        """End all connections."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            self._sockets += [client, server]
            server.connect(str(self._target))
            for work in (self._up, self._down):
                thread = threading.Thread(target=work, args=(client, server), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        """Hand on frame by frame: RFC 9113, 4.1. A frame of HEADERS begins a call."""
        with suppress(OSError, EOFError):
            server.sendall(self._read(client, 24))  # the preface
            while True:
                head = self._read(client, 9)
                frame = head + self._read(client, int.from_bytes(head[:3], "big"))
                if head[3] == 1:
                    self.calls += 1
                    if not self.at_call(self.calls):
                        break
                server.sendall(frame)
        for each in (client, server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _read(self, client: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = client.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        self.sent += size
        return data


def programs() -> list[tuple[str, str]]:
    """Each containerd on PATH with the ctr beside it, those of Debian and newer ones."""
    found: dict[str, tuple[str, str]] = {}
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        program, ctr = os.path.join(directory, "containerd"), os.path.join(directory, "ctr")
        if os.access(program, os.X_OK) and os.access(ctr, os.X_OK):
            found.setdefault(os.path.realpath(program), (program, ctr))
    return list(found.values())


def labels_of(listed: str, digest: str) -> dict[str, str]:
    """The labels of a blob in what ``ctr content ls`` says."""
    line = next(line for line in listed.splitlines() if line.startswith(digest))
    pairs = (pair.split("=", 1) for pair in line.split("\t")[-1].split(",") if "=" in pair)
    return {key: value for key, value in pairs}


def facts(text: str) -> dict[str, object]:
    """The JSON that a command prints."""
    parsed: dict[str, object] = json.loads(text)
    return parsed
