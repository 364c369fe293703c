"""``fastoci pack`` as a process: what it prints, and what other tools make of its images."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from fastoci.testing.trees import differences, listing
from support.packing import put

DIGEST = r"sha256:[0-9a-f]{64}"


class Cli(Protocol):
    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    put(tmp_path / "tree/etc/name", "value", mode=0o600)
    put(tmp_path / "tree/usr/bin/tool", "tool" * 1000, mode=0o755)
    (tmp_path / "tree/usr/bin/link").symlink_to("tool")
    return tmp_path / "tree"


def test_a_directory_is_packed_and_unpacked(cli: Cli, tree: Path, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    done = cli("pack", tree, "--tag", "example.com/app:1", *store)
    assert (done.returncode, done.stderr) == (0, "")
    name, _, digest = done.stdout.strip().partition("@")
    assert name == "example.com/app"
    assert cli("pack", tree, "--tag", "example.com/app:2", *store).stdout == done.stdout
    assert cli("unpack", f"example.com/app@{digest}", tmp_path / "out", *store).returncode == 0
    assert differences(listing(tree), listing(tmp_path / "out")) == []


def test_what_differs_goes_on_top_of_a_base(cli: Cli, tree: Path, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    assert cli("pack", tree, "--tag", "example.com/base:1", *store).returncode == 0
    shutil.copytree(tree, tmp_path / "after", symlinks=True)
    (tmp_path / "after/etc/name").unlink()
    link = tmp_path / "after/usr/bin/link"
    os.utime(link, ns=(0, 0), follow_symlinks=False)
    done = cli(
        *("pack", tmp_path / "after", "--against", tree, "--base", "example.com/base:1"),
        *("--tag", "example.com/app:1", "--compression", "zstd", *store),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert cli("unpack", "example.com/app:1", tmp_path / "out", *store).returncode == 0
    assert differences(listing(tmp_path / "after"), listing(tmp_path / "out")) == []


@pytest.mark.parametrize(
    "given", [["--upper"], ["--upper", "--base", "b", "--against", "tree"], []], ids=["alone", "compared", "no-tag"]
)
def test_what_contradicts_itself_is_a_usage_error(cli: Cli, tree: Path, tmp_path: Path, given: list[str]) -> None:
    tag = ["--tag", "example.com/app:1"] if given else []
    done = cli("pack", tree, *tag, *given, "--store", tmp_path / "store")
    assert done.returncode == 2
    assert not (tmp_path / "store").exists()


def test_a_tree_that_cannot_be_a_layer_is_told_in_one_line(cli: Cli, tree: Path, tmp_path: Path) -> None:
    put(tree / ".wh.x")
    done = cli("pack", tree, "--tag", "example.com/app:1", "--store", tmp_path / "store")
    assert done.returncode == 7
    assert f"{tree}/.wh.x: a layer cannot have this name" in done.stderr
