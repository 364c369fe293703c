"""A file of results: whole or as it was, refused beforehand, and never where another user leads."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fastoci.cli.results.output_file import OutputFile
from fastoci.errors import StoreError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_old_file_stays_until_there_is_a_new_one_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with OutputFile(path) as file:
        assert path.read_text() == "old"
        with path.open() as reader:
            file.write(b"new")
            assert reader.read() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_never_written_is_not_there(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "report.json"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_mode_is_what_the_umask_leaves_or_what_is_said(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for name, asked in (("by umask", None), ("said", 0o644)):
            with OutputFile(tmp_path / name, mode=asked) as file:
                file.write(b"")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "by umask"), mode(tmp_path / "said")) == (0o640, 0o644)


def test_it_stays_in_the_directory_that_was_named_whatever_has_that_name_later(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "other").mkdir()
    with OutputFile(tmp_path / "own" / "report.json") as file:
        (tmp_path / "own").rename(tmp_path / "moved")
        (tmp_path / "own").symlink_to(tmp_path / "other")
        file.write(b"new")
    assert (tmp_path / "moved" / "report.json").read_text() == "new"
    assert list((tmp_path / "other").iterdir()) == []


def test_a_symbolic_link_of_this_user_is_followed_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("report.json")
    with OutputFile(tmp_path / "link.json") as file:
        file.write(b"new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "report.json").read_text() == "new"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to another user")
def test_a_symbolic_link_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("report.json")
    os.lchown(tmp_path / "link.json", 65534, 65534)
    with pytest.raises(StoreError, match="belongs to user 65534"):
        OutputFile(tmp_path / "link.json")


@pytest.mark.parametrize("what", ["no directory", "a directory", "a pipe", "a file in between"])
def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path, what: str) -> None:
    path = tmp_path / "report.json"
    match what:
        case "no directory":
            path = tmp_path / "absent" / "report.json"
        case "a directory":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a file in between":
            path.write_text("")
            path = path / "report.json"
    with pytest.raises(StoreError, match="cannot write"):
        OutputFile(path)


def test_a_directory_that_takes_the_name_meanwhile_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with OutputFile(path) as file:
        path.mkdir()
        with pytest.raises(StoreError, match="not a regular file"):
            file.write(b"")
    assert list(tmp_path.iterdir()) == [path]
