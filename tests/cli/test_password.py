"""``--creds`` of a pull: the password on stdin, asked for on a terminal, or in the environment; in no command line."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import fastoci
from conftest import Cli
from fastoci.testing.auth import Basic
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

SOURCE = str(Path(fastoci.__file__).parents[1])
SECRET = "pass:word of §"
IMAGE = Image.build([Layer.build([Entry("file", "file", b"")])])

Pull = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def name() -> Iterator[str]:
    """An image that only ``puller`` may have."""
    with serve(Registry(Basic("puller", SECRET))) as registry:
        registry.add_image("app", "latest", IMAGE)
        yield f"{registry.address}/app"


@pytest.fixture
def pull(name: str, tmp_path: Path, cli: Cli) -> Pull:
    def run(*options: str, given: str = "", creds: str | None = None) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **({} if creds is None else {"FASTOCI_CREDS": creds})}
        return cli("pull", name, "--store", tmp_path / "store", *options, given=given, environ=environ)

    return run


@pytest.mark.attack
@pytest.mark.parametrize(
    ("options", "given", "creds"),
    [
        (["--creds", "puller", "--password-stdin"], SECRET, None),
        (["--creds", "puller", "--password-stdin"], f"{SECRET}\n", None),
        ([], "", f"puller:{SECRET}"),
        (["--password-stdin"], SECRET, "puller"),
        (["--creds", "puller", "--password-stdin"], SECRET, "other:word"),
    ],
)
def test_a_password_need_not_be_on_the_command_line(
    pull: Pull, options: list[str], given: str, creds: str | None
) -> None:
    done = pull(*options, given=given, creds=creds)
    assert (done.returncode, done.stderr.count(SECRET)) == (0, 0), done.stderr


@pytest.mark.parametrize("creds", [None, ""])
def test_without_credentials_a_pull_is_refused(pull: Pull, creds: str | None) -> None:
    done = pull(creds=creds)
    assert done.returncode == 4
    assert "--creds USER" in done.stderr


@pytest.mark.parametrize(
    ("options", "given", "creds", "wrong"),
    [
        (["--password-stdin"], SECRET, None, "--password-stdin needs --creds USER"),
        (["--creds", "puller"], "", None, "no terminal to ask on"),
        (["--creds", "puller", "--password-stdin"], "", None, "stdin holds no password"),
        (["--creds", "puller", "--password-stdin"], "a\nb", None, "stdin holds no password"),
        (["--creds", "puller", "--password-stdin"], "a" * 65537, None, "stdin holds no password"),
        (["--creds", f"puller:{SECRET}", "--password-stdin"], SECRET, None, "--creds has a password"),
        (["--creds", f":{SECRET}"], "", None, "expected USER or USER:PASSWORD"),
        ([], "", f":{SECRET}", "expected USER or USER:PASSWORD"),
        ([], "", "puller", "no terminal to ask on"),
    ],
)
def test_wrong_usage_ends_with_2_and_tells_no_secret(
    pull: Pull, options: list[str], given: str, creds: str | None, wrong: str
) -> None:
    done = pull(*options, given=given, creds=creds)
    assert done.returncode == 2
    assert wrong in " ".join(done.stderr.split())
    assert SECRET not in done.stderr


def test_a_terminal_is_asked_and_shows_no_password(name: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fastoci", "pull", name, "--store", str(tmp_path / "store"), "--creds", "puller"]
    shown = b""
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": SOURCE},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        while b"Password: " not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, f"{SECRET}\n".encode())
        with suppress(OSError):  # EIO: the other side has closed
            while data := os.read(ours, 4096):
                shown += data
    os.close(ours)
    assert process.returncode == 0, shown
    assert SECRET.encode() not in shown
