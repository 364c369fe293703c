"""``--into podman`` and ``--in podman``: what podman finds, what a list takes away again, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Cli
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from support.image_stores import records

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layer directories with owners need root")


@pytest.fixture
def address() -> Iterator[str]:
    with serve(Registry()) as registry:
        for name in ("one", "two"):
            registry.add_image(name, "latest", Image.build([Layer.build([Entry(name)])]))
        yield registry.address


def shown(cli: Cli, store: Path) -> list[str]:
    return cli("ls", "--store", store, "--in", "podman", "-q").stdout.split()


def test_pull_lets_podman_find_an_image_and_rm_finds_it_no_more(cli: Cli, tmp_path: Path, address: str) -> None:
    store = tmp_path / "s"
    done = cli("pull", f"{address}/one", "--into", "podman", "--store", store)
    assert done.returncode == 0, done.stderr
    assert shown(cli, store) == [f"{address}/one:latest"]
    listed = json.loads(cli("ls", "--store", store, "--in", "podman", "--format", "json").stdout)["images"]
    assert listed[0]["id"] == records(store, "images")[0]["id"]
    assert "CREATED" in cli("ls", "--store", store, "--in", "podman").stdout
    assert cli("rm", f"{address}/one", "--in", "podman", "--store", store).returncode == 0
    assert shown(cli, store) == []
    again = cli("rm", f"{address}/one", "--in", "podman", "--store", store)
    assert again.returncode == 3
    assert "is not shown to podman" in again.stderr


def test_a_list_takes_away_what_it_brought_and_leaves_what_was_there(cli: Cli, tmp_path: Path, address: str) -> None:
    store, wanted = tmp_path / "s", tmp_path / "list"
    assert cli("pull", f"{address}/one", "--into", "podman", "--store", store).returncode == 0
    prefetch: list[str | Path] = [
        "prefetch",
        "-f",
        wanted,
        "--into",
        "podman",
        "--list-name",
        "n",
        "--prune",
        "--store",
        store,
    ]
    wanted.write_text(f"{address}/one\n{address}/two\n")
    assert cli(*prefetch).returncode == 0
    assert shown(cli, store) == [f"{address}/one:latest", f"{address}/two:latest"]
    wanted.write_text("# none\n")
    done = cli(*prefetch, "--allow-empty")
    assert done.returncode == 0, done.stderr
    assert f"removed {address}/two:latest where the images go, too" in done.stderr
    assert shown(cli, store) == [f"{address}/one:latest"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--into", "podman", "--no-unpack"], "--no-unpack needs --into containerd"),
        (["--into", "docker"], "is not containerd, containerd:NAMESPACE"),
    ],
    ids=["no unpack", "docker"],
)
def test_what_podman_cannot_have_is_refused(cli: Cli, tmp_path: Path, options: list[str], text: str) -> None:
    done = cli("pull", "h.test/a", *options, "--store", tmp_path / "s")
    assert done.returncode == 2
    assert text in done.stderr
    done = cli("ls", "a", "--in", "podman", "--store", tmp_path / "s")
    assert "no files of them" in done.stderr
