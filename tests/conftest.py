"""What all tests share: the peers they run against, a clean environment, and checks that nothing leaks.

``FASTOCI_REQUIRE_PEERS=1`` turns the skip for a missing peer program or folder ``shared`` into a failure.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import inspect
import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]

from support import first_imports, wait_watchdog
from support.loop_watchdog import LIMIT_S, Watchdog
from support.scheduling import Scheduling
from support.scratch import scratch
from support.warm_program import Ended, WarmProgram, started_warm_program

ROOT = Path(__file__).resolve().parents[1]
# a test is no stopwatch, on a busy machine or under the sanitizers least of all
hypothesis.settings.register_profile("fastoci", deadline=None)
hypothesis.settings.load_profile("fastoci")

REQUIRED = os.environ.get("FASTOCI_REQUIRE_PEERS") == "1"

USER, PASSWORD = "puller", "correct horse battery"
_HTPASSWD = "puller:$2b$04$abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS\n"  # bcrypt of PASSWORD, cost 4

_ACCESS = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[0-9.]+" (?P<status>[0-9]{3}) (?P<size>[0-9]+) ')
_LISTENING = re.compile(r"listening on (?P<address>127\.0\.0\.1:[0-9]+)")


def _absent(reason: str) -> None:
    if REQUIRED:
        pytest.fail(f"{reason} (FASTOCI_REQUIRE_PEERS=1)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of images and corpora beside the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        _absent(f"no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def peer() -> Callable[[str], str]:
    """``peer("skopeo")`` is the path of a program that the test needs."""

    def find(name: str) -> str:
        path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if path is None:
            _absent(f"{name} is not installed")
        assert path is not None
        return path

    return find


@dataclass(frozen=True, slots=True)
class Access:
    """One line of the access log."""

    method: str
    path: str
    status: int
    size: int


class DockerRegistry:
    """A running docker-registry and its access log."""

    def __init__(self, address: str, log: Path) -> None:
        self.address = address
        self._log = log
        self._marks = 0

    def position(self) -> int:
        """Where the access log stands, for ``accesses``."""
        return len(self._lines())

    def accesses(self, since: int = 0) -> list[Access]:
        """The requests answered since a ``position``."""
        return [access for access in self._lines()[since:] if "fastoci-mark=" not in access.path]

    def _lines(self) -> list[Access]:
        # A line is written after its answer is sent. One that is written after ours is asked for now ends the wait.
        self._marks += 1
        mark = f"/v2/?fastoci-mark={self._marks}"
        connection = http.client.HTTPConnection(self.address, timeout=10)
        connection.request("GET", mark)
        connection.getresponse().read()
        connection.close()
        found: list[Access] = []

        def marked() -> bool:
            found[:] = [
                Access(match["method"], match["path"], int(match["status"]), int(match["size"]))
                for match in _ACCESS.finditer(self._log.read_text(errors="replace"))
            ]
            return any(access.path == mark for access in found)

        _wait_until(marked, "the registry's access log")
        return found


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited 20 s for {what}")
        time.sleep(0.01)


@contextmanager
def docker_registry_process(program: str, *, htpasswd: str = "") -> Iterator[DockerRegistry]:
    """Run Debian's docker-registry on a free loopback port."""
    with scratch("registry") as directory:
        config, log = directory / "config.yml", directory / "log"
        auth = f"auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}\n" if htpasswd else ""
        (directory / "htpasswd").write_text(htpasswd)
        config.write_text(
            "version: 0.1\n"
            "log: {level: info, accesslog: {disabled: false}}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}\n"
            "compatibility: {schema1: {enabled: true}}\n"
            f"http: {{addr: '127.0.0.1:0'}}\n{auth}"
        )
        with log.open("wb") as output:
            process = subprocess.Popen([program, "serve", str(config)], stdout=output, stderr=output)
        try:
            _wait_until(
                lambda: process.poll() is not None or bool(_LISTENING.search(log.read_text())),
                "docker-registry to listen",
            )
            match = _LISTENING.search(log.read_text())
            assert match, log.read_text()
            yield DockerRegistry(match["address"], log)
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def docker_registry(peer: Callable[[str], str]) -> Iterator[DockerRegistry]:
    """Debian's docker-registry, anonymous; tests share it, so each uses repository names of its own."""
    with docker_registry_process(peer("docker-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def private_registry(peer: Callable[[str], str]) -> Iterator[DockerRegistry]:
    """Debian's docker-registry that wants Basic authentication as ``USER`` with ``PASSWORD``."""
    with docker_registry_process(peer("docker-registry"), htpasswd=_HTPASSWD) as registry:
        yield registry


@pytest.fixture(scope="session")
def registry_credentials() -> tuple[str, str]:
    """Who may read ``private_registry``: user and password."""
    return USER, PASSWORD


class CopyImage(Protocol):
    """``copy_image("oci:DIR:name", "docker://HOST/name:tag", "--all")``."""

    def __call__(self, source: str, destination: str, *options: str) -> None: ...


@pytest.fixture(scope="session")
def copy_image(peer: Callable[[str], str]) -> CopyImage:
    """Copy an image by skopeo, over plain http where a registry is concerned."""

    def copy(source: str, destination: str, *options: str) -> None:
        flags = ["--src-tls-verify=false", "--dest-tls-verify=false", *options]
        command = [peer("skopeo"), "--insecure-policy", "copy", "-q", *flags, source, destination]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return copy


class Cli(Protocol):
    """``cli("pull", REF)`` runs the program; a test looks at ``returncode``, ``stdout`` and ``stderr``.

    The rest is as for ``WarmProgram.run``.
    """

    def __call__(
        self, *arguments: str | Path, given: str = "", environ: Mapping[str, str] | None = None, hasty: bool = False
    ) -> Ended: ...


@pytest.fixture(scope="session")
def warm_program() -> Iterator[WarmProgram]:
    """What forks fastoci; it has all loaded."""
    with started_warm_program() as program:
        yield program


@pytest.fixture
def cli(clean_environment: None, warm_program: WarmProgram) -> Cli:
    """Run fastoci as a process of its own, in the environment of the test."""
    return warm_program.run


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """The log of the process as it was before."""
    root = logging.getLogger("fastoci")
    before = list(root.handlers), root.level, root.propagate
    yield
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No settings or credentials from outside; the home directory is empty."""
    for name in list(os.environ):
        if (
            name.startswith(("FASTOCI_", "DOCKER_", "XDG_", "CONTAINERS_", "CONTAINERD_"))
            or name == "REGISTRY_AUTH_FILE"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def no_leaked_tasks(request: pytest.FixtureRequest) -> None:
    """An async test fails when it leaves tasks behind."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_tasks_end")


@pytest.fixture
async def _tasks_end() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    leaked = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
    assert not leaked, f"leaked tasks: {leaked}"


_WATCHDOG = Watchdog()


def pytest_configure(config: pytest.Config) -> None:
    """From here on all loops and tests are watched."""
    _WATCHDOG.install()
    config.pluginmanager.register(wait_watchdog.Watchdog())


def pytest_sessionstart(session: pytest.Session) -> None:
    """Workers share the work of compiling the tests."""
    first_imports.import_from(session.config, ROOT / "tests")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """No bytes in the name of a test, since all workers must collect the same names.

    What ``gzip.compress`` writes has the second in it.
    """
    return argname if isinstance(val, bytes | bytearray) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """With ``-n``, tests that share what is dear to set up have one worker."""
    return Scheduling(config, log)


@pytest.fixture
def watchdog() -> Watchdog:
    """Who watches the loops."""
    return _WATCHDOG


@pytest.fixture(autouse=True)
def loops_yield() -> Iterator[None]:
    """A test fails when a loop did not yield for a second of its own CPU time: no timeout fires on such a loop."""
    yield
    blocked, _WATCHDOG.blocked = _WATCHDOG.blocked, []
    assert not blocked, f"a loop did not yield for {LIMIT_S:g} s of CPU time, at\n" + "\n".join(blocked)


_DESCRIPTORS = pytest.StashKey[dict[int, str]]()


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[_DESCRIPTORS] = _descriptors()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """A test fails when more descriptors are open after its fixtures' end than before their start."""
    result = yield
    before = item.stash[_DESCRIPTORS]
    leaked = _new(before)
    if leaked:
        gc.collect()  # what a cycle still holds is no leak
        leaked = _new(before)
    assert not leaked, f"leaked descriptors: {leaked}"
    return result


def _new(before: dict[int, str]) -> dict[int, str]:
    return {number: target for number, target in _descriptors().items() if before.get(number) != target}
