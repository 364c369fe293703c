"""containerd 2 with the differ as its proxy plugin: the trees of images, held against its own differ and listings.

It needs containerd 2 and its ctr on PATH. The short form takes some images; ``make differ-exam`` takes all of the
folder beside the repository, one layer and four layers at a time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import fastoci
from fastoci.containerd import methods
from fastoci.containerd.client import Client
from fastoci.containerd.messages import (
    ApplyRequest,
    ApplyResponse,
    Descriptor,
    MountsResponse,
    PrepareRequest,
)
from fastoci.errors import ContainerdError
from fastoci.testing.images import Image, write_layout
from fastoci.testing.layers import Entry, Layer, directory
from fastoci.testing.trees import Node, differences, listing
from support.containerd_two import SNAPSHOTTERS, Containerd, containerd, programs
from support.differ_process import PassedDiffer, passed_differ
from support.expected_trees import expected_tree
from support.images import made
from support.odd_layers import ODD
from support.scratch import scratch
from support.served_layout import served_layout

EVERYTHING = os.environ.get("FASTOCI_DIFFER_EXAM") == "all"
SHORT = {"opaque", "hardlink-lower-layer", "typechange", "times-extreme", "whiteout-names", "xattrs", "zstd"}
# What containerd loses when it unpacks layers without those below, whatever differ does it: metadata and kinds of
# directories that a layer does not name. Hard links into lower layers fail.
LOST_ALONE = {"whiteout-order", "opaque", "whiteout-names", "symlink-parent", "hardlink-lower-layer", "typechange"}
# What an EROFS file says alone: of a directory that it does not name, nothing of the one below.
LOST_IN_EROFS = {"implied parents", "hard link to a lower file", "path through a lower link"}
IDS = {f"containerd.io/snapshot/{kind}mapping": "0:100000:65536" for kind in ("uid", "gid")}
HANDSHAKES = 127
CPU_A_LAYER_S = 0.02  # a tenth of that on a quiet machine


@dataclass
class Setup:
    """A containerd that unpacks with the differ, and one that unpacks with walking."""

    images: list[str]
    own: dict[str, str]  # those made for these tests, by name
    differ: PassedDiffer
    ours: Containerd
    walking: Containerd
    unpacks: int
    home: Path


@pytest.fixture(params=[1, 4] if EVERYTHING else [1], ids="{} at a time".format)
def setup(request: pytest.FixtureRequest, shared: Path) -> Iterator[Setup]:
    programs()
    unpacks: int = request.param
    with ExitStack() as opened:
        home = opened.enter_context(scratch("exam"))
        write_layout({name: Image.build(layers) for name, layers in own_images().items()}, home / "made")
        layouts = [shared / "images" / name for name in ("edge-cases", "oci")[: 1 + EVERYTHING]]
        images = [name for layout in layouts for name in opened.enter_context(served_layout(layout))]
        made_images = opened.enter_context(served_layout(home / "made"))
        own = {name.rpartition("/")[2].partition(":")[0]: name for name in made_images}
        address = ["--containerd-address", str(home / "ours" / "sock")]
        differ = opened.enter_context(passed_differ(home, *address))
        differ.warm()
        snapshotters = SNAPSHOTTERS[: 2 + has_erofs()]
        ours = opened.enter_context(
            containerd(home / "ours", differ=home / "differ.sock", unpacks=unpacks, snapshotters=snapshotters)
        )
        walking = opened.enter_context(containerd(home / "walking", unpacks=unpacks, snapshotters=snapshotters))
        yield Setup(images, own, differ, ours, walking, unpacks, home)


def has_erofs() -> bool:
    return "\terofs\n" in Path("/proc/filesystems").read_text()


def own_images() -> dict[str, list[Layer]]:
    """The images that are made for these tests."""
    return {
        **{f"odd{number}": [Layer.build(layer) for layer in odd.layers] for number, odd in enumerate(ODD.values())},
        "large": [Layer.build([Entry(f"{number:06}") for number in range(30_000)])],
        "small": [Layer.build(made(3))],
        "many": [Layer.build([directory("d"), Entry(f"d/{number:03}", data=b"x")]) for number in range(HANDSHAKES)],
    }


def tree_of(containerd: Containerd, reference: str, *options: str, snapshotter: str = "overlayfs") -> list[Node] | None:
    """The tree of an image; None where it cannot be pulled."""
    done = containerd.pull(reference, "--snapshotter", snapshotter, *options)
    return None if done.returncode else containerd.tree(reference, snapshotter=snapshotter)


def judged(tag: str, tree: list[Node], scratch: Path) -> list[str] | None:
    try:
        return differences(expected_tree(tag, scratch), tree)
    except FileNotFoundError:
        return None


def test_trees_are_those_of_the_listings_and_never_worse_than_those_of_walking(setup: Setup) -> None:
    tags = {reference: reference.rpartition("/")[2].partition(":")[0] for reference in setup.images}
    taken = {reference: tag for reference, tag in tags.items() if EVERYTHING or tag in SHORT}
    wrong: dict[str, object] = {}
    for reference, tag in taken.items():
        found, other = tree_of(setup.ours, reference), tree_of(setup.walking, reference)
        alone = setup.unpacks > 1 and tag in LOST_ALONE
        if found is None:
            wrong |= {} if other is None and alone else {tag: setup.differ.log.read_text()[-500:]}
            continue
        faults = judged(tag, found, setup.home)
        if faults is None or (faults and alone):
            assert other is not None
            faults = [] if faults is None else faults
            worse = differences(other, found)
            if len(faults) > len(judged(tag, other, setup.home) or worse):
                wrong[tag] = worse
        elif faults:
            wrong[tag] = faults
    assert wrong == {}
    assert len(taken) >= (46 if EVERYTHING else 7)


def test_odd_layers_give_the_trees_that_they_say(setup: Setup) -> None:
    if setup.unpacks > 1:
        pytest.skip("containerd does not say what is below")
    wrong: dict[str, object] = {}
    for number, (name, odd) in enumerate(ODD.items()):
        reference = setup.own[f"odd{number}"]
        for options in ([], ["--local"]):
            found = tree_of(setup.ours, reference, *options)
            faults = setup.differ.log.read_text()[-500:] if found is None else differences(odd.tree, found)
            wrong |= {name: faults} if faults else {}
            setup.ours.forget(reference)
        other = tree_of(setup.walking, reference)
        is_right = other is not None and differences(odd.tree, other) == []
        wrong |= {} if is_right is odd.walking else {name: f"walking is right: {is_right}"}
    assert wrong == {}


def test_other_snapshotters_have_the_same_trees(setup: Setup) -> None:
    odd, reference = next(iter(ODD.values())), setup.own["odd0"]
    for snapshotter in SNAPSHOTTERS[:2]:
        found = tree_of(setup.ours, reference, snapshotter=snapshotter)
        assert found is not None
        assert differences(odd.tree, found) == []


def test_files_of_the_erofs_snapshotter_lose_only_what_lower_layers_would_say(setup: Setup) -> None:
    """Of containerd's own differ there, directories that no layer names are 0777, and it fails at the same link."""
    if not has_erofs():
        pytest.skip("needs erofs in the kernel")
    images, lost = own_images(), set()
    for number, (name, odd) in enumerate(ODD.items()):
        done = setup.ours.pull(setup.own[f"odd{number}"], "--snapshotter", "erofs")
        found = [] if done.returncode else setup.ours.erofs_tree(Image.build(images[f"odd{number}"]))
        lost |= {name} if differences(odd.tree, found) else set()
    assert lost == LOST_IN_EROFS


async def refusal_with_ids(containerd: Containerd, image: Image) -> ContainerdError:
    """Have containerd's diff service unpack the only layer of an image into a snapshot of a user namespace."""
    async with Client.open(str(containerd.socket), "default") as client, client.lease():
        request = PrepareRequest("overlayfs", "mapped", "", IDS)
        mounts = (await client.call(methods.SNAPSHOT_PREPARE, request, MountsResponse)).mounts
        assert "uidmap=0:100000:65536" in mounts[0].options
        blob = image.layers[0].descriptor
        layer = Descriptor(blob.media_type, str(blob.digest), blob.size)
        with pytest.raises(ContainerdError) as caught:
            await client.call(methods.APPLY, ApplyRequest(layer, mounts), ApplyResponse)
        return caught.value


def test_a_snapshot_of_a_user_namespace_is_handed_over_to_walking_which_cannot_write_there_either(setup: Setup) -> None:
    image, said = Image.build(own_images()["small"]), []
    for running in (setup.ours, setup.walking):
        assert running.pull(setup.own["small"]).returncode == 0
        said.append(asyncio.run(refusal_with_ids(running, image)).message)
    assert all("value too large for defined data type" in message for message in said)
    assert "containerd's own differ: " in said[0]


def wait_for_files(setup: Setup) -> None:
    """Wait until a layer of the large image becomes files."""
    snapshots = setup.home / "ours" / "root" / "io.containerd.snapshotter.v1.overlayfs" / "snapshots"
    deadline = time.monotonic() + 30
    while not any(path.is_file() for path in snapshots.glob("*/fs/0*")) and time.monotonic() < deadline:
        time.sleep(0.001)


def test_a_pull_after_a_kill_at_work_succeeds_at_once(setup: Setup) -> None:
    large, small = setup.own["large"], setup.own["small"]
    with ThreadPoolExecutor() as pool:
        pull = pool.submit(setup.ours.pull, large)
        wait_for_files(setup)
        setup.differ.kill()
        assert pull.result().returncode != 0
    begin = time.monotonic()
    tries = 1
    while setup.ours.pull(small).returncode and time.monotonic() - begin < 30:  # its second is little on a busy machine
        tries += 1
    print(f"\na pull after a kill: {time.monotonic() - begin:.2f} s, {tries} tries")
    assert setup.ours.pull(large).returncode == 0
    assert setup.differ.started == 2


def test_a_pull_that_is_killed_ends_its_call(setup: Setup) -> None:
    pull = subprocess.Popen(setup.ours.command("images", "pull", "--plain-http", "--local", setup.own["large"]))
    with pull:
        wait_for_files(setup)
        pull.kill()
    deadline = time.monotonic() + 10
    while not (lines := setup.differ.log.read_text().splitlines()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert " cancelled, " in lines[0]
    assert setup.ours.pull(setup.own["large"]).returncode == 0


def test_a_containerd_that_is_started_again_is_served(setup: Setup) -> None:
    small = setup.own["small"]
    for _ in range(2):
        assert setup.ours.pull(small).returncode == 0, setup.differ.log.read_text()[-1000:]
        setup.ours.forget(small)
        setup.ours.stop()
        setup.ours.start()
    assert [line.split()[2] for line in setup.differ.log.read_text().splitlines()] == ["done,", "done,"]


def test_what_differs_between_two_snapshots_is_a_layer_that_gives_the_upper_one(setup: Setup) -> None:
    reference = setup.own["odd0"]
    assert setup.ours.pull(reference).returncode == 0
    rows = [line.split() for line in setup.ours.ctr("snapshots", "ls").splitlines()[1:]]
    [(top, bottom, _)] = [row for row in rows if len(row) == 3]
    layer = setup.home / "layer"
    layer.write_bytes(
        subprocess.run(setup.ours.command("snapshots", "diff", bottom, top), capture_output=True, check=True).stdout
    )
    tree = setup.home / "tree"
    base = next(setup.home.glob("ours/root/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs"))
    shutil.copytree(base, tree, symlinks=True)
    asyncio.run(fastoci.apply(tree, [layer]))
    assert differences([replace(node, mtime_ns=None) for node in setup.ours.tree(reference)], listing(tree)) == []
    assert " done, " in setup.differ.log.read_text().splitlines()[-1]


def test_many_layers_cost_little_each(setup: Setup) -> None:
    assert setup.ours.pull(setup.own["small"]).returncode == 0
    before = cpu_s(setup.differ)
    assert setup.ours.pull(setup.own["many"]).returncode == 0
    each_s = (cpu_s(setup.differ) - before) / HANDSHAKES
    print(f"\n{each_s * 1000:.2f} ms of CPU a layer, {resident(setup.differ) >> 20} MiB")
    assert each_s < CPU_A_LAYER_S
    assert resident(setup.differ) < 100 << 20


def cpu_s(differ: PassedDiffer) -> float:
    assert differ.process is not None
    fields = Path(f"/proc/{differ.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def resident(differ: PassedDiffer) -> int:
    assert differ.process is not None
    return int(Path(f"/proc/{differ.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
