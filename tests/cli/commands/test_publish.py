"""``fastoci publish`` as a process: what it prints, and how it ends when it cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from fastoci.cli.commands.publish import publish
from fastoci.cli.commands.push import push
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from fastoci.testing.uploads import Uploads

IMAGE = Image.build([Layer.build([Entry("file", data=b"data" * 1000)])])


class Cli(Protocol):
    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "pushed").mkdir()
    with serve(Registry(uploads=Uploads(tmp_path / "pushed"))) as registry:
        registry.add_image("app", "1", IMAGE)
        yield registry


def test_an_image_is_published_and_its_new_name_is_printed(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    store, name = ("--store", tmp_path / "store"), f"{registry.address}/app:1"
    assert cli("pull", name, *store).returncode == 0
    done = cli("publish", name, f"{registry.address}/fast:1", *store)
    assert done.returncode == 0
    printed, _, digest = done.stdout.strip().partition("@sha256:")
    assert (printed, len(digest)) == (f"{registry.address}/fast", 64)
    other = cli("pull", f"{registry.address}/fast:1", "--store", tmp_path / "other")
    assert other.returncode == 0
    listed = cli("ls", *store)
    assert "fast:1" in listed.stdout


def test_what_is_published_is_sent_within_the_bounds_of_a_push() -> None:
    bounds = {option for each in push.params for option in each.opts if option.startswith("--max-")}
    assert "--max-bandwidth" in bounds
    assert bounds <= {option for each in publish.params for option in each.opts}


def test_what_cannot_be_published_ends_with_its_status(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    assert cli("pull", f"{registry.address}/app:1", *store).returncode == 0
    absent = cli("publish", "registry.test/absent:1", f"{registry.address}/fast:1", *store)
    assert (absent.returncode, absent.stdout) == (3, "")
    digest = cli("publish", f"{registry.address}/app:1", f"{registry.address}/fast@{IMAGE.descriptor.digest}", *store)
    assert digest.returncode == 2
    assert "published under a tag" in digest.stderr


def test_verity_is_of_layer_files(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    store, name = ("--store", tmp_path / "store"), f"{registry.address}/app:1"
    refused = cli("pull", name, *store, "--layers", "overlay", "--verity")
    assert refused.returncode == 2
    assert "--verity needs --layers erofs" in refused.stderr
    assert cli("pull", name, *store, "--layers", "erofs", "--verity").returncode == 0
