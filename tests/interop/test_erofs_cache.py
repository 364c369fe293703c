"""containerd's erofs snapshotter over the layers of a store, configured by ``fastoci configure containerd``.

Containerd looks for layers in directories since 2.4; Debian has none.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from fastoci import Engine, Layers, RegistryOptions, configure_containerd
from fastoci.configure.containerd import CACHE_SINCE
from fastoci.image.digest import Digest
from fastoci.jobs.configure import release_of
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, directory, hardlink, opaque, symlink, whiteout
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, overlay
from support.containerd_two import Containerd, containerd, programs
from support.images import image_of, made
from support.odd_layers import ODD, Odd
from support.scratch import SOURCE, scratch

Form = Literal["erofs", "erofs-4k"]
EROFS = ("--snapshotter", "erofs")
STANDALONE = [
    [directory("a"), directory("a/b"), Entry("a/b/f", data=b"1"), Entry("a/gone"), *made(1, files=3, size=200_000)],
    [directory("a"), whiteout("a/gone"), directory("a/b"), opaque("a/b"), Entry("a/b/g"), hardlink("a/b/h", "a/b/g")],
    [directory("a"), symlink("a/s", "b"), Entry("a/x", xattrs=(("user.k", b"v"),), uid=7, mode=0o4755)],
]


class Node24:
    """A containerd with the layers of a store, and a registry that says what it was asked for."""

    def __init__(self, home: Path, registry: Registry, running: Containerd) -> None:
        self.store = home / "store"
        self.registry = registry
        self.running = running

    def layers(self, name: str, image: Image, form: Form) -> str:
        """Have the registry serve an image, and the store hold its layers; the reference."""
        self.registry.add_image(name, "1", image)
        reference = f"{self.registry.address}/{name}:1"

        async def pull() -> None:
            async with Engine(self.store, registry=RegistryOptions(tls_verify=False)) as engine:
                await engine.pull(reference, layers=Layers(form))

        asyncio.run(pull())
        return reference

    def pull(self, reference: str) -> set[str]:
        """Pull an image into containerd; the blobs that were asked for."""
        before = len(self.registry.log)
        done = self.running.pull(reference, *EROFS)
        assert done.returncode == 0, (done.stderr[-1000:], self.running.log()[-2000:])
        return {record.path.rpartition("/")[2] for record in self.registry.log[before:] if "/blobs/" in record.path}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


@contextmanager
def differ(home: Path) -> Iterator[None]:
    """The differ of this program, as a process; it unpacks what the store does not have."""
    socket, address = home / "differ.sock", home / "containerd" / "sock"
    command = [sys.executable, "-m", "fastoci", "differ", f"--socket={socket}", f"--containerd-address={address}"]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def node() -> Iterator[Node24]:
    daemon, _ = programs()
    said = subprocess.run([daemon, "--version"], capture_output=True, text=True, check=True).stdout
    if release_of(said) < CACHE_SINCE:
        pytest.skip(f"needs containerd {'.'.join(map(str, CACHE_SINCE))}")
    with (
        scratch("cache") as home,
        serve(Registry()) as registry,
        differ(home),
    ):
        home.chmod(0o755)

        def configure(path: Path) -> None:
            async def work() -> None:
                async with Engine(home / "store"):
                    pass
                plan = await configure_containerd(
                    config=path, socket=home / "differ.sock", store=home / "store", snapshotters=["erofs"]
                )
                await asyncio.to_thread(plan.write)

            asyncio.run(work())

        with containerd(home / "containerd", configure=configure) as running:
            yield Node24(home, registry, running)


def gc(store: Path) -> None:
    async def work() -> None:
        async with Engine(store) as engine:
            await engine.gc()

    asyncio.run(work())


def files(store: Path) -> int:
    return len([*(store / "layers").rglob("*.erofs")])


@pytest.mark.parametrize("form", ["erofs", "erofs-4k"])
def test_layers_of_the_store_are_used_and_none_is_asked_for(node: Node24, form: Form) -> None:
    image = image_of(*STANDALONE)
    reference = node.layers("app", image, form)
    assert node.pull(reference) == {str(Digest.of(image.config))}
    assert differences(overlay(STANDALONE), node.running.erofs_tree(image)) == []


def test_layers_that_are_not_exact_alone_are_fetched(node: Node24) -> None:
    odd = Odd([*STANDALONE, ODD["implied parents"].layers[1]])
    image = image_of(*map(list, odd.layers))
    reference = node.layers("app", image, "erofs-4k")
    assert node.pull(reference) == {str(Digest.of(image.config)), str(image.layers[-1].descriptor.digest)}
    assert differences(odd.tree, node.running.erofs_tree(image)) == []


def test_gc_keeps_the_layers_that_snapshots_need_until_they_are_gone(node: Node24) -> None:
    image = image_of(*STANDALONE)
    reference = node.layers("app", image, "erofs-4k")
    node.pull(reference)

    async def forget() -> None:
        async with Engine(node.store) as engine:
            await engine.remove(reference)

    asyncio.run(forget())
    gc(node.store)
    assert files(node.store) == len(STANDALONE)
    assert differences(overlay(STANDALONE), node.running.erofs_tree(image)) == []
    node.running.forget(reference)
    gc(node.store)
    assert files(node.store) == 0
