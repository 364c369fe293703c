"""Snapshots that are file systems of their own, on a device or in a file: written by the program, and by the differ.

It takes the containerd on PATH with the snapshotters that it has: Debian's has btrfs, 2.x blockfile. The differ needs
containerd 2.
Covers: mount/block.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import fastoci
from fastoci import Into
from fastoci.containerd import methods
from fastoci.containerd.client import Client
from fastoci.containerd.messages import Mount, MountsResponse, PrepareRequest
from fastoci.image.config import chain_id
from fastoci.testing.images import Image, write_layout
from fastoci.testing.layers import Layer
from fastoci.testing.trees import Node, differences, listing
from support.containerd import Daemon, daemon
from support.containerd_two import containerd
from support.differ_process import passed_differ
from support.disks import disk, made, mounted
from support.odd_layers import ODD, Odd
from support.overlays import needs_mounts
from support.scratch import scratch
from support.served_layout import served_layout

MIB = 1 << 20
PLUGINS = {
    "btrfs": '[plugins."io.containerd.snapshotter.v1.btrfs"]\nroot_path = "{home}/disk"\n',
    "blockfile": '[plugins."io.containerd.snapshotter.v1.blockfile"]\nscratch_file = "{home}/image"\n',
}


@pytest.fixture
def home() -> Iterator[Path]:
    needs_mounts()
    with scratch("block") as home:
        (home / "daemon").mkdir()
        yield home


@contextmanager
def plugin(snapshotter: str, home: Path) -> Iterator[str]:
    """The lines of a configuration for a snapshotter, with the file system that it needs."""
    with ExitStack() as opened:
        if snapshotter == "btrfs":
            opened.enter_context(disk(home, "btrfs", 256 * MIB))
        else:
            made(home / "image", "ext4", 16 * MIB)
        yield PLUGINS[snapshotter].format(home=home)


@contextmanager
def odd_images(home: Path) -> Iterator[dict[str, str]]:
    """References of images, by the names of their layers."""
    images = {
        f"odd{number}": Image.build([Layer.build(layer) for layer in odd.layers])
        for number, odd in enumerate(ODD.values())
    }
    write_layout(images, home / "made")
    with served_layout(home / "made") as served:
        by_name = {name.rpartition("/")[2].partition(":")[0]: name for name in served}
        yield {odd: by_name[f"odd{number}"] for number, odd in enumerate(ODD)}


def own(tree: list[Node]) -> list[Node]:
    """Without what each ext4 has."""
    return [node for node in tree if node.path != "lost+found"]


async def bring(store: Path, references: dict[str, str], into: Into) -> None:
    async with fastoci.Engine(store, registry=fastoci.RegistryOptions(tls_verify=False)) as engine:
        for reference in references.values():
            await engine.pull(reference, into=into)


async def view(running: Daemon, snapshotter: str, key: str, odd: Odd) -> Mount:
    """The mount of what the layers of an image are together."""
    chain = chain_id([Layer.build(layer).diff_id for layer in odd.layers])
    async with Client.open(str(running.socket), "default") as client:
        request = PrepareRequest(snapshotter, key, str(chain))
        (mount,) = (await client.call(methods.SNAPSHOT_VIEW, request, MountsResponse)).mounts
        return mount


@pytest.mark.parametrize("snapshotter", PLUGINS)
def test_images_are_brought_with_what_their_layers_say(
    home: Path, snapshotter: str, peer: Callable[[str], str]
) -> None:
    with ExitStack() as opened:
        more = opened.enter_context(plugin(snapshotter, home))
        running = opened.enter_context(daemon(home / "daemon", peer("containerd"), peer("ctr"), more=more))
        if f" {snapshotter} " not in running.run("plugins", "ls"):
            pytest.skip(f"this containerd has no {snapshotter}")
        references = opened.enter_context(odd_images(home))
        asyncio.run(bring(home / "store", references, Into(address=str(running.socket), snapshotter=snapshotter)))
        wrong = {}
        for number, (name, odd) in enumerate(ODD.items()):
            mount = asyncio.run(view(running, snapshotter, f"view{number}", odd))
            at = home / f"tree{number}"
            at.mkdir()
            with mounted(at, "-t", mount.type, "-o", ",".join(mount.options), mount.source):
                wrong[name] = differences(odd.tree, own(listing(at)))
        assert {name: found for name, found in wrong.items() if found} == {}


def test_the_differ_writes_what_the_layers_say(home: Path) -> None:
    with ExitStack() as opened:
        more = opened.enter_context(plugin("blockfile", home))

        def configure(path: Path) -> None:
            text = path.read_text().replace('"io.containerd.snapshotter.v1.blockfile",', "")
            path.write_text(text + more)

        differ = opened.enter_context(passed_differ(home, "--containerd-address", str(home / "daemon" / "sock")))
        differ.warm()
        running = opened.enter_context(
            containerd(home / "daemon", differ=home / "differ.sock", snapshotters=["blockfile"], configure=configure)
        )
        references = opened.enter_context(odd_images(home))
        wrong = {}
        for name, odd in ODD.items():
            done = running.pull(references[name], "--snapshotter", "blockfile")
            assert done.returncode == 0, done.stderr
            wrong[name] = differences(odd.tree, own(running.tree(references[name], snapshotter="blockfile")))
        assert {name: found for name, found in wrong.items() if found} == {}
        assert "handed over" not in differ.log.read_text()
