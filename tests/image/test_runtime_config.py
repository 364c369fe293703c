"""The document of a runtime bundle, held against those that are kept.

``python tests/image/test_runtime_config.py`` writes them anew, for the reader of a diff to judge.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import UnsupportedError
from fastoci.image.container_config import parse
from fastoci.image.container_user import ContainerUser
from fastoci.image.runtime_config import IdRange, UserNamespace, Volume, runtime_config

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CONFIG = parse(
    json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "created": "2024-01-01T00:00:00Z",
            "config": {
                "Entrypoint": ["/entry"],
                "Cmd": ["serve"],
                "Env": ["A=1"],
                "WorkingDir": "/app",
                "Volumes": {"/data": {}},
                "ExposedPorts": {"80/tcp": {}},
                "Labels": {"mine": "yes"},
            },
        }
    ).encode()
)
USER = ContainerUser(1000, 1001, (5, 70000), "/home/app")
VOLUMES = [Volume("/data", 0o1750, 101000, 1001)]
NAMESPACE = UserNamespace(
    (IdRange(0, 500, 1), IdRange(1, 100001, 65535)), (IdRange(0, 500, 1), IdRange(1, 100001, 65535))
)
MADE: dict[str, Callable[[], bytes]] = {
    "bundle_of_root.json": lambda: runtime_config(CONFIG, USER, None, VOLUMES),
    "bundle_without_root.json": lambda: runtime_config(CONFIG, USER, NAMESPACE, VOLUMES, read_only=True),
}


@pytest.mark.parametrize("name", MADE)
def test_the_document_is_the_one_that_is_kept(name: str) -> None:
    assert MADE[name]() == (GOLDEN / name).read_bytes()


def test_a_home_that_the_image_gives_is_kept() -> None:
    config = parse(b'{"config":{"Env":["HOME=/mine"]}}')
    env = json.loads(runtime_config(config, USER, None, ()))["process"]["env"]
    assert [each for each in env if each.startswith("HOME")] == ["HOME=/mine"]


@pytest.mark.parametrize("user", [ContainerUser(1000, 0), ContainerUser(0, 1000)])
def test_a_user_that_the_namespace_does_not_have_is_refused(user: ContainerUser) -> None:
    alone = UserNamespace((IdRange(0, 500, 1),), (IdRange(0, 500, 1),))
    assert runtime_config(CONFIG, ContainerUser(0, 0), alone, ())
    with pytest.raises(UnsupportedError, match="/etc/subuid"):
        runtime_config(CONFIG, user, alone, ())


if __name__ == "__main__":
    for name, make in MADE.items():
        (GOLDEN / name).write_bytes(make())
