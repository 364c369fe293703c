"""Runtime bundles: what is in DIR before and after, and what is refused. Containers run in tests/interop/.

Covers: jobs/bundle.py, cli/commands/bundle.py, unpack/user_namespace.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import fastoci
from fastoci.errors import FastociError, FormatError, RootfsOccupiedError, StoreError, UnsupportedError
from fastoci.events import Event, Warned
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, symlink
from fastoci.testing.registry import Registry, serve
from fastoci.unpack.staging import Staging
from support.machine_images import image_with
from support.scratch import opened

LAYER = [
    directory("etc"),
    Entry("etc/passwd", data=b"app:x:0:0::/home:/bin/sh\n"),
    Entry("data", "directory", mode=0o1700),
    symlink("inside", "/proc/self/fd/7"),
]


class Scene:
    """A store with images by their tags, and a directory for a bundle."""

    def __init__(self, registry: Registry, at: Path) -> None:
        self._registry = registry
        self._at = at
        self.directory = at / "new" / "bundle"
        self.events: list[Event] = []

    def bundle(
        self, config: Mapping[str, object] | None = None, *, layer: list[Entry] = LAYER, image: Image | None = None
    ) -> dict[str, Any]:
        """Pull an image that says this of its containers, and make the bundle; its document."""
        self._registry.add_image("app", "latest", image or image_with([Layer.build(layer)], config or {}))

        async def make() -> None:
            async with fastoci.Engine(self._at / "store", observer=self.events.append) as engine:
                await (await engine.pull(f"{self._registry.address}/app")).bundle(self.directory)

        asyncio.run(make())
        found: dict[str, Any] = json.loads((self.directory / "config.json").read_text())
        return found

    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with serve(Registry()) as registry:
        yield Scene(registry, tmp_path)


def test_a_bundle_is_a_tree_and_a_document(scene: Scene) -> None:
    document = scene.bundle({"User": "app", "Volumes": {"/data": {}, "/new": {}}, "Cmd": ["/run"]})
    assert sorted(os.listdir(scene.directory)) == ["config.json", "rootfs"]
    assert (scene.directory / "rootfs" / "etc" / "passwd").is_file()
    assert scene.directory.stat().st_mode & 0o777 == 0o700
    assert document["process"]["args"] == ["/run"]
    assert "HOME=/home" in document["process"]["env"]
    modes = {each["destination"]: each["options"][3] for each in document["mounts"][-2:]}
    assert modes == {"/data": "mode=1700", "/new": "mode=0755"}
    assert ("user" in [each["type"] for each in document["linux"]["namespaces"]]) == (os.geteuid() != 0)


def test_a_finished_bundle_stays_with_what_its_user_changed(scene: Scene) -> None:
    scene.bundle()
    (scene.directory / "config.json").write_text("{}")
    (scene.directory / "rootfs" / "mine").write_text("mine")
    (scene.directory / "notes").write_text("mine")
    assert scene.bundle() == {}
    assert (scene.directory / "rootfs" / "mine").exists()


def test_a_bundle_goes_on_from_the_tree(scene: Scene) -> None:
    scene.bundle()
    (scene.directory / "config.json").unlink()
    inode = (scene.directory / "rootfs").stat().st_ino
    assert scene.bundle()["ociVersion"] == "1.0.2"
    assert (scene.directory / "rootfs").stat().st_ino == inode


def test_what_a_killed_process_left_is_removed(scene: Scene) -> None:
    scene.directory.mkdir(parents=True)
    with opened(scene.directory) as fd:
        left = Staging.make(fd, "rootfs")
        (scene.directory / left.name / "config.json").write_text("half")
        os.close(left.fd)
        os.close(left.lock)
    assert scene.bundle()
    assert sorted(os.listdir(scene.directory)) == ["config.json", "rootfs"]


@pytest.mark.parametrize("names", [["mine"], ["config.json"], ["rootfs", "mine"]])
def test_what_is_no_bundle_is_left_alone(scene: Scene, names: list[str]) -> None:
    scene.directory.mkdir(parents=True)
    for name in names:
        (scene.directory / name).mkdir()
    with pytest.raises(RootfsOccupiedError, match="is not empty, and holds no bundle"):
        scene.bundle()
    assert sorted(os.listdir(scene.directory)) == sorted(names)


def test_a_bundle_of_another_image_is_left_alone(scene: Scene) -> None:
    before = scene.bundle({"Cmd": ["/first"]})
    with pytest.raises(RootfsOccupiedError, match=r"rootfs holds image sha256:"):
        scene.bundle({"Cmd": ["/second"]})
    assert json.loads((scene.directory / "config.json").read_text()) == before


def test_a_file_in_the_place_of_the_bundle_is_refused(scene: Scene) -> None:
    scene.directory.parent.mkdir()
    scene.directory.write_text("mine")
    with pytest.raises(StoreError, match="Not a directory"):
        scene.bundle()


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"User": "nobody"}, UnsupportedError, "passwd has none"),
        ({"WorkingDir": "/proc/self/fd/8"}, UnsupportedError, "leads into /proc"),
        ({"WorkingDir": "/inside"}, UnsupportedError, "leads into /proc"),
        ({"WorkingDir": "/etc/../proc/1/root"}, UnsupportedError, "leads into /proc"),
        ({"Cmd": "text"}, FormatError, "config"),
    ],
)
def test_what_no_container_should_be_started_from_is_refused(
    scene: Scene, config: dict[str, object], error: type[FastociError], words: str
) -> None:
    with pytest.raises(error, match=words):
        scene.bundle(config)
    assert not (scene.directory / "config.json").exists()


def test_users_are_looked_up_in_the_image_alone(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(b"root:x:0:0::/root:/bin/sh\n")
    for text in (str(tmp_path / "passwd"), "../../../../passwd"):
        with pytest.raises(UnsupportedError, match="passwd has none"):
            scene.bundle({"User": "root"}, layer=[directory("etc"), symlink("etc/passwd", text)])
        shutil.rmtree(scene.directory)


def test_what_is_left_out_is_told(scene: Scene) -> None:
    document = scene.bundle({"Labels": {"run.oci.handler": "krun"}, "Volumes": {"/sys": {}}})
    assert scene.warnings() == ["not for a container, and left out: label run.oci.handler, volume /sys"]
    assert not any(name.startswith("run.oci") for name in document["annotations"])


def test_the_command_makes_a_bundle_of_an_image_of_the_store(
    scene: Scene, cli: Callable[..., Any], tmp_path: Path
) -> None:
    scene.bundle()
    done = cli("bundle", f"{scene._registry.address}/app", tmp_path / "again", "--store", tmp_path / "store")
    assert (done.returncode, done.stdout) == (0, "")
    assert sorted(os.listdir(tmp_path / "again")) == ["config.json", "rootfs"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").touch()
    done = cli("bundle", f"{scene._registry.address}/app", tmp_path / "other", "--store", tmp_path / "store")
    assert done.returncode == 8
    assert "holds no bundle" in done.stderr
