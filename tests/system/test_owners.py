"""Owners that a user may not give: told with what to do, or left alone on request."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from fastoci.testing.layers import Entry, Kind, tar
from support.scratch import SOURCE

ROOT_USER = os.geteuid() == 0
KINDS: Final[tuple[Kind, ...]] = ("file", "symlink", "directory", "fifo")


def unpack(tmp_path: Path, entries: list[Entry], *options: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """Apply a layer with these entries to ``tree``; the exit code and stderr."""
    (tmp_path / "layer").write_bytes(b"".join(tar(entries)))
    command = [*prefix, sys.executable, "-m", "fastoci", "apply", "--progress", "none", *options]
    done = subprocess.run(
        [*command, str(tmp_path / "tree"), str(tmp_path / "layer")],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stderr


def namespace() -> tuple[str, ...]:
    """What runs a command as root of a user namespace with one id; the test is skipped where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-r", "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not to be had here")
    return (unshare, "-r")


def entry(kind: Kind, uid: int, gid: int) -> Entry:
    return Entry("mine", kind, link="target" if kind == "symlink" else "", mode=0o755, uid=uid, gid=gid)


@pytest.mark.parametrize(
    ("kind", "uid", "gid"),
    [
        ("file", 1000, 0),
        ("file", 4294967294, 4294967294),
        ("symlink", 0, 1000),
        ("directory", 1000, 0),
        ("fifo", 0, 1000),
    ],
)
def test_an_owner_that_a_user_namespace_lacks_is_named_with_what_to_do(
    tmp_path: Path, kind: Kind, uid: int, gid: int
) -> None:
    code, said = unpack(tmp_path, [entry(kind, uid, gid)], prefix=namespace())
    assert code == 8
    for words in ("entry 'mine", f"uid {uid}, gid {gid}", "1 user and 1 group ids", "/etc/subuid", "--no-same-owner"):
        assert words in said


def test_owners_are_left_alone_on_request(tmp_path: Path) -> None:
    entries = [replace(entry(kind, 1000, 7), path=kind) for kind in KINDS]
    assert unpack(tmp_path, entries, "--no-same-owner", prefix=namespace()) == (0, "")
    for kind in KINDS:
        info = (tmp_path / "tree" / kind).lstat()
        assert (info.st_uid, info.st_gid) == (os.geteuid(), os.getegid())


@pytest.mark.skipif(not ROOT_USER, reason="root's way with owners")
def test_set_id_bits_that_meant_another_owner_do_not_become_roots(tmp_path: Path) -> None:
    entries = [
        Entry("uid", "file", b"1", mode=0o6755, uid=1000),
        Entry("gid", "file", b"1", mode=0o6755, gid=1000),
        Entry("root", "file", b"1", mode=0o6755),
        Entry("directory", "directory", mode=0o2755, gid=1000),
        Entry("device", "character", mode=0o600, device=(1, 3), uid=1000),
    ]
    assert unpack(tmp_path, entries, "--no-same-owner") == (0, "")
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (tmp_path / "tree").iterdir()}
    assert modes == {"uid": 0o2755, "gid": 0o4755, "root": 0o6755, "directory": 0o755, "device": 0o600}
    assert {path.lstat().st_uid for path in (tmp_path / "tree").iterdir()} == {0}


@pytest.mark.skipif(not ROOT_USER, reason="root's way with owners")
def test_root_gives_files_to_their_owners_by_default(tmp_path: Path) -> None:
    assert unpack(tmp_path, [Entry("mine", "file", b"1", mode=0o4755, uid=1000, gid=7)]) == (0, "")
    info = (tmp_path / "tree" / "mine").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1000, 7, 0o4755)


@pytest.mark.skipif(not ROOT_USER, reason="needs root to have capabilities taken away")
def test_root_that_may_not_give_files_away_is_told_so(tmp_path: Path) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    prefix = (setpriv, "--inh-caps=-chown", "--bounding-set=-chown")
    code, said = unpack(tmp_path, [entry("file", 1000, 0)], prefix=prefix)
    assert code == 8
    assert "may not give files away: uid 1000, gid 0: unpack with --no-same-owner" in said
    assert "subuid" not in said
