"""What a user sees of an image's files: ``ls REF PATH``, ``find``, ``cat`` and ``export``.

Covers: cli/file_lines.py, cli/image_files.py, cli/commands/cat.py, cli/commands/export.py, cli/commands/find.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastoci
from conftest import Cli
from fastoci.cli.file_lines import long_lines
from fastoci.testing.images import Image
from fastoci.testing.layers import TIME_NS, Entry, Layer, directory, symlink
from fastoci.testing.registry import Registry, serve
from fastoci.unpack.erofs_files import ImageFile
from support.scratch import SOURCE, scratch

ENTRIES = [
    directory("etc"),
    Entry("etc/motd", data=b"hello\n", uid=70_000, gid=5, mode=0o4640),
    symlink("etc/link", "../etc/motd"),
    Entry("etc/null", kind="character", device=(1, 3), mode=0o666),
    Entry("etc/\x1b[31mred\n\udcff", data=b"\x00\xff" * 50_000),
]
IMAGE = Image.build([Layer.build(ENTRIES)])


@pytest.fixture(scope="module")
def image() -> Iterator[tuple[str, str]]:
    """The name of an image that a store has, and the option that names the store."""
    with scratch("files") as store:
        with serve(Registry()) as registry:
            registry.add_image("app", "1", IMAGE)
            name = f"{registry.address}/app:1"
            fastoci.pull(name, store=store)
        yield name, f"--store={store}"


def test_a_directory_is_listed_like_ls_does(cli: Cli, image: tuple[str, str]) -> None:
    name, store = image
    assert cli("ls", name, "/etc", store).stdout.splitlines() == [
        r"-rw-r--r--  0:0      100000  2023-11-14T22:13:20Z  \x1b[31mred\n\udcff",
        "lrwxrwxrwx  0:0          11  2023-11-14T22:13:20Z  link -> ../etc/motd",
        "-rwSr-----  70000:5       6  2023-11-14T22:13:20Z  motd",
        "crw-rw-rw-  0:0        1, 3  2023-11-14T22:13:20Z  null",
    ]
    assert cli("ls", name, store).stdout == "drwxr-xr-x  0:0  0  2023-11-14T22:13:20Z  etc\n"
    assert cli("ls", "-q", name, "etc/link", store).stdout == "/etc/motd\n"


def test_the_images_are_listed_without_one(cli: Cli, image: tuple[str, str]) -> None:
    name, store = image
    assert cli("ls", "-q", store).stdout == f"{name}\n"
    done = cli("ls", "--platform", "linux/amd64", store)
    assert done.returncode == 2
    assert "fastoci ls REF PATH" in done.stderr


def test_json_says_all_of_a_file(cli: Cli, image: tuple[str, str]) -> None:
    name, store = image
    listed = json.loads(cli("ls", name, "etc", "--format", "json", store).stdout)["files"]
    found = [json.loads(line) for line in cli("find", name, "etc", "--format", "json", store).stdout.splitlines()]
    assert found[1:] == listed
    assert [file["path"] for file in found][:3] == ["/etc", "/etc/\x1b[31mred\n\udcff", "/etc/link"]
    assert listed[2] == {
        "path": "/etc/motd",
        "kind": "file",
        "mode": "4640",
        "uid": 70_000,
        "gid": 5,
        "size": 6,
        "mtime_ns": TIME_NS,
        "links": 1,
    }
    assert (listed[1]["link"], listed[3]["device"]) == ("../etc/motd", [1, 3])


def test_find_prints_one_path_a_line(cli: Cli, image: tuple[str, str]) -> None:
    name, store = image
    lines = cli("find", name, store).stdout.splitlines()
    assert lines == ["/", "/etc", r"/etc/\x1b[31mred\n\udcff", "/etc/link", "/etc/motd", "/etc/null"]
    assert cli("find", name, "/etc/link", store).stdout == "/etc/motd\n"


def test_cat_prints_the_bytes_of_a_file(cli: Cli, image: tuple[str, str]) -> None:
    name, store = image
    assert cli("cat", name, "etc/link", store).stdout == "hello\n"
    for path, reason in (("/etc", "is a directory"), ("/etc/none", "no such file"), ("/etc/null", "is a character")):
        done = cli("cat", name, path, store)
        assert (done.returncode, done.stdout) == (3, "")
        assert reason in done.stderr
        assert name in done.stderr


def test_export_writes_a_tar_to_a_file_or_to_stdout(cli: Cli, image: tuple[str, str], tmp_path: Path) -> None:
    name, store = image
    work = tmp_path
    (work / "out.tar").write_bytes(b"old")
    assert cli("export", name, work / "out.tar", store).stderr == ""
    data = (work / "out.tar").read_bytes()
    command = [sys.executable, "-m", "fastoci", "export", name, "-", store]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(SOURCE)})
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames()[1:3] == ["etc", "etc/\x1b[31mred\n\udcff"]
        assert tar.getmember("etc/motd").uid == 70_000
    assert cli("export", name, "/etc/motd", work / "one.tar", store).returncode == 0
    with tarfile.open(work / "one.tar") as tar:
        assert tar.getnames() == ["etc/motd"]


def test_an_export_that_fails_leaves_the_old_file(cli: Cli, image: tuple[str, str], tmp_path: Path) -> None:
    name, store = image
    work = tmp_path
    (work / "out.tar").write_bytes(b"old")
    assert cli("export", name, "/none", work / "out.tar", store).returncode == 3
    assert (work / "out.tar").read_bytes() == b"old"
    assert sorted(path.name for path in work.iterdir()) == ["out.tar"]
    assert cli("export", name, "/a", "/b", "-", store).returncode == 2


def test_a_time_that_no_calendar_has_is_seconds() -> None:
    file = ImageFile("/a", "file", 0o644, 0, 0, 0, 2**40 * 10**9, 1)
    assert [*long_lines([("a", file)])] == ["-rw-r--r--  0:0  0  @1099511627776  a"]
