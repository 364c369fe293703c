from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from fastoci.configure import edits, podman
from fastoci.configure.mirrors import Mirror
from fastoci.errors import ConfigError


def wanted(directory: Path, *mirrors: str) -> podman.Wanted:
    (directory / "registries.conf.d").mkdir(exist_ok=True)
    paths = [
        str(directory / name) for name in ("storage.conf", "usual.conf", "images", "registries.conf.d/fastoci.conf")
    ]
    return podman.Wanted(paths[0], paths[1], paths[2], paths[3], tuple(map(Mirror.parse, mirrors)))


def configure(asked: podman.Wanted) -> dict[str, object]:
    podman.plan(asked, edits.read).write()
    assert not podman.plan(asked, edits.read).diff
    return tomllib.loads(Path(asked.main).read_text())


@pytest.mark.parametrize("name", ["storage.conf", "usual.conf"])
def test_the_store_is_added_to_what_is_there_or_usual(tmp_path: Path, name: str) -> None:
    text = '# c\n[storage]\ndriver = "overlay"\n[storage.options]\nsize = ""\n'
    (tmp_path / name).write_text(text)
    asked = wanted(tmp_path)
    assert configure(asked) == {
        "storage": {"driver": "overlay", "options": {"size": "", "additionalimagestores": [str(tmp_path / "images")]}}
    }
    podman.undo(asked, edits.read).write()
    assert (tmp_path / name).read_text() == text
    assert sorted(os.listdir(tmp_path)) == sorted(["images", "registries.conf.d", name])


def test_a_new_file_names_a_driver(tmp_path: Path) -> None:
    asked = wanted(tmp_path)
    assert "driver" in str(configure(asked))
    podman.undo(asked, edits.read).write()
    assert sorted(os.listdir(tmp_path)) == ["images", "registries.conf.d"]


def test_mirrors_are_one_file(tmp_path: Path) -> None:
    asked = wanted(tmp_path, "docker.io=http://127.0.0.1:5000", "docker.io=https://m/x/", "h:1=https://m")
    configure(asked)
    first, second = tomllib.loads(Path(asked.registries).read_text())["registry"]
    assert (first["prefix"], second["location"]) == ("docker.io", "h:1")
    assert first["mirror"] == [{"location": "127.0.0.1:5000", "insecure": True}, {"location": "m/x", "insecure": False}]
    podman.undo(asked, edits.read).write()
    assert os.listdir(tmp_path / "registries.conf.d") == []


@pytest.mark.parametrize("name", ["registries.conf", "registries.conf.d/a.conf"])
def test_a_registry_that_another_file_configures_is_left_to_it(tmp_path: Path, name: str) -> None:
    asked = wanted(tmp_path, "docker.io=http://m")
    (tmp_path / name).write_text('[[registry]]\nprefix = "docker.io"\nlocation = "elsewhere"\n')
    with pytest.raises(ConfigError, match="write its mirror there"):
        podman.plan(asked, edits.read)
