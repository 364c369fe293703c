"""Containers in a user namespace, of images whose snapshots this program wrote: by itself, or as containerd's differ.

It needs containerd 2 and its ctr on PATH, and runc; an image of the folder beside the repository.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import fastoci
from fastoci import Into
from support.containerd_two import Containerd, containerd, programs
from support.differ_process import passed_differ
from support.scratch import scratch
from support.served_layout import served_layout

MAPPED = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"]
LOOK = "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /new; stat -c %u /new"


@pytest.fixture
def setup(shared: Path) -> Iterator[tuple[Containerd, str]]:
    programs()
    if shutil.which("runc") is None:
        pytest.skip("needs runc")
    with ExitStack() as opened:
        home = opened.enter_context(scratch("userns"))
        home.chmod(0o755)  # the namespace's root walks to the container's files
        names = opened.enter_context(served_layout(shared / "images" / "oci"))
        address = ["--containerd-address", str(home / "containerd" / "sock")]
        differ = opened.enter_context(passed_differ(home, *address))
        differ.warm()
        running = opened.enter_context(containerd(home / "containerd", differ=home / "differ.sock"))
        yield running, next(name for name in names if "/alpine:" in name)


def bring(running: Containerd, reference: str) -> None:
    async def work() -> None:
        registry = fastoci.RegistryOptions(tls_verify=False)
        async with fastoci.Engine(running.home / "store", registry=registry) as engine:
            await engine.pull(reference, into=Into(address=str(running.socket), snapshotter="overlayfs"))

    asyncio.run(work())


@pytest.mark.parametrize("by", ["itself", "the differ"])
def test_files_of_a_container_in_a_user_namespace_belong_to_its_root(setup: tuple[Containerd, str], by: str) -> None:
    running, reference = setup
    if by == "itself":
        bring(running, reference)
    else:
        assert running.pull(reference).returncode == 0
    for number, options in enumerate(([], ["--remap-labels"])):
        said = running.ctr("run", "--rm", *MAPPED, *options, reference, f"c{number}", "/bin/sh", "-c", LOOK)
        assert said.split() == ["0", "0", "100000", "65536", "0", "0"]
