"""``fastoci gc``, ``rm``, ``pin`` and ``unpin`` as processes.

Covers: cli/commands/ls.py, cli/commands/pin.py, cli/commands/rm.py, cli/each.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
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
    assert cli("gc", "--store", store).stderr == "deleted nothing, 0 bytes; 10 blobs stay\n"
    assert cli("rm", first, "--store", store).returncode == 0
    assert blobs(store) == 10
    assert len(json.loads((store / "index.json").read_text())["manifests"]) == 2
    gone = {f"sha256:{each.name}" for each in (store / "blobs" / "sha256").iterdir()}
    done = cli("gc", "--store", store)
    assert done.returncode == 0
    gone -= {f"sha256:{each.name}" for each in (store / "blobs" / "sha256").iterdir()}
    assert {tuple(line.split("  ")[:2]) for line in done.stdout.splitlines()} == {("blob", name) for name in gone}
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
    assert [line.split("  ")[1] for line in done.stdout.splitlines() if line.startswith("ref")] == names[1:]
    assert references(cli, store) == names[:1]
    assert blobs(store) == 4


def test_what_was_used_in_these_seconds_stays_and_is_told(cli: Cli, store: Path) -> None:
    for path in (store / "refs").glob("*/*"):
        os.utime(path)
    done = cli("gc", "--max-count", "0", "--store", store)
    assert (done.returncode, done.stdout) == (0, "")
    kept = "10 blobs stay, with 3 references used in these seconds: run it again"
    assert done.stderr == f"deleted nothing, 0 bytes; {kept}\n"
    assert blobs(store) == 10


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
def test_one_reference_that_is_not_there_does_not_stop_the_others(cli: Cli, store: Path, command: str) -> None:
    first, last, _ = references(cli, store)
    if command == "unpin":
        assert cli("pin", first, last, "--store", store).returncode == 0
    done = cli(command, first, "nowhere.test/x:1", last, "--store", store)
    assert done.returncode == 9
    assert "nowhere.test/x:1: the store has no reference nowhere.test/x:1" in done.stderr
    assert {"rm": (1, 0), "pin": (3, 2), "unpin": (3, 0)}[command] == counts(cli, store)


def counts(cli: Cli, store: Path) -> tuple[int, int]:
    """How many images there are, and how many of them are pinned."""
    images = json.loads(cli("ls", "--format", "json", "--store", store).stdout)["images"]
    return len(images), sum(image["pinned"] for image in images)


def test_a_pinned_image_is_removed_by_yes_alone_without_a_terminal(cli: Cli, store: Path) -> None:
    pinned, other, _ = references(cli, store)
    assert cli("pin", pinned, "--store", store).returncode == 0
    done = cli("rm", pinned, other, "--store", store)
    assert done.returncode == 9
    assert f"{pinned}: this image is pinned, and stays: --yes removes it, too" in done.stderr
    assert counts(cli, store) == (2, 1)
    assert cli("rm", pinned, "--store", store).returncode == 2
    assert cli("rm", pinned, "--yes", "--store", store).returncode == 0
    assert counts(cli, store) == (1, 0)


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 3), (b"y\n", 2)])
def test_a_terminal_is_asked_before_a_pinned_image_is_removed(cli: Cli, store: Path, answer: bytes, left: int) -> None:
    pinned = references(cli, store)[0]
    assert cli("pin", pinned, "--store", store).returncode == 0
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as terminal, os.fdopen(theirs, "rb") as stdin:
        terminal.write(answer)
        command = [sys.executable, "-m", "fastoci", "rm", pinned, "--store", str(store)]
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=100, check=False)
    assert f"{pinned} is pinned: remove it?" in done.stderr
    assert done.returncode == (0 if left == 2 else 2)
    assert counts(cli, store)[0] == left


def test_names_alone_can_be_listed_and_last_use_and_pins_are_shown(cli: Cli, store: Path) -> None:
    names = references(cli, store)
    assert cli("pin", names[1], "--store", store).returncode == 0
    done = cli("ls", "-q", "--store", store)
    assert done.stdout.splitlines() == names
    table = [line.split() for line in cli("ls", "--store", store).stdout.splitlines()]
    assert table[0][-2:] == ["USED", "PINNED"]
    assert [row[-1] for row in table[1:]] == ["-", "pinned", "-"]
    images = json.loads(cli("ls", "--format", "json", "--store", store).stdout)["images"]
    assert [image["name"] for image in images] == names
    assert [image["pinned"] for image in images] == [False, True, False]
    assert [row[-2] for row in table[1:]] == [image["used_at"] for image in images]
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3 * 86400))
    assert images[2]["used_at"].startswith(day)


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
