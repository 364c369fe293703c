"""Ways to directories that a user named, below ones that others can write to; and what is done there.

Covers: path_walk.py.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import fastoci
from fastoci import files, locks, path_walk
from fastoci.errors import FormatError, StoreBusyError, StoreError, UnpackError
from fastoci.registry.auth import auth_file, kubelet
from fastoci.registry.config import files as config_files
from fastoci.registry.http.tls import Tls, context

OTHER = 65534  # a user who is neither root nor the one of the tests


@pytest.fixture
def owned(tmp_path: Path) -> Callable[[Path, int], Path]:
    """Give a file to another user; for root."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give files away")

    def give(path: Path, uid: int = OTHER) -> Path:
        os.chown(path, uid, uid, follow_symlinks=False)
        return path

    return give


def reached(path: Path, *, make: int | None = None) -> os.stat_result:
    fd = path_walk.open_directory(path, make=make)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def leads(path: Path, to: Path) -> bool:
    return os.path.samestat(reached(path), to.stat())


def test_a_directory_is_reached_by_names_links_and_dots(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("a/../a/./b")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    (tmp_path / "a" / "up").symlink_to("../..")
    b = tmp_path / "a" / "b"
    assert leads(tmp_path / "a" / "b", b)
    assert leads(tmp_path / "relative", b)
    assert leads(tmp_path / "absolute" / ".." / "b", b)  # where the link leads, as the kernel reads it
    assert leads(tmp_path / "a" / "up" / tmp_path.name / "a" / "b", b)
    assert leads(Path("/../..", *b.parts[1:]), b)
    assert leads(Path("/"), Path("/"))


def test_links_of_the_kernel_lead_where_it_says(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        (tmp_path / "inner").mkdir()
        assert leads(Path(f"/proc/self/fd/{fd}/inner"), tmp_path / "inner")
        assert leads(Path(f"/proc/self/fd/{fd}/inner/../.."), tmp_path.parent)
        assert leads(Path(f"/proc/{os.getpid()}/root"), Path("/"))
    finally:
        os.close(fd)


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(ValueError, match="relative"):
        path_walk.open_directory(Path("a"))


def test_an_absolute_path_is_by_the_working_directory_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_walk.absolute("a/../b") == tmp_path / "a" / ".." / "b"
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StoreError, match="removed"):
        path_walk.absolute("a")
    assert path_walk.absolute("/a") == Path("/a")


@pytest.mark.parametrize("path", ["\0", "/a\0b", "\ud800", Path("x\0")], ids=ascii)
def test_what_the_kernel_takes_for_no_path_is_a_typed_error(path: str | Path) -> None:
    with pytest.raises(StoreError, match="is not a path"):
        path_walk.absolute(path)
    with pytest.raises(StoreError, match="is not a path"):
        fastoci.Engine(path)
    with pytest.raises(StoreError, match="is not a path"):
        asyncio.run(fastoci.apply(path, []))


def test_what_is_missing_is_made_or_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        path_walk.open_directory(tmp_path / "a" / "b")
    umask = os.umask(0o077)
    try:
        assert stat.S_IMODE(reached(tmp_path / "a" / "b", make=0o755).st_mode) == 0o700
        os.close(path_walk.open_directory(tmp_path / "c" / "d", make=0o755, exact=True))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        path_walk.open_directory(tmp_path / "file" / "x", make=0o755)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels") as caught:
        path_walk.open_directory(tmp_path / "a")
    assert caught.value.errno == errno.ELOOP


def test_the_parent_of_a_name_that_may_be_absent(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real/file")
    (tmp_path / "real").mkdir()
    for path, follow, parent, name in (
        (tmp_path / "new", False, tmp_path, "new"),
        (tmp_path / "link", False, tmp_path, "link"),
        (tmp_path / "link", True, tmp_path / "real", "file"),
        (Path(f"{tmp_path}/new/"), True, tmp_path, "new"),
    ):
        fd, found = path_walk.open_parent(path, follow=follow)
        with suppress(OSError):
            assert os.path.samestat(os.fstat(fd), parent.stat())
            assert found == name
        os.close(fd)
    for path in (Path("/"), tmp_path / "real" / ".."):
        with pytest.raises(OSError, match="ends in no name"):
            path_walk.open_parent(path)


@pytest.mark.attack
def test_a_link_of_another_user_is_refused_with_the_real_path(tmp_path: Path, owned: Callable[[Path], Path]) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert leads(tmp_path / "link", tmp_path / "real")
    owned(tmp_path / "link")
    with pytest.raises(StoreError, match=f"link: .* user {OTHER}.*{tmp_path}/real/x") as caught:
        path_walk.open_directory(tmp_path / "link" / "x", make=0o755)
    assert caught.value.path == str(tmp_path / "link")
    with pytest.raises(StoreError, match="not followed"):
        path_walk.open_parent(tmp_path / "link", follow=True)


@pytest.mark.attack
def test_a_link_of_ours_is_refused_where_another_user_could_have_put_it(
    tmp_path: Path, owned: Callable[[Path], Path]
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "link").symlink_to(tmp_path / "real")
    owned(tmp_path / "theirs")
    with pytest.raises(StoreError, match=f"directory of user {OTHER}"):
        path_walk.open_directory(tmp_path / "theirs" / "link")
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "sticky").chmod(0o1777)
    assert leads(tmp_path / "sticky" / "link", tmp_path / "real")
    os.link(tmp_path / "sticky" / "link", tmp_path / "sticky" / "again", follow_symlinks=False)
    with pytest.raises(StoreError, match="several names"):
        path_walk.open_directory(tmp_path / "sticky" / "again")
    (tmp_path / "sticky" / "again").unlink()
    (tmp_path / "sticky").chmod(0o777)
    with pytest.raises(StoreError, match="everyone"):
        path_walk.open_directory(tmp_path / "sticky" / "link")


def test_directories_of_other_users_are_walked_through(tmp_path: Path, owned: Callable[[Path], Path]) -> None:
    (tmp_path / "theirs" / "x").mkdir(parents=True)
    owned(tmp_path / "theirs")
    owned(tmp_path / "theirs" / "x")
    assert leads(tmp_path / "theirs" / "x" / ".." / "x", tmp_path / "theirs" / "x")
    assert reached(tmp_path / "theirs" / "x" / "y", make=0o755).st_uid == os.geteuid()


@pytest.mark.attack
def test_dots_lead_back_to_where_the_walk_came_from_whatever_was_moved(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    walk = path_walk._Walk(tmp_path / "a" / "b" / ".." / "c", 0o755, False)
    try:
        while walk._ahead[-1] != "..":
            walk._step(walk._ahead.pop())
        (tmp_path / "a" / "b").rename(tmp_path / "elsewhere" / "b")
        walk.go()
    finally:
        walk.close()
    assert (tmp_path / "a" / "c").is_dir()
    assert not (tmp_path / "elsewhere" / "c").exists()


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_file_is_replaced_at_once_with_mode_and_owner(tmp_path: Path, top: int) -> None:
    (tmp_path / ".new").symlink_to("/nowhere")
    files.replace_at(top, "name", b"one", temporary=".new")
    files.replace_at(top, "name", b"two", temporary=".new", mode=0o600, owner=(os.geteuid(), os.getegid()))
    assert (tmp_path / "name").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "name").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["name"]
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace_at(top, "directory", b"", temporary=".new")
    assert sorted(os.listdir(tmp_path)) == ["directory", "name"]


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path: Path, top: int) -> None:
    with locks.locked_at(top, ".lock", "the lock"):
        assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) & 0o077 == 0
        with pytest.raises(StoreBusyError, match="the lock is locked"), locks.locked_at(top, ".lock", "the lock"):
            pass
    assert os.listdir(tmp_path) == []
    with locks.locked_at(top, ".lock", "the lock"):
        pass


def test_a_lock_is_a_regular_file(tmp_path: Path, top: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("new")
    for name in ("fifo", "link"):
        with pytest.raises(OSError, match=r"regular|symbolic"):
            locks.lock_at(top, name)
    assert not (tmp_path / "new").exists()


@pytest.mark.attack
def test_a_pipe_that_nobody_writes_to_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PIPE_S", 0.05)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TimeoutError, match="this pipe has not ended"):
        files.read_start(tmp_path / "pipe", 10)
    with pytest.raises(FormatError, match="this pipe has not ended"):
        auth_file.read(tmp_path / "pipe")
    with pytest.raises(FormatError, match="this pipe has not ended"):
        config_files.read(tmp_path / "pipe", "configuration file")
    with pytest.raises(FormatError, match="this pipe has not ended"):
        kubelet.load(tmp_path / "pipe", tmp_path, {})


def test_what_is_written_to_a_pipe_is_read_to_its_end_or_limit(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"0123456789")
        assert files.read_start(Path(f"/proc/self/fd/{reader}"), 4) == b"0123"
        os.close(writer)
        assert files.read_start(Path(f"/dev/fd/{reader}"), 1 << 20) == b"456789"
    finally:
        os.close(reader)
    (tmp_path / "file").write_bytes(bytes(100_000))
    assert files.read_start(tmp_path / "file", 1 << 20) == bytes(100_000)
    assert files.read_start(Path("/dev/null"), 10) == b""
    assert files.read_start(Path("/dev/zero"), 10) == bytes(10)
    with pytest.raises(IsADirectoryError):
        files.read_start(tmp_path, 10)


@pytest.mark.attack
def test_a_certificate_or_layer_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FormatError, match="not a regular file"):
        context(Tls(ca=(pipe,)), verify=True)
    with pytest.raises(FormatError, match="not a regular file"):
        context(Tls(client=((pipe, pipe),)), verify=True)
    with pytest.raises(UnpackError, match="not from a pipe"):
        asyncio.run(fastoci.apply(tmp_path / "tree", [pipe]))
