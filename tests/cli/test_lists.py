"""Lists of a command line: read anew each time, but for what can be read only once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fastoci.cli.lists import Lists
from fastoci.errors import ConfigError


@pytest.fixture(autouse=True)
def command() -> Iterator[click.Context]:
    with click.Context(click.Command("prefetch")) as context:
        yield context


def images(lists: Lists) -> list[tuple[str, str]]:
    return [(request.reference, request.origin) for each in lists.read() for request in each.requests]


def test_a_file_is_read_anew_through_a_link_that_was_swapped(tmp_path: Path) -> None:
    """As a ConfigMap is: a directory's link is replaced by another."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "list").write_text(name)
    (tmp_path / "data").symlink_to("one")
    file = tmp_path / "data" / "list"
    lists = Lists([file])
    assert images(lists) == [("one", f"{file}:1")]
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "data")
    assert images(lists) == [("two", f"{file}:1")]
    file.unlink()
    with pytest.raises(ConfigError, match="list: No such file"):
        lists.read()


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("app")
    lists = Lists([tmp_path / "list"])
    (tmp_path / "list").unlink()
    os.mkfifo(tmp_path / "list")
    with pytest.raises(ConfigError, match="none any more"):
        lists.read()


def test_a_pipe_is_read_once_and_kept(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["app\n"])
    writer.start()
    lists = Lists([tmp_path / "pipe"])
    writer.join()
    assert images(lists) == images(lists) == [("app", f"{tmp_path}/pipe:1")]


def test_a_list_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ConfigError, match="list /dev/zero: larger than 256 MiB"):
        Lists([Path("/dev/zero")])


def test_a_pipe_that_is_named_twice_is_one_list() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "wb") as file:
        file.write(b"app\n")
        file.close()
        pipe = Path(f"/dev/fd/{reader}")
        assert images(Lists([pipe, pipe])) == [("app", f"{pipe}:1")] * 2


def test_a_name_that_no_file_can_have_is_told_as_one() -> None:
    lists = Lists([Path("x" * 300)])
    with pytest.raises(ConfigError, match="x: File name too long"):
        lists.read()
