"""What ``--durability`` syncs, by the system calls of a pull."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from support import strace_log
from support.warm_program import WarmProgram

if TYPE_CHECKING:
    from conftest import Cli

CALLS = ("syncfs", "renameat", "fsync", "fdatasync", "fsetxattr")


@pytest.mark.parametrize(
    ("level", "is_inside"),
    [("", False), ("commit", False), ("blobs", False), ("batch", False), ("none", False), ("", True), ("commit", True)],
)
def test_a_tree_is_synced_before_and_after_it_has_its_name_at_level_commit_only(
    warm_program: WarmProgram, tmp_path: Path, level: str, is_inside: bool
) -> None:
    registry, tree, log = Registry(), tmp_path / "tree", tmp_path / "log"
    registry.add_image("app", "1", Image.build([Layer.build([Entry("file", "file", b"1")])]))
    if is_inside:
        (tree / "lost+found").mkdir(parents=True)
    with serve(registry):
        command = ["pull", f"{registry.address}/app:1", "--progress", "none", "--store", str(tmp_path / "store")]
        command += ["--rootfs", str(tree), *(["--durability", level] if level else [])]
        done = strace_log.trace(warm_program.start(*command, waits=True), ["-y"], log, calls=CALLS)
    assert done.returncode == 0, done.stderr
    calls = sorted(strace_log.calls(log), key=lambda call: call.started)
    in_place = "rootfs" if not is_inside else "file"
    steps = [
        "name" if call.name == "renameat" else "marker" if call.name == "fsetxattr" else "sync"
        for call in calls
        if (call.name == "syncfs" and call.result == 0)
        or (call.name == "renameat" and f'"{in_place}"' in call.arguments)
        or (call.name == "fsetxattr" and "fastoci.rootfs" in call.arguments and call.result == 0)
    ]
    if level != "commit":
        assert steps == (["marker", "name"] if not is_inside else ["name", "marker"])
    elif is_inside:
        assert steps == ["sync", "name", "sync", "marker", "sync"]
    else:
        assert steps == ["sync", "marker", "name", "sync"]
    synced = [call for call in calls if call.name in ("fsync", "fdatasync") and "/blobs/sha256" in call.arguments]
    assert bool(synced) == (level != "none")


@pytest.mark.parametrize("level", ["blobs", "none"])
def test_what_a_repair_fetches_is_synced_as_it_is_told(cli: Cli, tmp_path: Path, level: str) -> None:
    registry, store = Registry(), tmp_path / "store"
    image = Image.build([Layer.build([Entry("file", "file", b"1")])])
    registry.add_image("app", "1", image)
    with serve(registry):
        assert cli("pull", f"{registry.address}/app:1", "--store", store).returncode == 0
        digest = image.layers[0].descriptor.digest
        (store / "blobs/sha256" / digest.hex).unlink()
        done = cli("repair", "--store", store, "--durability", level)
    assert done.stdout == f"{digest}\n", done.stderr
    unsynced = [path.name for path in store.glob("unsynced/*/*") if path.parent.name != "corrupt"]
    assert unsynced == ([f"sha256-{digest.hex}"] if level == "none" else [])
