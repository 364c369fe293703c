"""What a user could not give to a tree is in its layer all the same, where nothing was changed since."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastoci.image.runtime_config import IdRange, UserNamespace
from fastoci.pack.changes import Changes
from fastoci.pack.losses import Losses
from fastoci.pack.tree import Tree
from fastoci.unpack.losses import Lost
from support.packing import TIME_NS, members, put, tree_of

NAMESPACE = UserNamespace(
    (IdRange(0, os.geteuid(), 1), IdRange(1, 600_000, 65_536)),
    (IdRange(0, os.getegid(), 1), IdRange(1, 600_000, 65_536)),
)
LOST = [
    Lost(b"", 7, 8, 0o755, {}, None, 0),
    Lost(b"a", 0, 0, 0o755, {}, ("c", 1, 2), 0),
    Lost(b"d", 5, 0, 0o2755, {}, None, 0),
    Lost(b"d/file", 5, 6, 0o4755, {"trusted.a": b"1"}, None, 0),
    Lost(b"d/gone", 5, 6, 0o644, {}, None, 0),
    Lost(b"d/node", 0, 6, 0o660, {}, ("b", 8, 1), TIME_NS),
    Lost(b"d.e", 9, 9, 0o644, {}, None, 0),
]


def tree(root: Path, *, latest_ns: int | None = None) -> Tree:
    fd = os.open(root, os.O_RDONLY)
    losses = Losses(lambda: iter(LOST))
    return Tree(fd, str(root), latest_ns=latest_ns, losses=losses, namespace=NAMESPACE, told=lambda text: None)


def made(root: Path) -> Path:
    put(root / "d/file", mode=0o755)
    put(root / "d.e")
    put(root / "mine")
    (root / "d").chmod(0o755)
    root.chmod(0o755)
    return root


def test_names_have_what_they_lost(tmp_path: Path) -> None:
    found = members(Changes(tree(made(tmp_path / "root"))))
    said = {name: (each.uid, each.gid, oct(each.mode), each.devmajor) for name, each in found.items()}
    assert said == {
        ".": (7, 8, "0o755", 0),
        "a": (0, 0, "0o755", 1),
        "d": (5, 0, "0o2755", 0),
        "d/file": (5, 6, "0o4755", 0),
        "d/node": (0, 6, "0o660", 8),
        "d.e": (9, 9, "0o644", 0),
        "mine": (0, 0, "0o644", 0),
    }
    assert found["d/file"].pax_headers == {"SCHILY.xattr.trusted.a": "1"}
    assert found["d/node"].isblk()
    assert found["d/node"].mtime == TIME_NS // 10**9


def test_what_was_changed_since_counts(tmp_path: Path) -> None:
    root = made(tmp_path / "root")
    (root / "d/file").chmod(0o700)
    put(root / "a", "a file now")
    found = members(Changes(tree(root)))
    assert (found["d/file"].mode, found["d/file"].uid) == (0o700, 5)
    assert found["a"].isfile()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to ids of a user namespace")
def test_owners_are_those_of_the_user_namespace(tmp_path: Path) -> None:
    root = made(tmp_path / "root")
    os.chown(root / "mine", 600_041, 0)
    os.chown(root / "d/file", 600_004, 600_005)
    os.chown(root / "d.e", 12, 600_000)
    found = members(Changes(tree(root)))
    assert (found["mine"].uid, found["mine"].gid) == (42, 0)
    assert (found["d/file"].uid, found["d/file"].gid, found["d/file"].mode) == (5, 6, 0o4755)
    assert (found["d.e"].uid, found["d.e"].gid) == (12, 1)


def test_a_device_that_is_not_there_is_no_deletion(tmp_path: Path) -> None:
    root = made(tmp_path / "root")
    found = members(Changes(tree(root, latest_ns=0), tree_of(root).root))
    assert not any(".wh." in name for name in found)
    assert found["d/node"].mtime == 0
