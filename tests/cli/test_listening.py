"""A passed listener is taken when it is meant for this process; an own one is this user's alone, and leaves nothing."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.cli.listening import own_listener, passed_listener
from fastoci.errors import ConfigError, StoreBusyError, StoreError
from support.scratch import scratch

NUMBER = 3  # the first descriptor that systemd passes


@pytest.fixture
def at() -> Iterator[Path]:
    with scratch("listening") as path:
        yield path / "socket"


@pytest.fixture
def passed(at: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(at))
        yield made


def variables(**others: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "differ.socket", **others}


def taken(environ: dict[str, str], passed: socket.socket) -> socket.socket | None:
    number = os.dup(passed.fileno())
    os.set_inheritable(number, True)
    found = None
    try:
        found = passed_listener(environ, first=number)
    finally:
        if found is None:
            os.close(number)
    return found


def test_a_listener_of_this_process_is_taken_and_its_variables_are_gone(passed: socket.socket) -> None:
    passed.listen()
    environ = {**variables(), "HOME": "/"}
    found = taken(environ, passed)
    assert found is not None
    with found:
        assert (found.getsockname(), found.get_inheritable(), found.getblocking()) == (
            passed.getsockname(),
            False,
            False,
        )
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    "others", [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": "0"}, {"LISTEN_FDS": ""}], ids=str
)
def test_what_is_meant_for_another_process_is_left(passed: socket.socket, others: dict[str, str]) -> None:
    assert taken(variables(**others), passed) is None


def test_something_else_than_one_listener_is_an_error_of_the_configuration(passed: socket.socket, at: Path) -> None:
    with pytest.raises(ConfigError, match="one listening socket"):
        taken(variables(LISTEN_FDS="2"), passed)
    with pytest.raises(ConfigError, match="not a listening Unix socket"):
        taken(variables(), passed)
    with at.with_name("file").open("wb") as file, pytest.raises(ConfigError, match="not a socket"):
        passed_listener(variables(), first=file.fileno())


def test_an_own_listener_is_this_users_alone_and_its_name_goes_with_it(at: Path) -> None:
    with own_listener(at):
        assert stat.S_IMODE(at.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(at))
    assert not at.exists()


def test_what_a_killed_process_left_is_replaced_and_another_process_is_not(at: Path, passed: socket.socket) -> None:
    with own_listener(at), pytest.raises(StoreBusyError, match="another process listens"), own_listener(at):
        pass


def test_nothing_else_is_replaced(at: Path) -> None:
    at.write_text("precious")
    with pytest.raises(StoreError, match="something else"), own_listener(at):
        pass
    assert at.read_text() == "precious"
    with pytest.raises(StoreError, match="cannot listen at"), own_listener(at.with_name("absent") / "socket"):
        pass
    with pytest.raises(StoreError, match="cannot listen at"), own_listener(at.with_name("x" * 200)):
        pass


def test_a_name_that_another_has_taken_meanwhile_stays(at: Path) -> None:
    with own_listener(at):
        at.unlink()
        at.write_text("another's")
    assert at.exists()
