"""Configuring through the public face and the program, beside a containerd that PATH leads to.

Covers: jobs/configure.py, cli/commands/configure.py.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastoci
from fastoci.configure.containerd import DIFFERS_SINCE
from fastoci.errors import ConfigError, UnsupportedError
from fastoci.jobs.configure import release_of
from support.containerd import containerd
from support.other_user import UID, other_user
from support.scratch import scratch

Versioned = Callable[[str], None]
Run = Callable[..., Any]  # the fixture ``cli``


@pytest.fixture
def containerd_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Versioned:
    """Puts a program ``containerd`` on PATH that prints this."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)

    def say(text: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / "containerd").write_text(f"#!/bin/sh\necho '{text}'\n")
        (tmp_path / "bin" / "containerd").chmod(0o755)

    return say


def main_file(directory: Path) -> Path:
    path = directory / "etc" / "config.toml"
    path.parent.mkdir(mode=0o755)
    path.write_text(f'version = 2\n[grpc]\naddress = "{directory}/none.sock"\n')  # where none listens
    return path


def test_the_command_shows_what_it_writes_and_what_to_restart(
    tmp_path: Path, containerd_says: Versioned, cli: Run
) -> None:
    containerd_says("containerd github.com/containerd/containerd v2.2.7 abc")
    path, socket = main_file(tmp_path), tmp_path / "differ.sock"
    before = path.read_text()
    asked = ("configure", "containerd", "--config-file", path, "--socket", socket)
    dry = cli(*asked, "--dry-run")
    assert "+address = " in dry.stdout
    assert "nothing was written" in dry.stderr
    assert [each.name for each in path.parent.iterdir()] == ["config.toml"]
    done = cli(*asked)
    assert done.returncode == 0
    assert done.stdout == dry.stdout
    assert f"nothing listens at {socket}" in done.stderr
    assert f"--containerd-address {tmp_path}/none.sock" in done.stderr
    assert "restart containerd" in done.stderr
    own = tomllib.loads((path.parent / "conf.d" / "zz-fastoci.toml").read_text())
    assert own["proxy_plugins"]["fastoci"]["address"] == str(socket)
    again = cli(*asked)
    assert (again.stdout, "nothing to change" in again.stderr) == ("", True)
    cli("configure", "containerd", "--config-file", path, "--undo")
    assert path.read_text() == before
    assert "nothing to change" in cli("configure", "containerd", "--config-file", path, "--undo").stderr


async def test_an_old_containerd_is_refused_before_anything_is_written(
    tmp_path: Path, containerd_says: Versioned
) -> None:
    containerd_says("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3")
    path = main_file(tmp_path)
    with pytest.raises(UnsupportedError, match=r"containerd 1\.6\.20 takes no differ"):
        await fastoci.configure_containerd(config=path)
    assert [each.name for each in path.parent.iterdir()] == ["config.toml"]


async def test_a_containerd_that_says_nothing_or_is_not_there_is_an_error(
    tmp_path: Path, containerd_says: Versioned, monkeypatch: pytest.MonkeyPatch
) -> None:
    containerd_says("hello")
    with pytest.raises(ConfigError, match="says no version: 'hello"):
        await fastoci.configure_containerd(config=main_file(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/none")
    with pytest.raises(ConfigError, match="cannot ask containerd"):
        await fastoci.configure_containerd(config=tmp_path / "etc/config.toml")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containerd")
def test_the_containerd_that_runs_counts_and_not_another_on_path(
    tmp_path: Path, containerd_says: Versioned, peer: Callable[[str], str]
) -> None:
    program, ctr = peer("containerd"), peer("ctr")
    containerd_says("v99.1.2")
    said = release_of(subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout)
    with scratch("configure") as home, containerd(program, ctr, home):
        planning = fastoci.configure_containerd(config=home / "config.toml", socket="/s")
        if said < DIFFERS_SINCE:
            with pytest.raises(UnsupportedError, match=".".join(map(str, said))):
                asyncio.run(planning)
        else:
            assert ("linux(+erofs)" in asyncio.run(planning).diff) is (said >= (2, 3, 0))


async def test_a_file_that_may_not_be_edited_is_found_before_anything_is_written(
    tmp_path: Path, containerd_says: Versioned
) -> None:
    containerd_says("v2.2.7")
    path = main_file(tmp_path)
    path.rename(tmp_path / "real.toml")
    path.symlink_to("../real.toml")
    with pytest.raises(ConfigError, match=r"name the file itself, .*real\.toml"):
        await fastoci.configure_containerd(config=path)
    assert not (path.parent / "conf.d").exists()


async def test_snapshots_that_lead_into_the_store_are_kept_known_to_it(
    tmp_path: Path, containerd_says: Versioned
) -> None:
    containerd_says("v2.4.0-beta.0")
    path, store, root = main_file(tmp_path), tmp_path / "store", tmp_path / "erofs"
    store.mkdir()
    (store / "fastoci.json").write_text('{"format": 1}\n')
    path.write_text(f'{path.read_text()}[plugins."io.containerd.snapshotter.v1.erofs"]\nroot_path = "{root}"\n')
    plan = await fastoci.configure_containerd(config=path, store=store, snapshotters=["erofs"])
    await asyncio.to_thread(plan.write)
    assert str(root) in (store / "fastoci.json").read_text()
    (root / "snapshots/7").mkdir(parents=True)
    link = root / "snapshots/7/layer.erofs"
    link.symlink_to(store / "layers/sha256/00" / f"{'0' * 64}.erofs")
    assert "fastoci.json" not in (await fastoci.configure_containerd(config=path, undo=True)).diff
    link.unlink()
    await asyncio.to_thread((await fastoci.configure_containerd(config=path, undo=True)).write)
    assert (store / "fastoci.json").read_text() == '{"format": 1}\n'


def test_docker_and_podman_are_configured_by_the_same_command(tmp_path: Path, cli: Run) -> None:
    tmp_path.chmod(0o755)
    for name, file in (("docker", "daemon.json"), ("podman", "storage.conf")):
        asked = ("configure", name, "--config-file", tmp_path / file)
        assert "restart" in cli(*asked).stderr
        assert (tmp_path / file).exists()
        assert "nothing to change" in cli(*asked).stderr
        cli(*asked, "--undo")
        assert not (tmp_path / file).exists()


def test_the_files_of_a_user_who_is_not_root_are_the_users_own() -> None:
    with other_user(with_ids=False) as user:
        user.fastoci("configure", "docker")
        path = user.place / ".config" / "docker" / "daemon.json"
        assert (path.stat().st_uid, "containerd-snapshotter" in path.read_text()) == (UID, True)


def _differs_here() -> bool:
    if shutil.which("containerd") is None:
        return False
    answer = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True)
    return release_of(answer.stdout) >= DIFFERS_SINCE


@pytest.mark.skipif(not _differs_here(), reason="needs a containerd on PATH that takes a differ")
@pytest.mark.parametrize("version", [2, 3])
async def test_the_containerd_here_reads_what_was_written(tmp_path: Path, version: int) -> None:
    def dumped() -> dict[str, Any]:
        done = subprocess.run(["containerd", "--config", path, "config", "dump"], capture_output=True, check=True)
        return tomllib.loads(done.stdout.decode())

    path = main_file(tmp_path)
    service, transfer = "io.containerd.service.v1.diff-service", "io.containerd.transfer.v1.local"
    text = path.read_text().replace("version = 2", f"version = {version}")
    path.write_text(f'{text}[plugins."{transfer}"]\nmax_concurrent_downloads = 7\n')
    try:
        before = dumped()
    except subprocess.CalledProcessError:
        pytest.skip(f"this containerd takes no configuration of version {version}")
    plan = await fastoci.configure_containerd(config=path, socket="/s", mirrors=["docker.io=http://m"])
    await asyncio.to_thread(plan.write)
    after = dumped()
    assert after["proxy_plugins"]["fastoci"]["address"] == "/s"
    assert after["plugins"][service]["default"] == ["fastoci", "walking"]
    found = after["plugins"][transfer]
    assert found["max_concurrent_downloads"] == 7
    assert found["unpack_config"][0]["differ"] == "fastoci"
    await asyncio.to_thread((await fastoci.configure_containerd(config=path, undo=True)).write)
    assert dumped() == before
