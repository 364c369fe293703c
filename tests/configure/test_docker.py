from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastoci.configure import docker, edits
from fastoci.errors import ConfigError

ON = {"containerd-snapshotter": True}


def configure(path: Path) -> None:
    docker.plan(str(path), edits.read).write()


def undo(path: Path) -> None:
    docker.undo(str(path), edits.read).write()


@pytest.mark.parametrize(
    "text",
    [
        '{\n  "debug": true,\n  "features": {"buildkit": false}\n}',
        '{"features": {"containerd-snapshotter": false}}\n',
        "",
    ],
    ids=["others", "off", "empty"],
)
def test_the_feature_is_added_and_undone_to_the_byte(tmp_path: Path, text: str) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(text)
    configure(path)
    before = json.loads(text or "{}")
    assert json.loads(path.read_text()) == {**before, "features": {**before.get("features", {}), **ON}}
    assert not docker.plan(str(path), edits.read).diff
    undo(path)
    assert path.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["daemon.json"]


def test_a_file_that_was_made_goes(tmp_path: Path) -> None:
    configure(tmp_path / "daemon.json")
    assert json.loads((tmp_path / "daemon.json").read_text()) == {"features": ON}
    undo(tmp_path / "daemon.json")
    assert list(tmp_path.iterdir()) == []


def test_what_was_changed_since_stays(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{\n\t"debug": true\n}\n')
    configure(path)
    path.write_text(
        path.read_text().replace("true\n\t}", 'true,\n\t\t"x": true\n\t}').replace('"debug": true', '"debug": 1')
    )
    undo(path)
    assert path.read_text() == '{\n\t"debug": 1,\n\t"features": {\n\t\t"x": true\n\t}\n}\n'


def test_the_feature_of_a_user_stays_after_undo(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"features": ON}))
    assert not docker.plan(str(path), edits.read).diff
    undo(path)
    assert json.loads(path.read_text()) == {"features": ON}


@pytest.mark.parametrize("text", ["{", "[]", '{"features": 1}', '{"a": 1, "a": 2}', "[" * 100_000], ids=list("abcde"))
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"daemon\.json"):
        docker.plan(str(path), edits.read)
