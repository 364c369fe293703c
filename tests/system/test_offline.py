"""Commands that work without a registry, and every way to say which image of the store is meant.

Covers: cli/commands/unpack.py, store/lookup.py, jobs/offline.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastoci
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

if TYPE_CHECKING:
    from conftest import Cli

LAYERS = [Layer.build([Entry("hello", "file", b"hello\n")])]
ARM_LAYERS = [Layer.build([Entry("arm", "file", b"")])]
ONE = Image.build(LAYERS)
ARM = Image.build(ARM_LAYERS, platform=Platform("linux", "arm64"))
BOTH = Index.build([ONE, ARM])


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    made.add_image("team/app", "v1", ONE)
    made.add_image("team/app", "v2", ONE)
    made.add_image("both", "latest", BOTH)
    with serve(made) as served:
        yield served


class Machine:
    """The program over one store, and the registry that it was filled from."""

    def __init__(self, cli: Cli, registry: Registry, store: Path) -> None:
        self._cli = cli
        self._registry = registry
        self.store = store
        self.host = registry.address

    def __call__(self, command: str, *arguments: str | Path, code: int = 0) -> str:
        """Run a command; its stdout, or its stderr when it fails."""
        done = self._cli(command, *arguments, "--store", self.store)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    def pull(self, name: str, *arguments: str | Path) -> str:
        """Pull from the registry; the line printed."""
        return self("pull", f"{self.host}/{name}", "--progress", "none", *arguments).strip()

    @property
    def names(self) -> list[str]:
        """What ``ls`` lists."""
        return [line.split()[0].removeprefix(f"{self.host}/") for line in self("ls").splitlines()[1:]]

    def asked(self) -> int:
        """How many requests there were so far."""
        return len(self._registry.log)


@pytest.fixture
def machine(cli: Cli, registry: Registry, tmp_path: Path) -> Machine:
    return Machine(cli, registry, tmp_path / "store")


def ways(machine: Machine, printed: str, name: str) -> dict[str, str]:
    """Each way to name an image that was pulled."""
    digest = printed.partition("@")[2]
    (row,) = [line for line in machine("ls").splitlines() if line.startswith(f"{machine.host}/{name} ")]
    return {
        "the name": f"{machine.host}/{name}",
        "what pull printed": printed,
        "the name with tag and digest": f"{machine.host}/{name}@{digest}",
        "the digest": digest,
        "its hex digits": digest.removeprefix("sha256:"),
        "the digits that ls shows": row.split()[1],
        "the digits with the algorithm": f"sha256:{row.split()[1]}",
        "the name and digits": f"{machine.host}/{name.partition(':')[0]}@sha256:{row.split()[1]}",
    }


async def stored(store: Path, text: str) -> str:
    """The full name of the image that a text means."""
    async with fastoci.Engine(store) as engine:
        return str((await engine.image(text)).reference)


def test_every_command_takes_every_way_to_name_an_image(machine: Machine, tmp_path: Path) -> None:
    printed = machine.pull("team/app:v1")
    manifest = machine("inspect", f"{machine.host}/team/app:v1", "--raw")
    before = machine.asked()
    asked = ways(machine, printed, "team/app:v1")
    for way in ("what pull printed", "the digits that ls shows"):
        machine("unpack", asked[way], tmp_path / way, "--progress", "none")
        assert (tmp_path / way / "hello").read_bytes() == b"hello\n"
        assert machine("inspect", asked[way], "--raw") == manifest
    for way, text in asked.items():
        assert asyncio.run(stored(machine.store, text)) == f"{machine.host}/team/app:v1", way
    assert machine("pull", printed, "--offline", "--progress", "none").strip() == printed
    assert machine.asked() == before


def test_commands_that_change_or_check_take_digests(machine: Machine, tmp_path: Path) -> None:
    text = machine.pull("team/app:v1").partition("@sha256:")[2][:12]
    machine("verify", text)
    machine("repair", text, "--progress", "none")
    machine("view", tmp_path / "layout", text)
    (entry,) = json.loads((tmp_path / "layout" / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == str(ONE.descriptor.digest)
    machine("pin", text)
    machine("gc", "--max-count", "0")
    assert "is pinned" in machine("rm", text, code=2)
    assert machine.names == ["team/app:v1"]
    machine("unpin", text)
    machine("rm", text)
    assert machine.names == []


def test_a_digest_that_two_names_of_a_repository_have_means_both(machine: Machine) -> None:
    printed = machine.pull("team/app:v1")
    machine.pull("team/app:v2")
    machine("unpack", printed, machine.store.parent / "root", "--progress", "none")
    machine("rm", f"{machine.host}/team/app:v2@{ONE.descriptor.digest}")
    assert machine.names == ["team/app:v1"]
    machine.pull("team/app:v2")
    machine("rm", printed)
    assert machine.names == []


def test_what_names_in_several_repositories_have_is_not_changed_by_its_digest(
    machine: Machine, registry: Registry
) -> None:
    registry.add_image("copy", "latest", ONE)
    digest = machine.pull("team/app:v1").partition("@")[2]
    machine.pull("copy")
    for command in ("rm", "pin"):
        said = machine(command, digest, code=2)
        assert f"{machine.host}/copy:latest" in said and f"{machine.host}/team/app:v1" in said
    assert machine.names == ["copy:latest", "team/app:v1"]
    machine("unpack", digest, machine.store.parent / "root", "--progress", "none")


def test_digits_of_several_images_are_refused_with_the_candidates(machine: Machine, registry: Registry) -> None:
    first: dict[str, int] = {}
    for number in range(400):  # four digits that two of them share: the birthday of 65,536 days
        image = Image.build(LAYERS, command=[str(number)])
        digits = image.descriptor.digest.hex[:4]
        if digits in first:
            break
        first[digits] = number
    for tag in (first[digits], number):
        registry.add_image("near", f"v{tag}", Image.build(LAYERS, command=[str(tag)]))
        machine.pull(f"near:v{tag}")
    said = machine("inspect", digits, code=2)
    assert f"near:v{first[digits]}" in said and f"near:v{number}" in said and f"sha256:{digits}" in said


@pytest.mark.parametrize(("text", "code"), [("0123456789ab", 3), ("nothing@sha256:abcd", 3), ("UPPER:", 2)])
def test_what_the_store_does_not_have_is_not_found(machine: Machine, tmp_path: Path, text: str, code: int) -> None:
    machine.pull("team/app:v1")
    machine("unpack", text, tmp_path / "root", "--progress", "none", code=code)
    machine("pull", text, "--pull", "never", "--progress", "none", code=code)
    assert not (tmp_path / "root").exists()


def test_a_platform_is_unpacked_by_the_digest_of_its_manifest(machine: Machine, tmp_path: Path) -> None:
    machine.pull("both", "--platform", "linux/amd64")
    machine.pull("both", "--platform", "linux/arm64")
    arm = str(ARM.descriptor.digest)
    machine("unpack", arm, tmp_path / "arm", "--progress", "none")
    assert (tmp_path / "arm" / "arm").exists()
    machine("unpack", f"{machine.host}/both@{BOTH.descriptor.digest}", tmp_path / "amd", "--platform", "linux/amd64")
    assert (tmp_path / "amd" / "hello").exists()


def test_a_pull_of_what_is_missing_asks_only_for_that(machine: Machine, tmp_path: Path) -> None:
    name = f"{machine.host}/team/app:v1"
    printed = machine("pull", name, "--pull", "missing", "--progress", "none")
    before = machine.asked()
    assert machine("pull", name, "--pull", "missing", "--rootfs", tmp_path / "root", "--progress", "log") == printed
    assert (tmp_path / "root" / "hello").exists()
    assert machine.asked() == before
    (blob,) = machine.store.glob(f"blobs/sha256/{LAYERS[0].descriptor.digest.hex}")
    blob.unlink()
    said = machine("pull", name, "--offline", "--progress", "none", code=3)
    assert f"lacks 1 blob of {name}" in said and machine.asked() == before
    assert machine("pull", name, "--pull", "missing", "--progress", "none") == printed
    assert blob.exists() and machine.asked() > before


def test_a_damaged_layer_is_fetched_again_when_what_is_missing_may_be_asked_for(
    machine: Machine, tmp_path: Path
) -> None:
    printed = machine.pull("team/app:v1")
    (blob,) = machine.store.glob(f"blobs/sha256/{LAYERS[0].descriptor.digest.hex}")
    blob.chmod(0o644)
    blob.write_bytes(bytes(blob.stat().st_size))
    machine("pull", printed, "--offline", "--rootfs", tmp_path / "root", "--progress", "none", code=6)
    blob.write_bytes(bytes(blob.stat().st_size))
    machine("pull", printed, "--pull", "missing", "--rootfs", tmp_path / "root", "--progress", "none")
    assert (tmp_path / "root" / "hello").read_bytes() == b"hello\n"


def test_no_store_is_made_for_what_is_offline(machine: Machine, tmp_path: Path) -> None:
    for arguments in (("pull", "app", "--offline"), ("unpack", "app", tmp_path / "root")):
        assert "there is no store" in machine(*arguments, code=3)
    assert not machine.store.exists()
