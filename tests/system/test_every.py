"""``prefetch --every`` as a process: its lists, its signals, what a run costs, and that a day of runs leaves nothing.

``FASTOCI_EVERY_RUNS=1440`` makes the day one with a run a minute (``make every``); by default it has one an hour.

Covers: cli/every.py, cli/systemd.py, cli/run.py, cli/signals.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
import socket
from pathlib import Path

import pytest

from conftest import Cli
from fastoci import Engine
from fastoci.testing.auth import Basic
from fastoci.testing.registry import Registry, serve
from support.images import image_of, made
from support.service import Service, service

BASE = made(1, files=2, size=50_000)
IMAGES = [image_of(BASE, made(10 + number, files=2, size=9_000)) for number in range(6)]
QUIET = ("--progress", "none", "--every", "1h")
RUNS = int(os.environ.get("FASTOCI_EVERY_RUNS", "24"))
WARM = 8  # runs until all is imported, and every allocator has what it needs


def filled(registry: Registry) -> Registry:
    for number, image in enumerate(IMAGES):
        registry.add_image("app", str(number), image)
    return registry


def written(path: Path, registry: Registry, *numbers: int) -> set[str]:
    """Write a list in one step; the names on it."""
    names = {f"{registry.address}/app:{number}" for number in numbers}
    new = path.with_name("new")
    new.write_text("".join(f"{name}\n" for name in names))
    new.rename(path)
    return names


def names_in(store: Path) -> set[str]:
    async def work() -> set[str]:
        async with Engine(store) as engine:
            return {image.name for image in await engine.images()}

    return asyncio.run(work())


def test_a_node_follows_a_list_that_is_swapped_and_gone_and_back(tmp_path: Path) -> None:
    with serve(filled(Registry())) as registry:
        # as the kubelet mounts a ConfigMap: images -> ..data/images, ..data -> the directory of a version
        for version, numbers in (("v1", (0, 1)), ("v2", (1, 2))):
            (tmp_path / version).mkdir()
            written(tmp_path / version / "images", registry, *numbers)
        (tmp_path / "..data").symlink_to("v1")
        (tmp_path / "images").symlink_to("..data/images")
        wanted = ("--list-name", "node", "--prune", "--gc", "--report", tmp_path / "report.json")
        store, name = tmp_path / "store", f"{registry.address}/app"
        with service(tmp_path, "-f", tmp_path / "images", *wanted, "--store", store, *QUIET) as node:
            assert node.ready().startswith("2 images: 2 fetched")
            (tmp_path / "..new").symlink_to("v2")
            (tmp_path / "..new").rename(tmp_path / "..data")
            assert node.reload().startswith("2 images: 1 present, 1 fetched")
            (tmp_path / "..data").unlink()
            assert node.reload() == "the run failed"
            assert "images: No such file or directory" in node.stderr.read_text()
            assert json.loads((tmp_path / "report.json").read_text())["state"] == "failed"
            assert names_in(store) == {f"{name}:1", f"{name}:2"}
            (tmp_path / "..data").symlink_to("v2")
            asked = len(registry.log)
            assert node.reload().startswith("2 images: 2 present")
            assert {record.method for record in registry.log[asked:]} == {"HEAD"}
            assert len(registry.log) == asked + 2
            assert node.stop() == 0
        assert names_in(store) == {f"{name}:1", f"{name}:2"}
        printed = [line.partition("@")[0] for line in node.stdout.read_text().splitlines()]
        assert (sorted(printed[:2]), printed[2:]) == ([f"{name}:0", f"{name}:1"], [f"{name}:2"])


def test_credentials_are_read_again_by_each_run(tmp_path: Path) -> None:
    def write(password: str, registry: Registry) -> None:
        entry = {"auth": base64.b64encode(f"user:{password}".encode()).decode()}
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {registry.address: entry}}))

    with serve(filled(Registry(Basic("user", "right")))) as registry:
        write("expired", registry)
        options = ("--authfile", tmp_path / "auth.json", "--store", tmp_path / "store", *QUIET)
        with service(tmp_path, f"{registry.address}/app:0", *options) as node:
            assert node.ready().startswith("1 image: 1 failed")
            write("right", registry)
            assert node.reload().startswith("1 image: 1 fetched")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_run_ends_it_soon_with_the_code_of_a_job_that_was_stopped(
    tmp_path: Path, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"127.0.0.1:{silent.getsockname()[1]}/app"
        with service(tmp_path, name, "--store", tmp_path / "store", *QUIET) as node:
            silent.accept()[0].close()
            connection, _ = silent.accept()
            node.process.send_signal(number)
            assert node.process.wait(10) == 128 + number
            connection.close()
            assert "STOPPING=1" in node.rest()
        assert f"stopped by {number.name}" in node.stderr.read_text()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--every", "0"], 2),
        (["--splay", "1m"], 2),
        (["--every", "1h", "--dry-run"], 2),
        (["--every", "1h", "-f", "/dev/null/list"], 2),
        (["--every", "1h", "--store", "/proc/store"], 8),
    ],
    ids=["no time", "no runs", "a dry run", "no list", "no store"],
)
def test_what_waiting_does_not_repair_ends_the_program_at_once(
    cli: Cli, tmp_path: Path, options: list[str], code: int
) -> None:
    assert cli("prefetch", "127.0.0.1:1/app", "--store", tmp_path / "store", *options).returncode == code


def held(node: Service) -> tuple[int, int]:
    """What a service has between two runs: memory in KiB, and descriptors."""
    process = Path("/proc") / str(node.process.pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]), len(list((process / "fd").iterdir()))


def blobs_of(*numbers: int) -> set[str]:
    """The names of all files that these images are in a store."""
    images = [IMAGES[number] for number in numbers]
    documents = {document.digest.hex for image in images for document, _ in image.documents()}
    return documents | {blob.digest.hex for image in images for blob, _ in image.blobs()}


def test_a_day_of_lists_that_change_leaves_what_is_wanted_and_nothing_else(tmp_path: Path) -> None:
    """Time is scaled: an hour, or a minute, is as long as its run."""
    rng = random.Random(24)
    with serve(filled(Registry())) as registry:
        listed, store = tmp_path / "images", tmp_path / "store"
        written(listed, registry, 0, 1, 2)
        options = ("--list-name", "node", "--prune", "--gc", "--store", store, *QUIET)
        with service(tmp_path, "-f", listed, *options) as node:
            node.ready()
            measured = [held(node)]
            for _ in range(RUNS):
                chosen = rng.sample(range(len(IMAGES)), 3)
                names = written(listed, registry, *chosen)
                node.reload()
                measured.append(held(node))
                assert {file.name for file in (store / "blobs" / "sha256").iterdir()} == blobs_of(*chosen)
            assert node.stop() == 0
        assert names_in(store) == names
    rss, descriptors = zip(*measured, strict=True)
    print(f"{RUNS} runs: RSS {rss[WARM]} to {rss[-1]} KiB, {descriptors[0]} to {descriptors[-1]} descriptors")
    assert max(descriptors) <= min(descriptors) + 1  # the socket of the message
    assert max(rss[WARM:]) < rss[WARM] + 3 * 1024
    assert not list((store / "ingest").glob("*"))
