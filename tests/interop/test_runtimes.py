"""Bundles of pulled images, started by the runtimes of Debian: runc and crun, as root and without.

Needs root, for the runtimes and for the mount namespace in which crun finds cgroups that it knows.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import fastoci
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from support.machine_images import python_image, shell_image
from support.runtimes import Runtime
from support.scratch import scratch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="runtimes need root")

SCRIPT = """id; pwd; echo "$A $HOME"; cat /data/file; echo new > /data/new && cat /data/new; cat /proc/self/mountinfo"""
CONFIG: Mapping[str, object] = {
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": [SCRIPT],
    "Env": ["A=a value"],
    "User": "app",
    "WorkingDir": "/work",
    "Volumes": {"/data": {}, "/proc": {}},
}
DATA = Layer.build([Entry("data", "directory", mode=0o750, uid=1000, gid=1001), Entry("data/file", data=b"seeded\n")])


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest, peer: Callable[[str], str]) -> Runtime:
    return Runtime(peer(request.param), peer("unshare"))


@pytest.fixture
def place() -> Iterator[Path]:
    with scratch("bundle") as found:
        found.chmod(0o755)
        yield found


def bundled(image: Image, place: Path) -> Path:
    """Pull an image and make a bundle of it."""
    registry = Registry()
    registry.add_image("app", "latest", image)
    return make_bundle(registry, "app", place)


def make_bundle(registry: Registry, name: str, place: Path) -> Path:
    async def make(address: str) -> Path:
        async with fastoci.Engine(place / "store") as engine:
            pulled = await engine.pull(f"{address}/{name}")
            await pulled.bundle(place / "bundle")
            return place / "bundle"

    with serve(registry) as served:
        return asyncio.run(make(served.address))


def test_a_container_runs_as_its_image_says(runtime: Runtime, place: Path) -> None:
    bundle = bundled(shell_image(CONFIG, "id", "cat", layers=(DATA,)), place)
    said = runtime.run(bundle).splitlines()
    assert said[:5] == [
        "uid=1000(app) gid=1001(apps) groups=1001(apps),20(more)",
        "/work",
        "a value /home/app",
        "seeded",
        "new",
    ]
    mounts = {line.split()[4]: line.split()[5].split(",") for line in said[5:]}
    assert {"nosuid", "nodev", "noexec"} <= set(mounts["/proc"])
    assert "ro" in mounts["/sys"]
    assert "ro" in mounts["/proc/sys"]
    assert {"/dev/pts", "/dev/shm", "/dev/mqueue", "/data", "/sys/firmware"} <= mounts.keys()
    assert not (bundle / "rootfs" / "data" / "new").exists()


def test_python_runs(runtime: Runtime, place: Path) -> None:
    config = {"Cmd": ["python3", "-c", "import json, sys; print(json.dumps(sys.argv))", "one", "two words"]}
    assert runtime.run(bundled(python_image(config), place)) == '["-c", "one", "two words"]\n'


def test_a_container_cannot_gain_rights(runtime: Runtime, place: Path) -> None:
    config = {"Cmd": ["sh", "-c", "cat /proc/self/status; ls /proc/acpi; echo 1 > /proc/sys/kernel/domainname"]}
    said = runtime.run(bundled(shell_image(config, "cat", "ls"), place), code=2)
    facts = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    assert facts["NoNewPrivs"] == "1"
    assert facts["CapBnd"] == facts["CapEff"] == "00000000800405fb"
    assert int(facts["CapInh"], 16) == int(facts["CapAmb"], 16) == 0


def test_a_published_busybox_runs(runtime: Runtime, place: Path, shared: Path) -> None:
    registry = Registry()
    registry.add_layout(shared / "images" / "oci")
    make_bundle(registry, "busybox-musl", place)
    document = place / "bundle" / "config.json"
    changed = {**(found := json.loads(document.read_text())), "process": {**found["process"], "args": ["busybox"]}}
    document.write_text(json.dumps(changed))
    assert runtime.run(place / "bundle").startswith("BusyBox v")
