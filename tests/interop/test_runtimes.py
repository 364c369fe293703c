"""Bundles of pulled images, started by the runtimes of Debian: runc and crun, as root and without.

Needs root, for the runtimes and for the mount namespace in which crun finds cgroups that it knows.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import MountError
from fastoci.jobs.image import BundleRootfs
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
        if os.path.ismount(found / "bundle" / "rootfs"):
            fastoci.umount(found / "bundle" / "rootfs")


def bundled(image: Image, place: Path, rootfs: BundleRootfs = "tree") -> Path:
    """Pull an image and make a bundle of it."""
    registry = Registry()
    registry.add_image("app", "latest", image)
    return make_bundle(registry, "app", place, rootfs)


def make_bundle(registry: Registry, name: str, place: Path, rootfs: BundleRootfs = "tree") -> Path:
    async def make(address: str) -> Path:
        async with fastoci.Engine(place / "store") as engine:
            pulled = await engine.pull(f"{address}/{name}")
            await pulled.bundle(place / "bundle", rootfs=rootfs)
            return place / "bundle"

    with serve(registry) as served:
        try:
            return asyncio.run(make(served.address))
        except MountError as error:
            pytest.skip(f"images cannot be mounted here: {error}")


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


def test_a_container_runs_from_a_mount(runtime: Runtime, place: Path) -> None:
    image = shell_image(CONFIG, "id", "cat", layers=(DATA,))
    bundle = bundled(image, place, "mount")
    assert runtime.run(bundle).splitlines()[1:5] == ["/work", "a value /home/app", "seeded", "new"]
    assert os.path.ismount(bundle / "rootfs")
    assert sorted(os.listdir(bundle)) == [".upper.work", "config.json", "rootfs", "upper"]
    assert (bundle / "upper" / "work").is_dir()  # the working directory, which the image does not have
    fastoci.umount(bundle / "rootfs")
    assert os.listdir(bundle / "rootfs") == []
    bundled(image, place, "mount")  # as after a boot
    assert os.path.ismount(bundle / "rootfs")


@pytest.mark.parametrize("rootfs", ["tree", "mount"])
def test_python_runs(runtime: Runtime, place: Path, rootfs: BundleRootfs) -> None:
    assert runtime.run(bundled(python(), place, rootfs)) == '["-c", "one", "two words"]\n'


@cache
def python() -> Image:
    return python_image({"Cmd": ["python3", "-c", "import json, sys; print(json.dumps(sys.argv))", "one", "two words"]})


def test_a_container_cannot_gain_rights(runtime: Runtime, place: Path) -> None:
    config = {"Cmd": ["sh", "-c", "cat /proc/self/status; ls /proc/acpi; echo 1 > /proc/sys/kernel/domainname"]}
    said = runtime.run(bundled(shell_image(config, "cat", "ls"), place), code=2)
    facts = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    assert facts["NoNewPrivs"] == "1"
    assert facts["CapBnd"] == facts["CapEff"] == "00000000800405fb"
    assert int(facts["CapInh"], 16) == int(facts["CapAmb"], 16) == 0


@pytest.mark.parametrize("rootfs", ["tree", "mount"])
def test_a_published_busybox_runs(runtime: Runtime, place: Path, shared: Path, rootfs: BundleRootfs) -> None:
    registry = Registry()
    registry.add_layout(shared / "images" / "oci")
    make_bundle(registry, "busybox-musl", place, rootfs)
    document = place / "bundle" / "config.json"
    changed = {**(found := json.loads(document.read_text())), "process": {**found["process"], "args": ["busybox"]}}
    document.write_text(json.dumps(changed))
    assert runtime.run(place / "bundle").startswith("BusyBox v")
