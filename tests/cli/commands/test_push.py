"""``fastoci push``, ``tags``, ``tag`` and ``delete`` as processes.

Covers: cli/commands/tags.py, cli/commands/tag.py, cli/commands/delete.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

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


def test_an_image_is_pushed_named_again_and_deleted(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    store, name = ("--store", tmp_path / "store"), f"{registry.address}/team/app"
    assert cli("pull", f"{registry.address}/app:1", *store).returncode == 0
    done = cli("push", f"{registry.address}/app:1", f"{name}:1", *store)
    assert (done.returncode, done.stdout) == (0, f"{name}@{IMAGE.descriptor.digest}\n")
    again = cli("push", f"{registry.address}/app:1", f"docker://{name}:1", *store)
    assert again.stdout == done.stdout
    assert cli("tag", f"{name}:1", f"{name}:2").stdout == f"{IMAGE.descriptor.digest}\n"
    assert cli("tags", name).stdout == "1\n2\n"
    asked = cli("delete", f"{name}:1")
    assert (asked.returncode, "stays: --yes deletes it" in asked.stderr) == (2, True)
    assert cli("delete", f"{name}:1", f"{name}:absent", "--yes").returncode == 9
    assert json.loads(cli("tags", name, "--format", "json").stdout) == {"repository": name, "tags": ["2"]}


def test_what_cannot_be_pushed_ends_with_its_status(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    assert cli("pull", f"{registry.address}/app:1", *store).returncode == 0
    assert cli("push", "registry.test/absent:1", f"{registry.address}/x:1", *store).returncode == 3
    assert cli("push", f"{registry.address}/app:1", "NO", *store).returncode == 2
    assert cli("tag", f"{registry.address}/app:1", f"{registry.address}/other:1").returncode == 2
