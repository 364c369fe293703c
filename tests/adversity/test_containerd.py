"""Images on their way into a containerd whose gc runs all the time, and by a program that is killed at each call.

``FASTOCI_CONTAINERD_ROUNDS`` is how many blobs are recorded beside the gc, ``FASTOCI_CONTAINERD_KILLS`` at how many
calls a pull is killed, 0 at each of them: ``make containerd-storm``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from fastoci.containerd import labels
from fastoci.containerd.client import Client
from fastoci.containerd.content import ContentStore
from fastoci.image.descriptor import Descriptor
from fastoci.image.mediatype import OCI_LAYER
from fastoci.testing.registry import Registry, serve
from support.containerd import Daemon, Wire, daemon
from support.images import image_of, made
from support.scratch import scratch
from support.warm_program import WarmProgram

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containerd")
ROUNDS = int(os.environ.get("FASTOCI_CONTAINERD_ROUNDS", "40"))
KILLS = int(os.environ.get("FASTOCI_CONTAINERD_KILLS", "3"))
AT_ONCE = 4
DAY_S = 86400.0


@pytest.fixture
def running(peer: Callable[[str], str]) -> Iterator[Daemon]:
    with scratch("c") as home, daemon(home, peer("containerd"), peer("ctr")) as started:
        yield started


@pytest.fixture
def place() -> Iterator[Path]:
    with scratch("into") as place:
        yield place


def opened(path: Path, blob: Descriptor) -> int:
    return os.open(path, os.O_RDONLY)


class Storm:
    """Blobs that are recorded in one namespace, while what is recorded in another is collected again and again."""

    def __init__(self, running: Daemon, place: Path) -> None:
        self.running = running
        self.place = place
        self.collected = 0
        self.over = False

    def source(self, number: int, word: str) -> tuple[Descriptor, Path]:
        data = f"{word} {number}".encode()
        path = self.place / f"{word}{number}"
        path.write_bytes(data)
        path.chmod(0o444)
        return Descriptor.of(data, OCI_LAYER), path

    async def record(self, numbers: Iterator[int]) -> set[str]:
        """Record blobs, each under a lease of its own, and keep them when it ends; how they came."""
        ways: set[str] = set()
        address = str(self.running.socket)
        async with Client.open(address, "kept") as client, ContentStore(client) as content:
            for number in numbers:
                blob, path = self.source(number, "kept")
                async with client.lease():
                    recorded = await content.record(blob, labels.ref(blob), partial(opened, path), {labels.ROOT: "now"})
                    ways.add(recorded.how)
                assert (self.running.blobs / blob.digest.hex).read_bytes() == path.read_bytes()
        return ways

    async def collect(self) -> None:
        """Record a blob that nothing keeps, and wait until it is collected."""
        address = str(self.running.socket)
        async with Client.open(address, "garbage") as client, ContentStore(client) as content:
            while not self.over:
                blob, path = self.source(self.collected, "garbage")
                async with client.lease():
                    await content.record(blob, labels.ref(blob), partial(opened, path), {})
                swept = self.running.blobs / blob.digest.hex
                while swept.exists():  # noqa: ASYNC110 - by another process
                    await asyncio.sleep(0.001)
                self.collected += 1

    async def run(self) -> set[str]:
        collecting = asyncio.create_task(self.collect())
        numbers = iter(range(ROUNDS))
        try:
            found = await asyncio.gather(*(self.record(numbers) for _ in range(AT_ONCE)))
        finally:
            self.over = True
            await collecting
        return set().union(*found)


def test_blobs_that_are_recorded_beside_a_gc_are_all_there_and_no_orphan_is_left(running: Daemon, place: Path) -> None:
    storm = Storm(running, place)
    assert asyncio.run(storm.run()) <= {"link"}  # none of them after so many tries that its bytes were sent
    assert storm.collected > ROUNDS // 100
    expected = {hashlib.sha256(f"kept {number}".encode()).hexdigest() for number in range(ROUNDS)}
    assert {path.name for path in running.blobs.iterdir()} == expected
    assert running.run("content", "ls", namespace="kept").count("sha256:") == ROUNDS
    print(f"{ROUNDS} blobs recorded beside {storm.collected} collections")


class Kills:
    """Pulls that are killed at a call, by its number."""

    def __init__(self, running: Daemon, place: Path, warm: WarmProgram, name: str, how: str) -> None:
        self.running, self.place, self.warm, self.name, self.how = running, place, warm, name, how

    def pull(self, number: int, *, kill: bool = False) -> tuple[int, int]:
        """Pull into a namespace and store of the number's, and kill it at this call; how many there were, and its end.

        Of each second number the call is handed on all the same.
        """
        store = self.place / f"store{number}"
        with Wire(self.place / "wire", self.running.socket) as wire:
            command: list[str | Path] = ["pull", self.name, "--tls-verify=false", "--store", store, self.how]
            command += ["--into", f"containerd:n{number}", "--containerd-address", wire.path]
            with self.warm.start(*command, waits=True) as pulling:

                def at_call(call: int) -> bool:
                    if kill and call == number:
                        os.kill(pulling.pid, signal.SIGKILL)
                    return not kill or call != number or number % 2 == 1

                wire.at_call = at_call
                pulling.go()
                code = pulling.wait().returncode
        (self.place / "wire").unlink()
        return wire.calls, code

    def check_store(self, number: int) -> None:
        """What the store has is what its name says."""
        for path in (self.place / f"store{number}/blobs/sha256").iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name

    def check_leases(self, number: int) -> None:
        """A lease that is left ends by itself within a day."""
        for line in self.running.run("leases", "ls", namespace=f"n{number}").splitlines():
            if line.startswith("fastoci-"):
                text = line.split(f"{labels.EXPIRE}=")[1].split(",")[0].strip()
                expiry = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
                assert expiry < time.time() + DAY_S + 5

    def snapshots(self, number: int) -> list[str]:
        """Names of the snapshots of a namespace."""
        lines = self.running.run("snapshots", "--snapshotter", "native", "ls", namespace=f"n{number}").splitlines()
        return [line.split()[0] for line in lines if line.startswith(("sha256:", "extract-"))]

    def orphans(self, number: int) -> set[str]:
        """Files that nothing in the namespace is recorded as, when no other has any."""
        listed = self.running.run("content", "ls", "-q", namespace=f"n{number}").split()
        with suppress(FileNotFoundError):
            return {path.name for path in self.running.blobs.iterdir()} - {each.partition(":")[2] for each in listed}
        return set()


@pytest.mark.parametrize("how", ["--no-unpack", "--snapshotter=native"], ids=["recorded", "unpacked"])
def test_a_pull_that_is_killed_at_any_call_leaves_nothing_that_the_next_one_does_not_mend(
    running: Daemon, place: Path, warm_program: WarmProgram, how: str
) -> None:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", image_of(made(1, files=2, size=20_000), made(2, files=2, size=30_000)))
        kills = Kills(running, place, warm_program, f"{registry.address}/app:1", how)
        calls, code = kills.pull(0)
        assert code == 0
        whole = kills.snapshots(0)
        assert len(whole) == (0 if how == "--no-unpack" else 2)
        running.clear("n0")
        step = max(1, calls // KILLS) if KILLS else 1
        for number in range(max(1, step // 2), calls + 1, step):
            _, code = kills.pull(number, kill=True)
            assert code == -signal.SIGKILL
            kills.check_store(number)
            kills.check_leases(number)
            _, code = kills.pull(number)
            assert code == 0
            assert kills.orphans(number) == set()
            assert "complete (3/3)" in running.run("images", "check", "--snapshotter", "native", namespace=f"n{number}")
            assert [name for name in kills.snapshots(number) if name.startswith("sha256:")] == whole
            assert running.run("content", "active", namespace=f"n{number}").count("sha256") == 0
            running.clear(f"n{number}")
        print(f"{calls} calls")
