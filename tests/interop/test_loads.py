"""``docker load`` and ``podman load`` of an image that the store has, from a stream: the line of docs/podman.md."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fastoci
from fastoci.testing.layers import Entry, directory, whiteout
from fastoci.testing.registry import Registry, serve
from support.docker import docker
from support.image_stores import Reader
from support.images import image_of
from support.overlays import needs_mounts
from support.scratch import SOURCE, scratch

LAYERS = [
    [directory("etc"), Entry("etc/old", data=b"old"), Entry("etc/owned", data=b"owned", uid=5, gid=6, mode=0o640)],
    [directory("etc"), whiteout("etc/old"), Entry("etc/new", data=b"new")],
]
NAME = "registry.example.com/app:1"


@pytest.fixture
def home() -> Iterator[Path]:
    needs_mounts()
    with scratch("load") as home:
        yield home


def stream(home: Path, *load: str) -> None:
    """Have the image in a store, and stream it into a command."""

    async def pull(reference: str) -> None:
        async with fastoci.Engine(home / "store") as engine:
            await engine.pull(reference)

    with serve(Registry()) as registry:
        registry.add_image("app", "1", image_of(*LAYERS))
        reference = f"{registry.address}/app:1"
        asyncio.run(pull(reference))
    ends = (f"store:{reference}", f"docker-archive:/dev/stdout:{NAME}")
    copy = [sys.executable, "-m", "fastoci", "copy", *ends, "--store", str(home / "store")]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(copy, stdout=subprocess.PIPE, env=environment) as copying:
        done = subprocess.run(load, stdin=copying.stdout, capture_output=True, timeout=60, check=False)
    assert (copying.returncode, done.returncode) == (0, 0), done.stderr


def check(run: Callable[..., str], home: Path, *options: str) -> None:
    """The files of a container of the image are those of the layers."""
    container = run("create", *options, NAME, "x").strip()
    run("export", "-o", str(home / "exported"), container)
    run("rm", "-f", container)
    with tarfile.open(home / "exported") as tar:
        members = [member for member in tar if member.name.startswith("etc/")]
    found = {member.name: (member.uid, member.gid, member.mode & 0o7777) for member in members}
    assert found["etc/owned"] == (5, 6, 0o640)
    assert "etc/new" in found
    assert "etc/old" not in found


def test_docker_loads_the_stream(home: Path, peer: Callable[[str], str]) -> None:
    with docker(home, peer("dockerd"), peer("docker")) as running:
        stream(home, *running.command("load"))
        check(running.run, home)


def test_podman_loads_the_stream(home: Path, peer: Callable[[str], str]) -> None:
    (home / "podman").mkdir()
    (home / "store" / "layers").mkdir(parents=True)  # an additional store that has no image
    podman = Reader(peer("podman"), home / "podman", home / "store")
    try:
        stream(home, "env", *(f"{key}={value}" for key, value in podman.environment.items()), peer("podman"), "load")
        check(podman.run, home, "--network", "none")
    finally:
        podman.end()
