"""``fastoci gc``, ``rm``, ``pin`` and ``unpin`` as processes.

Covers: cli/commands/pin.py, cli/commands/rm.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Protocol

import pytest

from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

SHARED = Layer.build([Entry("shared", data=bytes(1000))])


class Cli(Protocol):
    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def store(cli: Cli, tmp_path: Path) -> Path:
    """A store with the images ``a`` to ``c``, of one and two and three days without use."""
    path = tmp_path / "store"
    with serve(Registry()) as registry:
        for name in "abc":
            image = Image.build([SHARED, Layer.build([Entry(name, data=name.encode())])])
            registry.add_image(name, "1", image)
        done = cli("pull", *(f"{registry.address}/{name}:1" for name in "abc"), "--store", path)
    assert done.returncode == 0, done.stderr
    for days, reference in enumerate(references(cli, path), 1):
        then = time.time() - days * 86400
        key = hashlib.sha256(reference.encode()).hexdigest()
        os.utime(path / "refs" / key[:2] / key, (then, then))
    return path


@pytest.fixture
def settled(store: Path) -> Path:
    """The same, two seconds later: what was changed a moment before a plan may change again, and stays."""
    time.sleep(2.1)
    return store


def references(cli: Cli, store: Path) -> list[str]:
    return [line.split()[0] for line in cli("ls", "--store", store).stdout.splitlines()[1:]]


def blobs(store: Path) -> int:
    return len(os.listdir(store / "blobs" / "sha256"))


def test_a_removed_image_frees_what_only_it_needs(cli: Cli, store: Path) -> None:
    first = references(cli, store)[0]
    assert cli("gc", "--store", store).stderr == "deleted nothing, 0 B; 10 blobs stay\n"
    assert cli("rm", first, "--store", store).returncode == 0
    assert blobs(store) == 10
    assert len(json.loads((store / "index.json").read_text())["manifests"]) == 2
    done = cli("gc", "--store", store)
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr.startswith("deleted 3 blobs, ")
    assert blobs(store) == 7
    assert len(references(cli, store)) == 2


def test_a_dry_run_says_what_and_why_and_deletes_nothing(cli: Cli, settled: Path) -> None:
    store = settled
    names = references(cli, store)
    done = cli("gc", "--dry-run", "--max-age", "1d12h", "--store", store)
    assert done.stderr.startswith("would delete 2 references, 6 blobs, ")
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines if line[0] == "ref"] == [["ref", name] for name in names[1:]]
    assert {line[3] for line in lines if line[0] == "blob"} == {"only in images that go"}
    assert blobs(store) == 10
    done = cli("gc", "--max-age", "36h", "--store", store)
    assert [line.split("  ")[1] for line in done.stdout.splitlines()] == names[1:]
    assert references(cli, store) == names[:1]
    assert blobs(store) == 4


def test_a_pinned_image_stays_until_it_is_unpinned(cli: Cli, store: Path) -> None:
    last = references(cli, store)[-1]
    assert cli("pin", last, "--store", store).returncode == 0
    time.sleep(2.1)
    assert cli("gc", "--max-count", "0", "--store", store).returncode == 0
    assert references(cli, store) == [last]
    assert cli("unpin", last, "--store", store).returncode == 0
    time.sleep(2.1)
    assert cli("gc", "--max-size", "0", "--store", store).returncode == 0
    assert references(cli, store) == []
    assert blobs(store) == 0


@pytest.mark.parametrize("command", ["rm", "pin", "unpin"])
def test_a_reference_that_is_not_there_exits_with_3(cli: Cli, store: Path, command: str) -> None:
    done = cli(command, "nowhere.test/x:1", "--store", store)
    assert done.returncode == 3
    assert "no reference nowhere.test/x:1" in done.stderr


@pytest.mark.parametrize(
    "options", [("--max-age", "3"), ("--max-age", "xd"), ("--low", "1G"), ("--max-size", "1G", "--low", "2G")]
)
def test_what_cannot_be_asked_for_is_a_usage_error(cli: Cli, store: Path, options: tuple[str, ...]) -> None:
    assert cli("gc", *options, "--store", store).returncode == 2
