"""``fastoci prefetch``: what it prints, where, and its exit codes.

Covers: cli/commands/prefetch.py, cli/prefetch_text.py, cli/results/options.py.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Cli
from fastoci.cli.results.options import Address
from fastoci.server.pull_api import Content
from fastoci.testing.registry import Registry, serve
from support.images import image_of, made

IMAGES = [image_of(made(1, files=2, size=50_000), made(10 + number, files=2, size=9_000)) for number in range(3)]


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        for number, image in enumerate(IMAGES):
            registry.add_image("app", str(number), image)
        yield registry


def names(registry: Registry, *tags: int | str) -> list[str]:
    return [f"{registry.address}/app:{tag}" for tag in tags]


def test_each_image_is_printed_with_its_digest_and_nothing_else_is_on_stdout(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    done = cli("prefetch", *names(registry, 0, 1, 2), "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = [f"{name}@{image.descriptor.digest}" for name, image in zip(names(registry, 0, 1, 2), IMAGES, strict=True)]
    assert sorted(done.stdout.splitlines()) == wanted


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        (("0", "1"), 0),
        (("0", "absent"), 9),
        (("absent",), 3),
        (("absent", "gone"), 3),
        (("NOT A NAME", "absent"), 9),
        ((), 2),
    ],
    ids=["all", "some", "none", "none of two", "none for several reasons", "nothing asked for"],
)
def test_the_exit_code_says_how_many_came(
    cli: Cli, registry: Registry, tmp_path: Path, tags: tuple[str, ...], code: int
) -> None:
    assert cli("prefetch", *names(registry, *tags), "--store", tmp_path).returncode == code


def test_a_dry_run_prints_the_plan_and_leaves_the_store_empty(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    done = cli("prefetch", *names(registry, 0, 1, 2, "absent"), "--store", tmp_path, "--dry-run")
    assert done.returncode == 9
    lines = {line[:14].strip(): line[14:].strip() for line in done.stdout.splitlines()}
    assert lines["images"] == "3, 1 cannot come"
    assert f"from {registry.address}" in done.stdout
    assert "app:absent" in done.stderr
    assert list((tmp_path / "blobs" / "sha256").glob("*")) == []


def test_a_plan_and_a_result_are_json_for_machines(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    asked = ["prefetch", *names(registry, 0, 1, 2, "absent"), "--store", str(tmp_path), "--format", "json"]
    plan = json.loads(cli(*asked, "--dry-run").stdout)
    assert [image["reference"] for image in plan["images"]] == names(registry, 0, 1, 2)
    assert [image["kind"] for image in plan["refused"]] == ["NotFoundError"]
    assert (
        plan["missing_size"] == sum(blob["size"] for blob in plan["missing"]) == plan["by_registry"][registry.address]
    )
    result = json.loads(cli(*asked).stdout)
    assert [image["outcome"] for image in result["images"]] == ["fetched"] * 3 + ["failed"]
    assert sum(image["fetched"] for image in result["images"]) == plan["missing_size"]
    assert result["images"][3]["error"]["exit_code"] == 3


def test_images_are_pinned_and_unpacked_below_a_directory(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    done = cli(
        "prefetch", *names(registry, 0, 1), "--store", tmp_path / "store", "--pin", "--rootfs", tmp_path / "trees"
    )
    assert done.returncode == 0, done.stderr
    listed = json.loads(cli("ls", "--format", "json", "--store", tmp_path / "store").stdout)
    assert [image["pinned"] for image in listed["images"]] == [True, True]
    trees = sorted(path.name for path in (tmp_path / "trees").iterdir())
    assert trees == [name.replace("/", "_").replace(":", "_") for name in names(registry, 0, 1)]


def test_the_report_is_what_is_printed_as_json(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    asked = ["prefetch", *names(registry, 0, "absent"), "--store", str(tmp_path / "store"), "--format", "json"]
    done = cli(*asked, "--report", tmp_path / "r.json")
    assert done.returncode == 9
    assert (tmp_path / "r.json").read_text() == done.stdout
    assert json.loads(done.stdout)["exit_code"] == 9


@pytest.mark.parametrize(
    ("report", "more", "code"),
    [("absent/r.json", [], 8), ("r.txt", [], 2), ("r.json", ["--dry-run"], 2)],
    ids=["no directory", "no such form", "a dry run"],
)
def test_a_report_that_cannot_be_is_an_error_before_anything_is_asked(
    cli: Cli, registry: Registry, tmp_path: Path, report: str, more: list[str], code: int
) -> None:
    done = cli("prefetch", *names(registry, 0), "--store", tmp_path / "store", "--report", tmp_path / report, *more)
    assert done.returncode == code, done.stderr
    assert registry.log == []
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("value", ["0", "65536", "99999", "http", ":9100", "a b:1", "[::1]", "::1:9100", "-1"])
def test_what_is_no_address_for_metrics_is_wrong_usage(cli: Cli, value: str) -> None:
    done = cli("prefetch", "redis", "--metrics-port", value)
    assert (done.returncode, "PORT" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("value", "address"),
    [("9100", ("127.0.0.1", 9100)), ("node:1", ("node", 1)), ("[::1]:9100", ("::1", 9100))],
    ids=["port", "host", "ipv6"],
)
def test_metrics_are_for_this_machine_unless_a_host_is_named(value: str, address: tuple[str, int]) -> None:
    assert Address().convert(value, None, None) == address


def test_a_port_in_use_is_an_error_before_anything_is_asked(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    port = registry.address.rpartition(":")[2]
    done = cli("prefetch", *names(registry, 0), "--store", tmp_path / "store", "--metrics-port", port)
    assert done.returncode == 1
    assert f"cannot serve metrics at 127.0.0.1:{port}: Address already in use" in done.stderr
    assert (registry.log, (tmp_path / "store").exists()) == ([], False)


def test_metrics_are_written_beside_a_report(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    asked = ["prefetch", *names(registry, 0, "absent"), "--store", str(tmp_path / "store")]
    done = cli(*asked, "--metrics", tmp_path / "m.prom", "--report", tmp_path / "r.json")
    assert done.returncode == 9
    assert 'fastoci_prefetch_images_failed{cause="NotFoundError"} 1.0' in (tmp_path / "m.prom").read_text()
    assert json.loads((tmp_path / "r.json").read_text())["exit_code"] == 9


def test_a_job_that_a_signal_stops_leaves_its_report(tmp_path: Path) -> None:
    reached = threading.Event()

    class Endless(Registry):
        async def blob(self, name: str, digest: str) -> Content | None:
            reached.set()
            await asyncio.sleep(60)
            return None

    with serve(Endless()) as registry:
        registry.add_image("app", "0", IMAGES[0])
        command = [
            "prefetch",
            *names(registry, 0),
            "--store",
            str(tmp_path / "s"),
            "--report",
            str(tmp_path / "r.json"),
        ]
        process = subprocess.Popen([sys.executable, "-m", "fastoci", *command], stderr=subprocess.PIPE)
        assert reached.wait(60)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["state"], report["exit_code"]) == ("interrupted", 143)
    assert [image["outcome"] for image in report["images"]] == ["unfinished"]
