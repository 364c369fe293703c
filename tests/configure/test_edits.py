from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastoci.configure import edits
from fastoci.configure.edits import Edit
from fastoci.errors import ConfigError, StoreError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def changed(path: Path, after: bytes | None = b"new\n") -> Edit:
    return Edit(str(path), edits.read(str(path)), after)


def test_a_file_is_replaced_with_its_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old\n")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 0, 12)
    before = path.stat()
    edits.write([changed(path)])
    info = path.stat()
    assert path.read_text() == "new\n"
    assert (info.st_mode, info.st_uid, info.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert info.st_ino != before.st_ino
    assert os.listdir(tmp_path) == ["f"]


def test_a_file_is_made_with_its_directory_and_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "conf.d" / "f"
    edits.check([changed(path)])
    assert not path.parent.exists()
    edits.write([changed(path)])
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new\n", 0o644)
    edits.write([changed(path, None)])
    assert not path.exists()


def test_a_link_in_the_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old\n")
    (tmp_path / "f").symlink_to("real")
    edits.write([changed(tmp_path / "f")])
    assert (tmp_path / "f").is_symlink()
    assert (tmp_path / "real").read_text() == "new\n"


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "real").write_text("old\n")
    (tmp_path / "f").symlink_to("there/real")
    for act in (edits.check, edits.write):
        with pytest.raises(ConfigError, match=f"name the file itself, {there}/real"):
            act([changed(tmp_path / "f")])
    assert (there / "real").read_text() == "old\n"


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "p")
    for name in ("d", "p"):
        with pytest.raises(ConfigError, match="not a regular file"):
            edits.check([Edit(str(tmp_path / name), b"", b"new")])


def test_a_file_that_everyone_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")
    (tmp_path / "f").chmod(0o666)
    with pytest.raises(ConfigError, match="f can be written by everyone"):
        edits.check([changed(tmp_path / "f")])
    (tmp_path / "f").chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="can be written by everyone: nothing"):
        edits.check([changed(tmp_path / "f")])


@as_root
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")
    os.chown(tmp_path / "f", 65534, 65534)
    with pytest.raises(ConfigError, match="f belongs to user 65534"):
        edits.check([changed(tmp_path / "f")])
    os.chown(tmp_path / "f", 0, 0)
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to user 65534, who decides"):
        edits.check([changed(tmp_path / "f")])


def test_a_file_that_has_changed_since_is_left(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")
    edit = changed(tmp_path / "f")
    (tmp_path / "f").write_text("theirs\n")
    with pytest.raises(ConfigError, match="changed meanwhile"):
        edits.write([edit])
    assert (tmp_path / "f").read_text() == "theirs\n"


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(edits.FILE_SIZE + 1)
    with pytest.raises(ConfigError, match="no configuration"):
        edits.read(str(tmp_path / "f"))


def test_a_directory_in_place_of_a_file_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read"):
        edits.read(str(tmp_path))


def test_an_edit_shows_its_lines() -> None:
    diff = Edit("/f", b"a\nb\n", b"a\nc\n").diff
    assert diff.splitlines() == ["--- /f", "+++ /f", "@@ -1,2 +1,2 @@", " a", "-b", "+c"]
    assert Edit("/f", None, b"a\n").diff.startswith("--- /dev/null\n+++ /f\n")
