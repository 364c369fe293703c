"""A tree that others change while it is read is found out, and never left.

Covers: pack/tree.py, pack/tar.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci import _core
from fastoci.errors import PackError
from fastoci.pack.changes import Changes
from fastoci.pack.tar import TarMaker
from support.packing import TIME_NS, members, put, tar_of, tree_of
from support.scratch import TESTS, scratch

ROOT_USER = os.geteuid() == 0


def run(program: str, *given: Path) -> str:
    """What a program of the tests prints."""
    program = f"import os, sys\nfrom pathlib import Path\nfrom support.packing import *\n{program}"
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, "-c", program, *given], env=environ, capture_output=True, check=True)
    return done.stdout.decode()


def buffer_of_its_own() -> _core.Buffer:
    buffer = _core.Pool(_core.BUFFER_SIZE).take()
    assert buffer is not None
    return buffer


def test_links_are_not_followed_wherever_they_lead(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/file", "secret")
    root = tmp_path / "root"
    root.mkdir()
    for name, target in {"directory": "../elsewhere", "file": "../elsewhere/file", "self": "self"}.items():
        (root / name).symlink_to(target)
    found = members(Changes(tree_of(root)))
    assert [each.linkname for each in found.values() if each.issym()] == ["../elsewhere", "../elsewhere/file", "self"]
    assert b"secret" not in tar_of(Changes(tree_of(root)))


def written(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(TIME_NS, TIME_NS))  # as if nothing had been


CHANGES: dict[str, Callable[[Path], object]] = {
    "shorter": lambda path: os.truncate(path, 5),
    "longer": lambda path: os.truncate(path, 5 << 20),
    "written": written,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = put(tmp_path / "a", os.urandom(3 << 20))
    maker, buffer = TarMaker(Changes(tree_of(tmp_path))), buffer_of_its_own()
    assert maker.fill(buffer)
    change(path)
    with pytest.raises(PackError, match="changed while it was read") as raised:
        for _ in range(10):
            buffer.clear()
            maker.fill(buffer)
    assert raised.value.retryable
    assert raised.value.path == str(path)
    maker.close()
    buffer.release()


def test_a_name_that_is_gone_when_its_turn_comes_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "a"), put(tmp_path / "b")
    changes = Changes(tree_of(tmp_path))
    walk = iter(changes)
    while next(walk).entry.path != b"a":
        pass
    (tmp_path / "b").unlink()
    with pytest.raises(PackError, match="changed while it was read") as raised:
        next(walk)
    assert raised.value.path == str(tmp_path / "b")
    changes.close()


def test_a_directory_that_becomes_a_link_is_not_entered(tmp_path: Path) -> None:
    put(tmp_path / "root/sub/file")
    put(tmp_path / "elsewhere/file", "secret")
    tree = tree_of(tmp_path / "root")
    assert tree.root.names() == [b"sub"]
    (tmp_path / "root/sub").rename(tmp_path / "root/old")
    (tmp_path / "root/sub").symlink_to(tmp_path / "elsewhere")
    node = tree.root.open(b"sub")
    assert (node.facts.kind, node.facts.link) == ("symlink", os.fsencode(tmp_path / "elsewhere"))
    node.close()
    tree.root.close()


def deep(root: Path, levels: int) -> Path:
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    return root


def test_a_tree_may_be_deeper_than_files_may_be_open(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))\n"
        "root, empty = map(Path, sys.argv[1:])\n"
        "print(sum(name != '.' for name in against(root, empty)), len(against(root, root)), len(against(empty, root)))"
    )
    found = run(program, deep(tmp_path / "root", 600), tmp_path / "empty").split()
    assert found == ["601", "0", "1"]


def test_a_parent_that_was_moved_meanwhile_is_found_out(tmp_path: Path) -> None:
    changes = Changes(tree_of(deep(tmp_path / "root", 200)))
    walk = iter(changes)
    while next(walk).entry.kind != "file":
        pass
    (tmp_path / "root" / "/".join("d" * 150)).rename(tmp_path / "elsewhere")
    with pytest.raises(PackError, match="changed while it was read"):
        list(walk)
    changes.close()


@pytest.mark.skipif(not ROOT_USER, reason="needs root: mount")
def test_what_is_mounted_is_left_out_but_for_where_it_is_mounted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("bound", "elsewhere/secret"):
        (root / name).mkdir(parents=True)
    put(root / "file"), put(root / "other")
    told: list[str] = []
    binds = (("elsewhere", "bound"), ("other", "file"))
    for source, target in binds:
        subprocess.run(["mount", "--bind", root / source, root / target], check=True)
    try:
        found = members(Changes(tree_of(root, told=told.append)))
    finally:
        for _, target in binds:
            subprocess.run(["umount", root / target], check=True)
    assert [name for name in found if name != "."] == ["bound", "elsewhere", "elsewhere/secret", "other"]
    assert [text.partition(" ")[0] for text in told] == [str(root / "bound"), str(root / "file")]


def test_what_may_not_be_read_is_named() -> None:
    with scratch("unreadable") as work:
        work.chmod(0o755)
        path = put(work / "root/sub/secret", mode=0)
        program = (
            f"if {ROOT_USER}: os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
            "try: members(Changes(tree_of(Path(sys.argv[1]))))\n"
            "except StoreError as error: print(error.path, error.errno)\n"
        )
        assert run("from fastoci.errors import StoreError\n" + program, work / "root") == f"{path} 13\n"


def test_a_stopped_walk_ends(tmp_path: Path) -> None:
    put(tmp_path / "a")
    maker, buffer = TarMaker(Changes(tree_of(tmp_path))), buffer_of_its_own()
    maker.stop()
    with pytest.raises(InterruptedError):
        maker.fill(buffer)
    maker.close()
    buffer.release()
