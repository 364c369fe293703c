"""Images unpacked, and containers run, by a user who is not root.

Covers: unpack/namespaced.py, unpack/settling.py, unpack/rights.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import fastoci
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, listing, overlay
from support.machine_images import shell_image
from support.other_user import COUNT, FIRST, UID, OtherUser, other_user
from support.runtimes import Runtime

CAPABILITY = bytes.fromhex("0100000200200000") + bytes(12)
Peer = Callable[[str], str]
LAYER = [
    directory("dev"),
    *(Entry(f"dev/tty{number}", "character", mode=0o620, gid=5, device=(4, number)) for number in range(12)),
    Entry("su", data=b"x", mode=0o4755),
    Entry("mine", data=b"x"),
    Entry("theirs", data=b"x", uid=5, gid=6),
    Entry("secret", "directory", mode=0o100, uid=5, gid=6),
    Entry("secret/file", data=b"x", mode=0o600, uid=5, gid=6),
]


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    registry.add_image("app", "latest", Image.build([Layer.build(LAYER)]))
    with serve(registry) as registry:
        yield registry


@pytest.fixture
def user() -> Iterator[OtherUser]:
    with other_user(with_ids=False) as found:
        yield found


def pull(user: OtherUser, registry: Registry, *options: str) -> str:
    return user.fastoci(
        *("pull", f"{registry.address}/app", "--tls-verify=false", "--store", "store", "--rootfs", "tree", *options)
    )


def lines(tree: Path) -> list[dict[str, object]]:
    text = tree.with_name(f".{tree.name}.lost.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_all_is_this_users_and_what_was_lost_is_told_beside_the_tree(user: OtherUser, registry: Registry) -> None:
    said = pull(user, registry)
    assert "not applied: 3 owners, 1 mode, 12 devices (dev/tty" in said
    assert ", ...)" in said
    tree = user.place / "tree"
    assert {node.uid for node in listing(tree)} == {UID}
    assert (tree / "su").stat().st_mode & 0o7777 == 0o755
    assert (tree / "secret").stat().st_mode & 0o7777 == 0o100
    header, *lost = lines(tree)
    assert header["inode"] == tree.stat().st_ino
    assert [each["path"] for each in lost if "device" not in each] == ["secret", "secret/file", "su", "theirs"]
    assert sum("device" in each for each in lost) == 12
    assert "nothing to unpack" in pull(user, registry)

    registry.add_image("app", "latest", Image.build([Layer.build([Entry("mine", data=b"x")])]))
    shutil.rmtree(tree)
    pull(user, registry)
    assert sorted(os.listdir(user.place)) == ["store", "tree"]


MAPPED = [
    *LAYER,
    Entry(
        "capable",
        data=b"x",
        xattrs=(
            (
                "security.capability",
                bytes.fromhex("0100000200040000000000000000000000000000"),
            ),
        ),
    ),
    Entry("beyond", data=b"x", uid=COUNT + 1),
    Entry("link", "symlink", link="mine", uid=7, mode=0o777),
]


@pytest.fixture
def mapped_user() -> Iterator[OtherUser]:
    with other_user(with_ids=True) as found:
        yield found


def test_who_has_more_ids_gives_files_to_their_owners(mapped_user: OtherUser, registry: Registry) -> None:
    registry.add_image("app", "latest", Image.build([Layer.build(MAPPED)]))
    assert "not applied: 1 owner, 1 mode, 12 devices" in pull(mapped_user, registry)
    tree = mapped_user.place / "tree"
    owners = {path.name: (path.lstat().st_uid, path.lstat().st_gid) for path in tree.iterdir()}
    assert owners["theirs"] == owners["secret"] == (FIRST + 4, FIRST + 5)
    assert owners["link"] == (FIRST + 6, UID)
    assert owners["mine"] == owners["su"] == owners["beyond"] == (UID, UID)
    assert (tree / "secret" / "file").stat().st_mode & 0o7777 == 0o600
    assert (tree / "su").stat().st_mode & 0o7777 == 0o755
    assert os.getxattr(tree / "capable", "security.capability")
    assert [each["path"] for each in lines(tree)[1:] if "device" not in each] == ["beyond", "su"]
    assert "nothing to unpack" in pull(mapped_user, registry)

    left = mapped_user.place / ".tree.0123456789abcdef.fastoci"  # as of a process that was killed
    left.mkdir(mode=0o700)
    (left / "lock").touch(mode=0o600)
    tree.rename(left / "rootfs")
    for path in (left, left / "lock"):
        os.chown(path, UID, UID)
    assert "not applied: 5 owners" in pull(mapped_user, registry, "--no-same-owner")
    assert {node.uid for node in listing(tree)} == {UID}
    assert not left.exists()


def test_who_may_not_use_the_ids_is_told_and_has_all_files(mapped_user: OtherUser, registry: Registry) -> None:
    said = mapped_user.run(
        *("setpriv", "--no-new-privs", "python", "-m", "fastoci", "pull", f"{registry.address}/app"),
        *("--tls-verify=false", "--store", "store", "--rootfs", "tree"),
    ).stderr
    assert "all files are this user's, although /etc/subuid has ids: newuidmap" in said
    assert {node.uid for node in listing(mapped_user.place / "tree")} == {UID}


def test_a_container_has_the_ids_of_its_user(mapped_user: OtherUser, registry: Registry, peer: Peer) -> None:
    config = {"Cmd": ["/bin/sh", "-c", "id; cat /secret"], "User": "app", "Volumes": {"/data": {}}}
    secret = Layer.build([Entry("secret", data=b"known\n", mode=0o600, uid=1000)])
    registry.add_image("app", "latest", shell_image(config, "id", "cat", layers=(secret,)))
    mapped_user.fastoci("pull", f"{registry.address}/app", "--tls-verify=false", "--store", "store")
    mapped_user.fastoci("bundle", f"{registry.address}/app", "bundle", "--store", "store")
    said = mapped_user.run(peer("runc"), "--root", "state", "run", "--bundle", "bundle", "mapped").stdout
    assert said == "uid=1000(app) gid=1001(apps) groups=1001(apps)\nknown\n"


def test_a_tree_is_packed_with_what_it_lost(user: OtherUser, registry: Registry) -> None:
    layer = [each for each in LAYER if not each.path.startswith("secret")]
    layer += [Entry("ping", data=b"p", uid=5, xattrs=(("security.capability", CAPABILITY),))]
    registry.add_image("app", "latest", Image.build([Layer.build(layer)]))
    pull(user, registry)
    user.run("chmod", "0711", "tree/theirs")
    user.fastoci("pack", "tree", "--tag", "example.com/packed:1", "--store", "store")
    user.run("rm", "tree/ping")
    user.fastoci("pack", "tree", "--tag", "example.com/packed:2", "--store", "store")
    subprocess.run(["chown", "-R", "0:0", user.place / "store"], check=True)  # a store of another user is not trusted

    async def unpack() -> None:
        async with fastoci.Engine(user.place / "store") as engine:
            for tag in "12":
                await (await engine.image(f"example.com/packed:{tag}")).unpack(user.place / f"packed{tag}")

    asyncio.run(unpack())
    expected = [replace(node, mode=0o711) if node.path == "theirs" else node for node in overlay([layer])]
    assert differences(expected, listing(user.place / "packed1")) == []
    assert differences([each for each in expected if each.path != "ping"], listing(user.place / "packed2")) == []


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_a_container_runs_without_root(user: OtherUser, registry: Registry, peer: Peer, name: str) -> None:
    config = {"Cmd": ["/bin/sh", "-c", "id; cat /proc/self/uid_map; echo 1 > /made"], "Volumes": {"/data": {}}}
    registry.add_image("app", "latest", shell_image(config, "id", "cat"))
    user.fastoci("pull", f"{registry.address}/app", "--tls-verify=false", "--store", "store")
    user.fastoci("bundle", f"{registry.address}/app", "bundle", "--store", "store")
    runtime = Runtime(peer(name), peer("unshare"), ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"))
    said = runtime.run(user.place / "bundle").split()
    assert said == ["uid=0(root)", "gid=0(root)", "groups=0(root)", "0", str(UID), "1"]
    assert (user.place / "bundle" / "rootfs" / "made").stat().st_uid == UID
