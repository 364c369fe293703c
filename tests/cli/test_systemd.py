"""What a service manager is told, and that nobody who does not listen is waited for."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.cli.systemd import ServiceManager


@pytest.fixture(params=["in the file system", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket that is told, and its name in the environment."""
    name = str(tmp_path / "notify") if request.param == "in the file system" else f"@fastoci-{tmp_path}"[:100]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name if name.startswith("/") else "\0" + name[1:])
        receiver.setblocking(False)
        yield name, receiver


def test_each_message_is_one_datagram(listening: tuple[str, socket.socket]) -> None:
    name, receiver = listening
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    manager.status("at work")
    before = time.monotonic_ns() // 1000
    manager.reloading()
    manager.ready("done")
    manager.keepalive()
    manager.stopping()
    assert receiver.recv(1000) == b"STATUS=at work"
    reloading, since = receiver.recv(1000).split(b"\n")
    assert reloading == b"RELOADING=1"
    assert before <= int(since.removeprefix(b"MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert [receiver.recv(1000) for _ in range(3)] == [b"READY=1\nSTATUS=done", b"WATCHDOG=1", b"STOPPING=1"]


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1234", "/nowhere/notify", "/" + "n" * 200, "@" + "n" * 200])
def test_a_socket_that_cannot_be_reached_fails_nothing(name: str) -> None:
    ServiceManager({"NOTIFY_SOCKET": name}).ready("done")


def test_a_service_manager_that_does_not_read_is_not_waited_for(listening: tuple[str, socket.socket]) -> None:
    name, receiver = listening
    manager, came = ServiceManager({"NOTIFY_SOCKET": name}), 0
    for _ in range(3_000):  # the kernel keeps some hundred
        manager.keepalive()
    while True:
        try:
            receiver.recv(1000)
        except BlockingIOError:
            break
        came += 1
    assert 0 < came < 3_000


@pytest.mark.parametrize(
    ("variables", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "NOTIFY_SOCKET": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
    ids=["on", "of this process", "of another process", "nobody listens", "zero", "negative", "no number", "off"],
)
def test_the_watchdog_is_fed_twice_in_its_time(variables: dict[str, str], interval_s: float | None) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/run/notify", **variables}).keepalive_s == interval_s
