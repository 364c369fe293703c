"""``fastoci prefetch --list-name``: what it removes, what it says of that, and what it refuses.

Covers: cli/wanted_state.py.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from conftest import Cli
from fastoci.cli.wanted_state import KeepFree
from fastoci.testing.registry import Registry
from support.disks import mounted
from support.images import image_of, made, names, serving_apps

IMAGES = [image_of(made(10 + number, files=2, size=9_000)) for number in range(3)]


@pytest.fixture
def registry() -> Iterator[Registry]:
    yield from serving_apps(IMAGES)


def test_what_the_list_gave_up_is_removed_deleted_and_told_on_stderr(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    of_list = ("--list-name", "web", "--prune", "--store", tmp_path)
    assert cli("prefetch", *names(registry, 0, 1), "--pin", *of_list).returncode == 0
    dry = cli("prefetch", *names(registry, 1), *of_list, "--dry-run")
    assert ("to remove", names(registry, 0)[0]) in [tuple(line.split("  ", 1)) for line in squeezed(dry.stdout)]
    assert ("to unpin", names(registry, 1)[0]) in [tuple(line.split("  ", 1)) for line in squeezed(dry.stdout)]
    done = cli("prefetch", *names(registry, 1), *of_list, "--gc")
    assert done.returncode == 0, done.stderr
    assert f"removed {names(registry, 0)[0]}\n" in done.stderr
    assert f"unpinned {names(registry, 1)[0]}\n" in done.stderr
    assert "deleted 3 blobs" in done.stderr
    listed = json.loads(cli("ls", "--format", "json", "--store", tmp_path).stdout)["images"]
    assert [(image["name"], image["pinned"], image["lists"]) for image in listed] == [
        (names(registry, 1)[0], False, ["web"])
    ]


def squeezed(text: str) -> list[str]:
    """The rows of a table, with two spaces between the columns."""
    return ["  ".join(filter(None, (cell.strip() for cell in line.split("  ")))) for line in text.splitlines()]


def test_the_json_of_a_job_and_of_its_plan_say_what_goes(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    of_list = ("--list-name", "web", "--prune", "--store", tmp_path, "--format", "json")
    cli("prefetch", *names(registry, 0), *of_list)
    for more in (("--dry-run",), ("--gc",)):
        facts = json.loads(cli("prefetch", *names(registry, 1), *of_list, *more).stdout)["pruned"]
        assert (facts["removed"], facts["unpinned"], facts["withheld"]) == (names(registry, 0), [], "")
    assert facts["deleted_size"] > 0


def test_a_name_that_cannot_be_read_withholds_the_prune_with_a_warning(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    of_list = ("--list-name", "web", "--prune", "--store", tmp_path)
    cli("prefetch", *names(registry, 0), *of_list)
    done = cli("prefetch", *names(registry, 1), "NOT A NAME", *of_list)
    assert done.returncode == 9
    assert "warning: nothing is pruned: 1 of its names cannot be read" in done.stderr
    listed = json.loads(cli("ls", "--format", "json", "--store", tmp_path).stdout)["images"]
    assert [image["name"] for image in listed] == names(registry, 0, 1)


def test_an_empty_list_is_an_error_unless_it_is_meant(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    of_list = ("--list-name", "web", "--prune", "--store", tmp_path)
    cli("prefetch", *names(registry, 0), *of_list)
    refused = cli("prefetch", *of_list)
    assert refused.returncode == 2
    assert "--allow-empty" in refused.stderr
    assert cli("prefetch", *of_list, "--allow-empty", "--dry-run").returncode == 0
    assert json.loads(cli("ls", "--format", "json", "--store", tmp_path).stdout)["images"]
    done = cli("prefetch", *of_list, "--allow-empty")
    assert done.returncode == 0, done.stderr
    assert json.loads(cli("ls", "--format", "json", "--store", tmp_path).stdout)["images"] == []


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (("--prune",), "--prune needs --list-name"),
        (("--allow-empty",), "--allow-empty needs --prune"),
        (("--list-name", "a b"), "is no name of a list"),
    ],
    ids=["prune", "allow-empty", "name"],
)
def test_options_that_mean_nothing_together_are_refused(
    cli: Cli, tmp_path: Path, given: tuple[str, ...], word: str
) -> None:
    done = cli("prefetch", "127.0.0.1:1/app:1", "--store", tmp_path, *given)
    assert done.returncode == 2
    assert word in done.stderr


@pytest.mark.parametrize(
    ("line", "code"), [("app platfrom=x", 9), ("# nothing", 2)], ids=["a line that is wrong", "no line"]
)
def test_a_list_that_lost_its_lines_prunes_nothing(
    cli: Cli, registry: Registry, tmp_path: Path, line: str, code: int
) -> None:
    of_list = ("--list-name", "web", "--prune", "--store", tmp_path / "store", "-f", tmp_path / "list")
    (tmp_path / "list").write_text("\n".join(names(registry, 0, 1)))
    assert cli("prefetch", *of_list).returncode == 0
    (tmp_path / "list").write_text(line if code == 2 else f"{names(registry, 1)[0]}\n{line}\n")
    done = cli("prefetch", *of_list)
    assert done.returncode == code
    assert ("1 of its lines cannot be read" if code == 9 else "--allow-empty") in done.stderr
    listed = json.loads(cli("ls", "--format", "json", "--store", tmp_path / "store").stdout)["images"]
    assert [image["name"] for image in listed] == names(registry, 0, 1)


def test_what_made_way_is_told_and_a_job_that_does_not_fit_ends_with_the_numbers(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", "size=4M", "tmpfs"):
        store = place / "store"
        assert cli("pull", *names(registry, 0), "--store", store).returncode == 0
        for path in store.glob("refs/*/*"):
            os.utime(path, (1, 1))
        time.sleep(2.1)  # until the reference may be judged
        wanted: list[str | Path] = ["prefetch", *names(registry, 1), "--store", store, "--keep-free"]
        refused = cli(*wanted, "99%")
        assert refused.returncode == 8
        assert "bytes beside the" in refused.stderr
        assert "too little" in refused.stderr
        assert cli(*wanted, "99%", "--dry-run").returncode == 8
        found = os.statvfs(store)
        keep = str(found.f_bavail * found.f_frsize - 10_000)
        dry = cli(*wanted, keep, "--dry-run", "--format", "json")
        assert json.loads(dry.stdout)["evicted"]["images"] == names(registry, 0), dry.stderr
        done = cli(*wanted, keep)
        assert done.returncode == 0, done.stderr
        assert f"evicted {names(registry, 0)[0]}\n" in done.stderr
        listed = json.loads(cli("ls", "--format", "json", "--store", store).stdout)["images"]
        assert [image["name"] for image in listed] == names(registry, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("15%", (0, 15.0)), ("2.5 %", (0, 2.5)), ("20G", (20_000_000_000, 0.0)), ("0", (0, 0.0))],
    ids=["percent", "part", "size", "nothing"],
)
def test_space_to_keep_free_is_a_size_or_a_percentage(text: str, value: tuple[int, float]) -> None:
    assert KeepFree().convert(text, None, None) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [("100%", "no percentage"), ("-1%", "no percentage"), ("%", "no percentage"), ("x", "not a size")],
    ids=lambda value: value if value == "x" else None,
)
def test_what_is_neither_is_refused(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        KeepFree().convert(text, None, None)
