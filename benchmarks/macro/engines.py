"""Container engines with everything they keep below one directory, and their sockets and locks in a short one.

An engine is fresh, so that its pull is cold. What a daemon does for the pull is counted with the command that asks it.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import scratch
from benchmarks.measure import Usage, measure, variables

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_AT_ONCE = 4  # pulls by one containerd
_CONTAINERD = """\
version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{sockets}/socket"
[ttrpc]
address = "{sockets}/ttrpc"
[plugins."io.containerd.transfer.v1.local"]
max_concurrent_unpacks = {unpacks}
"""
# Beside so many layers at a time: what its documentation advises for fast networks.
_TUNED = """\
max_concurrent_downloads = 8
concurrent_layer_fetch_buffer = 16777216
"""


class Daemon(NamedTuple):
    """A containerd that runs."""

    address: str
    pid: int


def podman(program: str, references: Sequence[str], target: Path) -> Usage:
    """``podman pull`` of all into storage of its own, where it keeps blobs meanwhile too."""
    (target / "tmp").mkdir()
    with _short() as run:
        places = [f"--root={target}/root", f"--runroot={run}/run", f"--tmpdir={target}/engine"]
        pull = [program, *places, "--storage-driver=overlay", "pull", "--quiet", "--tls-verify=false"]
        return measure(["env", f"TMPDIR={target}/tmp", *pull, *references])


def containerd(program: str, references: Sequence[str], target: Path) -> Usage:
    """``ctr images pull`` of each, four at a time, with a containerd from the same folder, or else from PATH."""
    beside = Path(program).with_name("containerd")
    program_beside = str(beside) if beside.exists() else "containerd"
    with daemon(target, unpacks=_AT_ONCE, program=program_beside, more=_TUNED) as running:
        pull = [program, "--address", running.address, "images", "pull", "--plain-http", "--snapshotter=overlayfs"]
        each = shlex.join(["xargs", f"--max-procs={_AT_ONCE}", "--max-args=1", *pull])
        listed, log = (shlex.quote(str(target / name)) for name in ("list", "log"))
        (target / "list").write_text("\n".join(references))
        return counted(["sh", "-c", f"exec {each} <{listed} >{log} 2>&1"], running.pid)


def counted(command: Sequence[str], *daemons: int) -> Usage:
    """Run a command; what it and these processes took meanwhile, with the children that they have waited for."""
    before = sum(map(cpu_s, daemons))
    usage = measure(command)
    spent = usage.cpu_s + sum(map(cpu_s, daemons)) - before
    return Usage(usage.wall_s, spent, max(usage.rss, *map(peak, daemons)))


@contextmanager
def daemon(target: Path, *, unpacks: int, program: str = "containerd", more: str = "") -> Iterator[Daemon]:
    """Run a containerd that keeps all below ``target``.

    Args:
        unpacks: layers of an image at a time.
        more: lines of its configuration, first those of its transfers.
    """
    with _short() as sockets:
        text = _CONTAINERD.format(root=target, sockets=sockets, unpacks=unpacks)
        (target / "config.toml").write_text(text + more)
        with process([program, "--config", f"{target}/config.toml"], target, sockets / "socket") as pid:
            yield Daemon(f"{sockets}/socket", pid)


@contextmanager
def _short() -> Iterator[Path]:
    """A directory for sockets and locks: a socket's path may have 107 characters, podman's runroot for 50."""
    path = Path(tempfile.mkdtemp(prefix="fastoci-"))
    try:
        yield path
    finally:
        scratch.clear(path)


@contextmanager
def process(command: Sequence[str], target: Path, address: Path) -> Iterator[int]:
    """Run a process that listens at a socket; its log is below ``target``."""
    name = target / f"{Path(command[0]).name}.log"
    with name.open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, env={**variables(), "TMPDIR": str(target)})
    try:
        _wait(running, address, name)
        yield running.pid
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()


def _wait(process: subprocess.Popen[bytes], address: Path, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(address))
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{log.name} does not answer: {log.read_text()[-2000:]}") from error
            time.sleep(0.05)


def cpu_s(process: int) -> float:
    """User and system time of a process and the children it has waited for."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_S


def peak(process: int) -> int:
    """The largest resident set of a process so far, in bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
