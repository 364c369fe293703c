"""A rootfs has its name only when it is whole, and what a killed process left is removed."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import fastoci
from fastoci import _extract, locks
from fastoci.errors import StoreError, UnpackError
from fastoci.testing.layers import Entry, tar
from fastoci.unpack.rootfs import Rootfs, open_directory
from support.attacker import Attacker, scene

NOBODY = 0xFFFFFFFF  # in an entry of an ACL that names nobody


def test_a_published_tree_has_its_name_and_nothing_else_is_left(tmp_path: Path) -> None:
    rootfs = Rootfs.begin(tmp_path / "root")
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=rootfs.fd))
    (private,) = tmp_path.iterdir()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    rootfs.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o755
    assert os.listdir(tmp_path / "root") == ["file"]


def test_a_discarded_tree_leaves_nothing(tmp_path: Path) -> None:
    rootfs = Rootfs.begin(tmp_path / "parent" / "root")
    os.mkdir("sub", dir_fd=rootfs.fd)
    rootfs.discard()
    rootfs.discard()
    assert list((tmp_path / "parent").iterdir()) == []


def test_a_name_that_is_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    rootfs = Rootfs.begin(tmp_path / "root")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine").write_text("")
    with pytest.raises(StoreError, match="not an empty directory"):
        rootfs.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert os.listdir(tmp_path / "root") == ["mine"]


@pytest.mark.parametrize("kind", ["file", "symlink", "full"])
def test_a_target_that_is_not_an_empty_directory_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "root"
    if kind == "file":
        target.write_text("")
    elif kind == "symlink":
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to("elsewhere")
    else:
        target.mkdir()
        (target / "mine").write_text("")
    with pytest.raises(StoreError, match="a symbolic link" if kind == "symlink" else "not an empty directory"):
        Rootfs.begin(target)


def left(path: Path) -> int:
    """A private directory as a process makes it; the descriptor of its lock, which is held until that is closed."""
    (path / "rootfs" / "deep").mkdir(parents=True)
    path.chmod(0o700)
    fd = os.open(path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    assert locks.try_lock(fd)
    return fd


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    os.close(left(tmp_path / ".root.0123.fastoci"))
    (tmp_path / ".root.89ab.fastoci").mkdir(mode=0o700)  # killed before it made the lock
    os.close(left(tmp_path / ".root2.89ab.fastoci"))
    lock = left(tmp_path / ".root.4567.fastoci")
    try:
        Rootfs.begin(tmp_path / "root").publish()
    finally:
        os.close(lock)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".root.4567.fastoci", ".root2.89ab.fastoci", "root"]


def test_a_removal_that_is_given_too_little_time_is_finished_by_the_next_unpack(tmp_path: Path) -> None:
    rootfs = Rootfs.begin(tmp_path / "root")
    os.mkdir("sub", dir_fd=rootfs.fd)
    os.close(rootfs.stage(1))
    left = rootfs.discard(within=0)
    assert [path.name for path in tmp_path.iterdir()] == [left]
    assert rootfs.discard() == ""
    assert Rootfs.begin(tmp_path / "root").discard(within=60) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack
@pytest.mark.parametrize("change", ["owner", "mode", "link", "no lock", "lock's mode", "lock's owner", "lock's kind"])
def test_what_only_looks_like_a_private_directory_of_ours_is_left_alone(tmp_path: Path, change: str) -> None:
    path = tmp_path / ".root.0123.fastoci"
    os.close(left(path))
    if "owner" in change:
        if os.geteuid() != 0:
            pytest.skip("needs root to give files away")
        os.chown(path / "lock" if "lock" in change else path, 65534, 65534)
    elif change == "mode":
        path.chmod(0o755)
    elif change == "link":
        path.rename(tmp_path / "real")
        path.symlink_to("real")
    elif change == "no lock":
        (path / "lock").unlink()
    elif change == "lock's mode":
        (path / "lock").chmod(0o644)
    else:
        (path / "lock").unlink()
        os.mkfifo(path / "lock", 0o600)
    Rootfs.begin(tmp_path / "root").publish()
    assert (path / "rootfs" / "deep").is_dir()


def test_unpacks_that_begin_at_once_do_not_take_each_other_for_dead(tmp_path: Path) -> None:
    def begin(_: int) -> list[str]:
        rootfs = Rootfs.begin(tmp_path / "root")
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=rootfs.fd))
        found = os.listdir(rootfs.fd)
        rootfs.discard()
        return found

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(begin, range(400))) == [["file"]] * 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o555, 0o311, 0o000])
def test_a_tree_is_published_with_whatever_mode_its_root_has(tmp_path: Path, mode: int) -> None:
    rootfs = Rootfs.begin(tmp_path / "root")
    os.fchmod(rootfs.fd, mode)
    rootfs.publish()
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == mode


@pytest.mark.attack
@pytest.mark.parametrize("applied", [False, True], ids=["rootfs", "apply"])
def test_the_root_inherits_nothing_from_the_directory_it_is_in(tmp_path: Path, applied: bool) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    if os.geteuid() == 0:
        os.chown(parent, 0, 1234)
    parent.chmod(0o2777)
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, 7, who)
        for tag, who in ((1, NOBODY), (2, 65534), (4, NOBODY), (16, NOBODY), (32, NOBODY))
    )
    try:
        os.setxattr(parent, "system.posix_acl_default", acl)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    umask = os.umask(0o077)
    try:
        if applied:
            os.close(open_directory(parent / "root")[0])
        else:
            rootfs = Rootfs.begin(parent / "root")
            staged = rootfs.stage(0)
            assert not [name for name in os.listxattr(staged) if "acl" in name]
            os.close(staged)
            rootfs.publish()
    finally:
        os.umask(umask)
    info = (parent / "root").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o755, os.geteuid(), os.getegid())
    assert not [name for name in os.listxattr(parent / "root") if "acl" in name]


@pytest.mark.parametrize("mode", [0o311, 0o000])
def test_a_directory_that_its_owner_may_not_read_is_opened_and_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root").chmod(mode)
    fd, base = open_directory(tmp_path / "root")
    try:
        assert os.listdir(fd) == ["sub"]
        assert base
        assert stat.S_IMODE(os.fstat(fd).st_mode) == mode
    finally:
        os.fchmod(fd, 0o700)
        os.close(fd)


def whole(target: Path) -> None:
    """All that an unpack does, or as much as another user lets it do."""
    with suppress(StoreError):
        rootfs = Rootfs.begin(target)
        try:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=rootfs.fd))
            staged = rootfs.stage(1)
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=staged))
            os.close(staged)
            rootfs.unstage(1)
            rootfs.publish()
        except BaseException:
            rootfs.discard()
            raise


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_another_user_who_acts_between_two_calls_leads_nothing_elsewhere(kind: str) -> None:
    with scene(kind) as at:
        assert Attacker(at).between(whole) > 100


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_another_user_who_acts_meanwhile_leads_nothing_elsewhere(kind: str) -> None:
    with scene(kind) as at:
        Attacker(at).beside(whole, 300)


@pytest.mark.attack
def test_a_directory_of_roots_that_another_user_gives_the_name_is_not_removed() -> None:
    with scene("theirs") as at:
        backup = at.place / ".target.0123456789abcdef.fastoci"
        backup.mkdir(mode=0o700)
        (backup / "file").touch()
        Rootfs.begin(at.target).publish()
        assert (backup / "file").exists()


def applied(target: Path) -> None:
    with suppress(StoreError):
        fd, _ = open_directory(target)
        try:
            with suppress(FileExistsError, PermissionError):
                os.close(os.open("file", os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=fd))
        finally:
            os.close(fd)


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_another_user_does_not_choose_the_directory_that_layers_are_applied_to(kind: str) -> None:
    with scene(kind) as at:
        assert Attacker(at).between(applied) > 20
        Attacker(at).beside(applied, 300)


def test_what_a_stopped_discard_leaves_is_removed_by_the_next_unpack_that_nobody_stops(tmp_path: Path) -> None:
    stop = _extract.Stop()
    stop.set()
    rootfs = Rootfs.begin(tmp_path / "tree")
    os.makedirs(f"/proc/self/fd/{rootfs.fd}/directory/in")
    assert rootfs.discard(stop=stop)
    Rootfs.begin(tmp_path / "tree", stop=stop).discard()
    (left,) = tmp_path.iterdir()
    assert (left / "rootfs/directory/in").is_dir()
    Rootfs.begin(tmp_path / "tree").discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.attack
def test_a_name_of_a_megabyte_makes_no_long_message(tmp_path: Path) -> None:
    name = "a" * 400_000 + "b" * 400_000
    (tmp_path / "layer").write_bytes(b"".join(tar([Entry(name)])))
    with pytest.raises(UnpackError) as caught:
        asyncio.run(fastoci.apply(tmp_path / "tree", [tmp_path / "layer"]))
    assert len(str(caught.value)) < 1000 + len(str(tmp_path))
    assert "aaa...bbb" in str(caught.value)
    assert caught.value.path == name


@pytest.mark.parametrize(
    "name", ["n" * 255, "n" * 230, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 127], ids=["longest", "long", "wide"]
)
def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path, name: str) -> None:
    left, other = Rootfs.begin(tmp_path / name), Rootfs.begin(tmp_path / f"{name[:-1]}m")
    privates = sorted(path.name for path in tmp_path.iterdir())
    assert max(len(os.fsencode(each)) for each in privates) <= 255
    assert len({each.rsplit(".", 2)[0] for each in privates}) == 2
    left.discard(within=0)
    rootfs = Rootfs.begin(tmp_path / name)
    rootfs.publish()
    other.discard()
    assert os.listdir(tmp_path) == [name]
