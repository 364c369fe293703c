"""A puller under test, run against one scenario: its files, its environment, and how it ended.

Knows nothing of right and wrong. The process runs in a group and a home directory of its own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastoci.testing.faults.server import USER, FaultServer

# Started between this process and the command: a child's peak begins with the memory of the one that forked it, and the
# server's images are in ours.
_LAUNCHER: Final = """
import os, sys
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    file.write(f"{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss}")
"""
_SEEN_S: Final = 10.0  # in which a second pull must have asked for something


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int  # negative: a signal
    late: bool  # killed because its time was over
    seconds: float
    peak: int  # bytes, of the largest of its processes; 0 when it was killed
    output: str  # stdout and stderr


@dataclass(frozen=True, slots=True)
class Workdir:
    """The directory of one scenario, with everything a command is pointed at."""

    root: Path

    @property
    def results(self) -> list[Path]:
        """Where a command may have put what it pulled."""
        return [self.root / "dir", self.root / "store"]

    def prepare(self, server: FaultServer) -> dict[str, str]:
        """Write the files, and return what the words of a command line stand for."""
        for name in ("dir", "store", "home", "config", "docker", "run"):
            (self.root / name).mkdir()
        auth = json.dumps({"auths": _auths(server)})
        for path in ("auth.json", "docker/config.json"):
            (self.root / path).write_text(auth)
        (self.root / "ca.pem").write_bytes(server.ca)
        user = self.root / "home" / ".config" / "containers"
        user.mkdir(parents=True)
        for directory in (self.root / "config", user):
            (directory / "registries.conf").write_text(_registries(server))
        hosts = self.root / "config" / "certs.d" / server.host
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(_hosts(server))
        (self.root / "home" / ".netrc").write_text(f"default login mallory password {server.proxy_password}\n")
        words = {name: str(self.root / name) for name in ("dir", "store", "config")}
        return {**words, "image": server.image, "ca": f"{self.root}/ca.pem", "authfile": f"{self.root}/auth.json"}

    def environment(self, server: FaultServer) -> dict[str, str]:
        """The environment of the command: this one's, without proxies, credentials and homes."""
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        root = self.root
        kept.update(HOME=f"{root}/home", XDG_CONFIG_HOME=f"{root}/home/.config", XDG_RUNTIME_DIR=f"{root}/run")
        kept.update(REGISTRY_AUTH_FILE=f"{root}/auth.json", DOCKER_CONFIG=f"{root}/docker")
        kept.update(CONTAINERS_REGISTRIES_CONF=f"{root}/config/registries.conf")
        if server.ca:
            kept["SSL_CERT_FILE"] = f"{root}/ca.pem"
        if server.proxy:
            url = f"http://mallory:{server.proxy_password}@{server.proxy}"
            kept.update({name: url for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")})
        return kept


async def run(command: str, server: FaultServer, workdir: Workdir, *, timeout_s: float) -> Ended:
    """Run the command as the scenario has it: once, after having been killed, or beside one that is killed."""
    words = workdir.prepare(server)
    arguments = [_put(each, words) for each in shlex.split(command)]
    environment = workdir.environment(server)

    def start(number: int) -> _Process:
        return _Process(arguments, environment, workdir.root / f"output{number}")

    kind = server.scenario.run
    if kind == "killed":
        for number in range(4):
            before = _halted(server)
            async with start(number) as killed:
                await killed.until(server, lambda before=before: _halted(server) > before, timeout_s)  # type: ignore[misc]
    if kind != "leader":
        async with start(9) as process:
            return await process.end(timeout_s)
    async with start(0) as leader:
        await leader.until(server, lambda: _halted(server) > 0, timeout_s)
        asked = len(server.requests)
        async with start(9) as process:
            await process.until(server, lambda: len(server.requests) > asked, _SEEN_S)
            await leader.kill()
            return await process.end(timeout_s)


class _Process:
    """``async with``: one command, which is gone at the end."""

    def __init__(self, arguments: list[str], environment: dict[str, str], output: Path) -> None:
        self._output = output
        self._usage = output.with_suffix(".usage")
        self._began = asyncio.get_running_loop().time()
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(self._usage), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._waiter = asyncio.ensure_future(asyncio.to_thread(self._process.wait))

    async def __aenter__(self) -> _Process:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.kill())

    async def kill(self) -> None:
        """End the command and what it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._waiter

    async def until(self, server: FaultServer, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait for a condition on the server's log, the command's end, or the time."""
        waiting = asyncio.ensure_future(server.until(condition))
        await asyncio.wait([waiting, self._waiter], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    async def end(self, timeout_s: float) -> Ended:
        """Wait for the command's own end, or kill it when the time is over."""
        done, _ = await asyncio.wait([self._waiter], timeout=timeout_s)
        await self.kill()
        seconds = asyncio.get_running_loop().time() - self._began
        output = self._output.read_text(errors="replace")
        if not self._usage.exists():
            return Ended(-signal.SIGKILL, not done, seconds, 0, output)
        code, peak = self._usage.read_text().split()
        return Ended(int(code), not done, seconds, int(peak) << 10, output)


def _halted(server: FaultServer) -> int:
    return sum(asked.halted and "/blobs/" in asked.target and asked.sent > 1 << 16 for asked in server.requests)


def _put(argument: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        argument = argument.replace(f"{{{word}}}", value)
    return argument


def _auths(server: FaultServer) -> dict[str, dict[str, str]]:
    if server.scenario.auth == "none":
        return {}
    entry = {"auth": base64.b64encode(f"{USER}:{server.password}".encode()).decode()}
    address, _, port = server.host.rpartition(":")
    if server.scenario.credentials == "right":
        return {server.host: entry}
    alike = (address, f"{address}:{port}0", f"{server.host}.evil.example", f"{address}.:{port}", f"{server.host}/other")
    return dict.fromkeys(alike, entry)


def _registries(server: FaultServer) -> str:
    insecure = "false" if server.ca else "true"
    text = f'[[registry]]\nlocation = "{server.host}"\ninsecure = {insecure}\n'
    if server.scenario.mirror:
        mirror = server.origins["mirror"].partition("://")[2]
        text += f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = {insecure}\n'
    return text


def _hosts(server: FaultServer) -> str:
    text = f'server = "{"https" if server.ca else "http"}://{server.host}"\n'
    if server.scenario.mirror:
        text += f'[host."{server.origins["mirror"]}"]\n  capabilities = ["pull", "resolve"]\n'
    return text
