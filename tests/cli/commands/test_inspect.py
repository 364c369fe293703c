"""What a user sees of an image by ``inspect``, and of two by ``diff``: text, JSON, single fields, exact bytes.

Covers: cli/inspection.py, cli/inspection_text.py, cli/commands/diff.py, cli/commands/inspect.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fastoci
from conftest import ROOT, Cli
from fastoci.cli.inspection import AllImages, ComparisonDocument, DocumentTree, OneImage
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform
from fastoci.testing.images import Artifact, Image, Index
from fastoci.testing.layers import Entry, Layer, directory, whiteout
from fastoci.testing.registry import Registry, serve
from support.scratch import SOURCE, scratch

HOSTILE = "\x1b[31mred\x07\u202e\n\x9b1m"
BASE = Layer.build([directory("etc"), Entry("etc/motd", data=b"hello\n"), Entry("etc/gone")], "gzip")
TOP = Layer.build([whiteout("etc/gone"), Entry("etc/motd", data=b"HELLO\n"), Entry(f"etc/{HOSTILE}")], "gzip")
RUN = {
    "User": "me:us",
    "Entrypoint": ["/init", "a b"],
    "Cmd": ["serve", HOSTILE],
    "Env": ["PATH=/bin", f"BAD={HOSTILE}"],
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv",
    "StopSignal": "SIGINT",
    "Labels": {"org.test/a.b": "one", "bad": HOSTILE},
}
STEPS = [
    {"created_by": "/bin/sh -c #(nop) ADD file:abc in / "},
    {"created_by": "ENV A=B", "empty_layer": True},
    {"created_by": f"RUN {HOSTILE}", "comment": "x"},
]


def configured(image: Image, **fields: object) -> Image:
    """The image with another config."""
    config = json.dumps({**json.loads(image.config), **fields}).encode()
    manifest = json.loads(image.manifest)
    manifest["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
    return replace(image, config=config, manifest=json.dumps(manifest).encode())


OLD = Image.build([BASE])
NEW = configured(Image.build([BASE, TOP]), config=RUN, history=STEPS, author=HOSTILE)
ARM = Image.build([BASE], platform=Platform("linux", "arm64"))
BOTH = Index.build([NEW, ARM])
FOREIGN = Index.build([Image.build([BASE], platform=Platform("linux", "s390x"))])
CHART = Artifact.build("application/vnd.test.chart", b"a chart")


class Scene:
    """A registry, and a store with ``stored`` in it: what is ``new`` in the registry."""

    def __init__(self, cli: Cli, registry: Registry, store: Path, stored: str) -> None:
        self.cli = cli
        self.address = registry.address
        self.store = store
        self.stored = stored

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What a command prints."""
        done = self.cli(*arguments, "--store", self.store)
        assert done.returncode == code, done.stderr
        return done.stdout if not code or arguments[0] == "diff" else done.stderr

    def name(self, name: str) -> str:
        return f"docker://{self.address}/{name}:1"


@pytest.fixture(scope="module")
def stored() -> Iterator[tuple[Path, str]]:
    with scratch("inspect") as store:
        with serve(Registry()) as registry:
            registry.add_image("new", "1", NEW)
            name = f"{registry.address}/new:1"
            fastoci.pull(name, store=store)
        yield store, name


@pytest.fixture
def scene(cli: Cli, stored: tuple[Path, str]) -> Iterator[Scene]:
    with serve(Registry()) as registry:
        for name, image in (("old", OLD), ("new", NEW), ("both", BOTH), ("foreign", FOREIGN), ("chart", CHART)):
            registry.add_image(name, "1", image)
        yield Scene(cli, registry, *stored)


def test_a_summary_says_what_an_image_is_and_nothing_moves_the_cursor(scene: Scene) -> None:
    shown = scene("inspect", scene.name("both"), "--platform", "linux/amd64")
    for text in (
        f"digest     {BOTH.descriptor.digest}",
        "platforms  linux/amd64, linux/arm64",
        f"manifest     {NEW.descriptor.digest}",
        "user         me:us",
        "entrypoint   /init 'a b'",
        "ports        80/tcp",
        "volumes      /data",
        "directory    /srv",
        "stop signal  SIGINT",
        "env          PATH=/bin",
        "labels       org.test/a.b=one",
        "in 2 layers",
        "ADD file:abc in /",
    ):
        assert text in shown
    assert "".join(shown.split("\n")).isprintable()
    assert r"\x1b[31mred\x07\u202e" in shown
    assert BASE.descriptor.digest.hex[:12] in shown


def test_a_tree_leads_to_the_layers(scene: Scene) -> None:
    lines = scene("inspect", scene.name("both"), "--tree", "--all").splitlines()
    assert [line for line in lines if " manifest sha256:" in line] == [
        f"    ├── linux/amd64 manifest {NEW.descriptor.digest} {len(NEW.manifest)} bytes",
        f"    └── linux/arm64 manifest {ARM.descriptor.digest} {len(ARM.manifest)} bytes",
    ]
    assert sum(" layer sha256:" in line for line in lines) == 3
    assert "".join(lines).isprintable()
    counted = scene("inspect", scene.stored, "--tree")
    assert f"layer {TOP.descriptor.digest} {TOP.descriptor.size} bytes, 3 entries  RUN" in counted
    assert "├── linux/amd64 manifest" in scene("inspect", scene.name("foreign"), "--tree").replace(
        "└── linux/s390x manifest", "├── linux/amd64 manifest"
    )


def test_raw_bytes_are_those_that_were_served(scene: Scene) -> None:
    def raw(*arguments: str) -> str:
        return hashlib.sha256(scene("inspect", *arguments).encode()).hexdigest()

    assert raw(scene.name("both"), "--raw") == BOTH.descriptor.digest.hex
    assert raw(scene.name("both"), "--raw", "--platform", "linux/arm64") == ARM.descriptor.digest.hex
    assert raw(scene.name("foreign"), "--raw") == FOREIGN.descriptor.digest.hex
    assert raw(scene.name("new"), "--raw", "--config") == Digest.of(NEW.config).hex
    assert raw(scene.stored, "--raw") == NEW.descriptor.digest.hex


def test_json_has_every_field_of_the_schema(scene: Scene) -> None:
    kinds: list[tuple[tuple[str, ...], Any]] = [
        (("inspect", scene.name("both"), "--platform", "linux/amd64"), OneImage),
        (("inspect", scene.name("both"), "--all"), AllImages),
        (("inspect", scene.name("both"), "--tree"), DocumentTree),
        (("inspect", scene.name("chart")), OneImage),
        (("diff", scene.name("old"), scene.name("new")), ComparisonDocument),
        (("diff", scene.name("old"), scene.name("new"), "--files"), ComparisonDocument),
    ]
    for arguments, kind in kinds:
        text = scene(*arguments, "--format", "json", code=int(arguments[0] == "diff"))
        assert text.isascii()
        found = msgspec.json.decode(text, type=kind)
        assert json.loads(msgspec.json.encode(found)) == json.loads(text)


def test_the_schema_on_the_page_is_that_of_the_types() -> None:
    kinds = (OneImage, AllImages, DocumentTree, ComparisonDocument)
    (one, every, tree, comparison), components = msgspec.json.schema_components(
        kinds, schema_hook=lambda kind: {"description": "any JSON value"}, ref_template="#/$defs/{name}"
    )
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What fastoci inspect and fastoci diff print with --format json",
        "anyOf": [one, every, tree, comparison],
        "$defs": components,
    }
    assert json.loads((ROOT / "docs" / "inspect.schema.json").read_text()) == json.loads(json.dumps(schema))


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        ("config.User", "me:us\n"),
        ("config.Env[0]", "PATH=/bin\n"),
        ("config.Entrypoint", '["/init", "a b"]\n'),
        ("layers[0].size", f"{BASE.descriptor.size}\n"),
        ("layers[*].digest", f"{BASE.descriptor.digest}\n{TOP.descriptor.digest}\n"),
        ("config.Labels['org.test/a.b']", "one\n"),
        ("layers[1].entries", "null\n"),
        ("config.Labels.bad", f"{HOSTILE}\n"),
    ],
    ids=["text", "of an array", "array", "number", "several", "by its name in quotes", "null", "as it is"],
)
def test_a_field_is_printed_alone(scene: Scene, path: str, printed: str) -> None:
    assert scene("inspect", scene.stored, "--get", path) == printed


def test_a_field_of_another_document_is_printed(scene: Scene) -> None:
    name = scene.name("new")
    assert scene("inspect", name, "--config", "--get", "rootfs.diff_ids[-1]") == f"{TOP.diff_id}\n"
    assert scene("inspect", name, "--raw", "--get", "layers[1].digest") == f"{TOP.descriptor.digest}\n"
    assert scene("inspect", name, "--all", "--get", "images[0].platform") == "linux/amd64\n"
    assert json.loads(scene("inspect", name, "--config")) == json.loads(NEW.config)


def test_a_field_that_is_not_there_is_told(scene: Scene) -> None:
    name = scene.stored
    said = scene("inspect", name, "--get", "config.env", code=3)
    assert said == "fastoci: $.config has no 'env': did you mean 'Env'? (config.env)\n"
    assert "has 2 elements" in scene("inspect", name, "--get", "layers[2]", code=3)
    assert "is not a path" in scene("inspect", name, "--get", "layers[", code=2)


def test_a_field_on_a_terminal_moves_no_cursor(scene: Scene) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "fastoci", "inspect", scene.stored, f"--store={scene.store}"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    subprocess.run([*command, "--get", "config.Labels.bad"], stdout=slave, check=True, env=environment)
    os.close(slave)
    assert os.read(master, 1000).decode() == r"\x1b[31mred\x07\u202e\n\x9b1m" + "\r\n"
    os.close(master)


def test_an_index_without_an_image_for_this_machine_names_what_it_has(scene: Scene) -> None:
    said = scene("inspect", scene.name("foreign"), code=3)
    assert "no image for this machine" in said
    assert "linux/s390x" in said


@pytest.mark.parametrize(
    "options",
    [("--all", "--raw"), ("--all", "--platform", "linux/amd64"), ("--tree", "--raw"), ("--tree", "--config")],
    ids=" ".join,
)
def test_what_does_not_go_together_is_a_usage_error(scene: Scene, options: tuple[str, ...]) -> None:
    scene("inspect", scene.name("new"), *options, code=2)


def test_the_file_of_the_program_is_given_in_front_of_the_command(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'store = "{scene.store}"\n')
    done = scene.cli("--config", tmp_path / "config.toml", "inspect", scene.stored, "--get", "config.User")
    assert (done.returncode, done.stdout) == (0, "me:us\n")


def test_an_artifact_is_shown_as_one(scene: Scene) -> None:
    shown = scene("inspect", scene.name("chart"))
    assert "artifact  application/vnd.test.chart" in shown
    assert "TITLE" in shown


# -- diff --


def test_a_diff_shows_fields_layers_and_files(scene: Scene) -> None:
    lines = scene("diff", scene.name("old"), scene.stored, "--files", code=1).splitlines()
    assert "config.Env" in lines
    assert "  + PATH=/bin" in lines
    assert f"1 layer shared, {BASE.descriptor.size} bytes" in lines
    assert any(line.startswith(f"+ {TOP.descriptor.digest.hex[:12]}") for line in lines)
    assert lines[-3:] == [
        r"+ /etc/\x1b[31mred\x07\u202e\n\x9b1m  (0 bytes)",
        "- /etc/gone  (0 bytes)",
        "~ /etc/motd  (content)",
    ]
    assert "".join(lines).isprintable()


def test_images_that_are_the_same_differ_in_nothing(scene: Scene) -> None:
    assert scene("diff", scene.name("new"), scene.stored, "--files") == ""
    same = json.loads(scene("diff", scene.name("new"), scene.stored, "--files", "--format", "json"))
    assert (same["fields"], same["files"], same["is_reordered"]) == ([], [], False)
    assert same["left"] == {
        "name": scene.name("new"),
        "manifest": str(NEW.descriptor.digest),
        "platform": "linux/amd64",
    }


def test_a_diff_of_what_is_not_there_fails(scene: Scene) -> None:
    scene("diff", scene.name("none"), scene.name("new"), code=3)
    scene("diff", scene.name("old"), "nothing", code=3)
