"""``fastoci pull`` with several platforms: lines, events, layouts, and what cannot be.

Covers: cli/commands/pull.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

if TYPE_CHECKING:
    from conftest import Cli

AMD = Image.build([Layer.build([Entry("amd", "file", b"")])])
ARM = Image.build([Layer.build([Entry("arm", "file", b"")])], platform=Platform("linux", "arm64"))
INDEX = Index.build([AMD, ARM])


@pytest.fixture
def name() -> Iterator[str]:
    made = Registry()
    made.add_image("both", "latest", INDEX)
    with serve(made) as served:
        yield f"{served.address}/both"


def test_each_platform_has_a_line_that_unpack_takes(cli: Cli, name: str, tmp_path: Path) -> None:
    store, layout = ("--store", tmp_path / "store"), tmp_path / "layout"
    platforms = ("--platform", "linux/arm64", "--platform", "amd64")
    done = cli("pull", name, *platforms, *store, "--oci", layout, "--progress", "json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name}@{each.descriptor.digest}" for each in (ARM, AMD)]
    events = [json.loads(line) for line in done.stderr.splitlines()]
    planned = {event["platform"]: event["digest"] for event in events if event["event"] == "image_planned"}
    assert planned == {"linux/arm64": str(ARM.descriptor.digest), "linux/amd64": str(AMD.descriptor.digest)}
    assert (events[-1]["event"], events[-1]["images"], events[-1]["blobs"]) == ("summary", 1, 7)
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == str(INDEX.descriptor.digest)
    unpacked = cli("unpack", done.stdout.split()[0], tmp_path / "root", *store)
    assert unpacked.returncode == 0, unpacked.stderr
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["arm"]


def test_all_is_a_word_of_the_variable_too(
    cli: Cli, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTOCI_PLATFORM", "all")
    done = cli("pull", name, "--store", tmp_path / "store")
    assert done.stdout.splitlines() == [f"{name}@{each.descriptor.digest}" for each in (AMD, ARM)], done.stderr
    monkeypatch.setenv("FASTOCI_PLATFORM", "linux/arm64 linux/amd64")
    done = cli("pull", name, "--store", tmp_path / "store", "--offline")
    assert done.stdout.splitlines() == [f"{name}@{each.descriptor.digest}" for each in (ARM, AMD)], done.stderr


def test_one_platform_said_twice_is_one(cli: Cli, name: str, tmp_path: Path) -> None:
    twice = ("--platform", "linux/arm64") * 2
    done = cli("pull", name, *twice, "--rootfs", tmp_path / "root", "--store", tmp_path / "store")
    assert done.stdout == f"{name}@{INDEX.descriptor.digest}\n", done.stderr
