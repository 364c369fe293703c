"""``fastoci differ`` as a process behind a listener that outlives it, and what it says of itself.

Covers: cli/commands/differ.py, cli/results/layer_metrics.py, cli/containerd_options.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastoci.containerd import methods
from fastoci.containerd.messages import ApplyRequest, ApplyResponse, Descriptor, Mount
from fastoci.containerd.rpc import Connection
from fastoci.errors import ContainerdError
from fastoci.testing.layers import Entry, Layer, tar
from support.differ_process import passed_differ
from support.differ_scene import METADATA, FakeContainerd
from support.other_user import other_user
from support.scratch import scratch

MANY = [Entry(f"{number:06}") for number in range(20_000)]
FEW = MANY[:10]


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch("differ") as path:
        yield path


@pytest.fixture
async def containerd(home: Path) -> AsyncIterator[FakeContainerd]:
    found = FakeContainerd(home)
    async with found.serving():
        yield found


def blob(entries: list[Entry]) -> bytes:
    content = Layer.build(entries).content
    assert isinstance(content, bytes)
    return content


async def apply(path: Path, layer: Descriptor, target: Path) -> str:
    request = ApplyRequest(layer, (Mount("bind", str(target)),))
    async with await Connection.open(str(path)) as connection:
        applied = ApplyResponse.decode(await connection.call(methods.APPLY, request.encode(), METADATA)).applied
        assert applied is not None
        return applied.digest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


async def test_a_differ_that_is_killed_at_work_is_started_by_the_next_call(
    home: Path, containerd: FakeContainerd
) -> None:
    first, second = home / "first", home / "second"
    first.mkdir()
    second.mkdir()
    many, few = containerd.add(blob(MANY)), containerd.add(blob(FEW))
    with passed_differ(home, "--containerd-address", str(containerd.socket)) as differ:
        task = asyncio.create_task(apply(home / "differ.sock", many, first))
        async with asyncio.timeout(30):
            while not any(first.iterdir()):  # noqa: ASYNC110 (of another process)
                await asyncio.sleep(0.001)
        await asyncio.to_thread(differ.kill)
        with pytest.raises(ContainerdError):
            await task
        assert await apply(home / "differ.sock", few, second) == str(Layer.build(FEW).diff_id)
        assert differ.started == 2
        assert await asyncio.to_thread(differ.stop) == 0


async def test_each_call_has_a_line_and_is_counted(home: Path, containerd: FakeContainerd) -> None:
    target, port = home / "target", free_port()
    target.mkdir()
    layer = containerd.add(blob(FEW))
    options = ["--containerd-address", str(containerd.socket), "--metrics-port", str(port)]
    with passed_differ(home, *options) as differ:
        await apply(home / "differ.sock", layer, target)
        with pytest.raises(ContainerdError):
            await apply(home / "differ.sock", layer, home / "absent")

        def fetch() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                text: bytes = answer.read()
                return text.decode()

        metrics = await asyncio.to_thread(fetch)
        await asyncio.to_thread(differ.stop)
    done, refused = differ.log.read_text().splitlines()
    assert done.startswith(f"apply {layer.digest} done, 0.")
    assert done.endswith(f" s, {layer.size} bytes, 10 entries, {sum(map(len, tar(FEW)))} bytes of tar")
    assert refused.startswith(f"apply {layer.digest} refused, ")
    assert "No such file or directory" in refused
    assert 'fastoci_differ_calls_total{method="apply",outcome="done"} 1.0' in metrics
    assert 'fastoci_differ_calls_total{method="apply",outcome="refused"} 1.0' in metrics
    assert "fastoci_differ_entries_total 10.0" in metrics
    assert "fastoci_differ_calls_under_way 0.0" in metrics


async def test_another_user_is_not_let_in(home: Path) -> None:
    """Also where the socket's mode would let that user connect, as a passed listener's may."""
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "try: print(s.recv(100))\n"
        "except ConnectionResetError: print(b'')"
    )
    with (
        other_user(with_ids=False) as user,
        passed_differ(user.place, "--containerd-address", str(home / "none")) as differ,
    ):
        (user.place / "differ.sock").chmod(0o666)
        done = await asyncio.to_thread(user.run, "python", "-c", code, user.place / "differ.sock")
        assert done.stdout == "b''\n"
        assert "user 54321, is refused" in differ.log.read_text()


def test_a_differ_with_a_socket_of_its_own_ends_by_a_signal_and_leaves_nothing(home: Path) -> None:
    path = home / "own.sock"
    command = [sys.executable, "-m", "fastoci", "differ", "--socket", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with process:
        while not path.exists() and process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
        process.terminate()
        assert process.wait(30) in (0, 143)
    assert not path.exists()


def test_a_differ_without_a_socket_says_so(home: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "fastoci", "differ"], capture_output=True, text=True, check=False)
    assert (done.returncode, "--socket" in done.stderr) == (2, True)
