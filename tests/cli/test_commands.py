"""The program as a process, against a real registry on loopback.

Covers: __main__.py, cli/main.py, cli/options.py, cli/run.py, cli/commands/apply.py, cli/commands/info.py,
cli/commands/inspect.py, cli/commands/ls.py, cli/commands/pull.py, versions.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import pytest

import fastoci
from fastoci.image.platform import Platform
from fastoci.store.store import Store
from fastoci.testing.auth import Basic
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer, whiteout
from fastoci.testing.registry import Registry, serve

SOURCE = str(Path(fastoci.__file__).parents[1])
LAYERS = [
    Layer.build([Entry("etc/motd", data=b"hello\n"), Entry("etc/gone", data=b"x")]),
    Layer.build([whiteout("etc/gone"), Entry("etc/more", data=b"more\n")]),
]
IMAGE = Image.build(LAYERS)
ARM = Image.build(LAYERS[:1], platform=Platform("linux", "arm64"))
BOTH = Index.build([IMAGE, ARM])


class Cli(Protocol):
    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("app", "latest", IMAGE)
        registry.add_image("team/both", "1", BOTH)
        yield registry


@contextmanager
def started(
    arguments: Sequence[str | Path], *, stdout: int | IO[bytes] = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """The program, running; killed at the end if it still does."""
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    environment.pop("PYTHONUNBUFFERED", None)  # most people's output is buffered
    command = [sys.executable, "-m", "fastoci", *map(str, arguments)]
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_a_pull_prints_the_name_and_digest_alone_on_stdout(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    done = cli("pull", f"{registry.address}/app", "--store", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{registry.address}/app@{IMAGE.descriptor.digest}\n"
    assert done.stderr.startswith(f"{registry.address}/app: ")
    assert len(done.stderr.splitlines()) == 1


def test_several_images_have_one_line_each(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    names = [f"{registry.address}/team/both:1", f"{registry.address}/app", f"{registry.address}/app"]
    done = cli("pull", *names, "--store", tmp_path / "s", "--progress", "none")
    assert set(done.stdout.splitlines()) == {
        f"{registry.address}/team/both@{BOTH.descriptor.digest}",
        f"{registry.address}/app@{IMAGE.descriptor.digest}",
    }
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


def test_results_and_failures_come_as_each_image_ends(registry: Registry, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = f"127.0.0.1:{silent.getsockname()[1]}/app"
        names = [f"{registry.address}/app", f"{registry.address}/absent", slow]
        with started(["pull", *names, "--store", tmp_path / "s", "--progress", "none"]) as process:
            connection, _ = silent.accept()
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == f"{names[0]}@{IMAGE.descriptor.digest}\n"
            assert process.stderr.readline().startswith(f"fastoci: {names[1]}: ")
            assert process.poll() is None
            process.terminate()
            process.communicate()
            connection.close()


def test_a_failure_does_not_stop_the_other_images(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    done = cli(
        "pull", f"{registry.address}/none", f"{registry.address}/app", "--store", tmp_path / "s", "--progress=none"
    )
    assert done.returncode == 9
    assert done.stdout == f"{registry.address}/app@{IMAGE.descriptor.digest}\n"
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"fastoci: {registry.address}/none: ")
    assert lines[1].startswith("fastoci: hint: ")
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["pull", "{registry}/none"], 3),
        (["pull", "{registry}/none", "{registry}/none:2"], 3),
        (["pull", "{registry}/app", "--platform", "linux/s390x"], 3),
        (["pull", "{registry}/team/both:1", "--platform", "linux/s390x"], 3),
        (["pull", "{registry}/app", "--platform", "bad"], 2),
        (["pull", "BAD"], 2),
        (["pull"], 2),
        (["pull", "{registry}/app", "--creds", "nocolon"], 2),
        (["pull", "{registry}/app", "--tls-verify=perhaps"], 2),
        (["pull", "{registry}/app", "{registry}/team/both:1", "--rootfs", "r"], 2),
        (["pull", "127.0.0.1:1/app"], 5),
        (["inspect", "{registry}/none"], 3),
        (["apply", "d", "nofile"], 2),
        (["nonsense"], 2),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    cli: Cli, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    store = ["--store", "s"] if arguments[0] in ("pull", "inspect") else []
    done = cli(*(argument.format(registry=registry.address) for argument in arguments), *store)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_wrong_content_exits_with_6(cli: Cli, tmp_path: Path) -> None:
    with serve(Registry()) as registry:
        registry.add_image("app", "latest", IMAGE)
        layer = IMAGE.layers[0].descriptor
        registry.add_blob(str(layer.digest), b"x" * layer.size)
        done = cli("pull", f"{registry.address}/app", "--store", tmp_path / "s")
    assert done.returncode == 6
    assert str(layer.digest) in done.stderr
    assert done.stdout == ""


def test_a_store_that_cannot_be_made_exits_with_8(cli: Cli, registry: Registry) -> None:
    done = cli("pull", f"{registry.address}/app", "--store", "/proc/fastoci")
    assert done.returncode == 8
    assert "/proc/fastoci" in done.stderr


def test_credentials_open_a_private_registry_and_their_lack_exits_with_4(cli: Cli, tmp_path: Path) -> None:
    with serve(Registry(Basic("puller", "pass:word"))) as registry:
        registry.add_image("app", "latest", IMAGE)
        name = f"{registry.address}/app"
        without = cli("pull", name, "--store", tmp_path / "s")
        wrong = cli("pull", name, "--store", tmp_path / "s", "--creds", "puller:word")
        right = cli("pull", name, "--store", tmp_path / "s", "--creds", "puller:pass:word")
    assert [without.returncode, wrong.returncode, right.returncode] == [4, 4, 0]
    assert "--creds" in without.stderr
    assert "word" not in wrong.stderr.replace("USER:PASSWORD", "")


def test_ls_shows_name_digest_platforms_size_and_time(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    store = "--store", tmp_path / "s"
    assert cli("pull", f"{registry.address}/app", *store).returncode == 0
    for platform in ("linux/amd64", "linux/arm64"):
        assert cli("pull", f"{registry.address}/team/both:1", "--platform", platform, *store).returncode == 0
    done = cli("ls", *store)
    assert done.returncode == 0, done.stderr
    header, *rows = (line.split("  ") for line in done.stdout.splitlines())
    rows = [[cell.strip() for cell in row if cell] for row in rows]
    assert [cell.strip() for cell in header if cell] == [
        "NAME",
        "DIGEST",
        "PLATFORMS",
        "SIZE",
        "PULLED",
        "USED",
        "PINNED",
    ]
    assert [row[:3] for row in rows] == [
        [f"{registry.address}/app:latest", IMAGE.descriptor.digest.hex[:12], "linux/amd64"],
        [f"{registry.address}/team/both:1", BOTH.descriptor.digest.hex[:12], "linux/amd64,linux/arm64"],
    ]
    assert rows[0][3].endswith(" kB") or rows[0][3].endswith(" bytes")


def test_ls_of_an_empty_store_is_a_header(cli: Cli, tmp_path: Path) -> None:
    Store.at(tmp_path / "s").close()
    done = cli("ls", "--store", tmp_path / "s")
    assert done.stdout.split() == ["NAME", "DIGEST", "PLATFORMS", "SIZE", "PULLED", "USED", "PINNED"]


def test_inspect_prints_manifest_and_config_and_raw_the_exact_bytes(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    name, store = f"{registry.address}/team/both:1", ("--store", tmp_path / "s")
    cli("pull", name, *store, "--platform", "linux/arm64")
    shown = json.loads(cli("inspect", name, *store, "--format", "json").stdout)
    assert shown["manifest"]["digest"] == str(ARM.descriptor.digest)
    assert json.loads(cli("inspect", name, *store, "--config").stdout) == json.loads(ARM.config)
    raw = cli("inspect", name, *store, "--raw", "--platform", "linux/arm64").stdout
    assert hashlib.sha256(raw.encode()).hexdigest() == ARM.descriptor.digest.hex
    assert cli("inspect", name, *store, "--platform", "linux/amd64").returncode == 3


def test_rootfs_and_apply_make_the_same_files(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    name, rootfs, applied = f"{registry.address}/app", tmp_path / "rootfs", tmp_path / "applied"
    done = cli("pull", name, "--store", tmp_path / "s", "--rootfs", rootfs)
    assert done.returncode == 0, done.stderr
    assert f" unpacked into {rootfs}" in done.stderr
    files = []
    for number, layer in enumerate(LAYERS):
        files.append(tmp_path / f"{number}.tar.gz")
        assert isinstance(layer.content, bytes)
        files[-1].write_bytes(layer.content)
    applied.mkdir()
    done = cli("apply", applied, *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    for root in (rootfs, applied):
        assert sorted(os.listdir(root / "etc")) == ["more", "motd"]
        assert (root / "etc" / "motd").read_bytes() == b"hello\n"


def test_apply_of_what_is_no_layer_exits_with_7(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "layer").write_bytes(b"no tar" * 1000)
    done = cli("apply", tmp_path / "d", tmp_path / "layer")
    assert done.returncode == 7
    assert str(tmp_path / "layer") in done.stderr


def test_oci_writes_a_layout_of_all_images(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    names = [f"{registry.address}/app", f"{registry.address}/team/both:1"]
    done = cli("pull", *names, "--store", tmp_path / "s", "--oci", tmp_path / "layout")
    assert done.returncode == 0, done.stderr
    entries = json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"]
    assert len(entries) == 2
    assert (tmp_path / "layout" / "blobs" / "sha256" / IMAGE.descriptor.digest.hex).read_bytes() == IMAGE.manifest


def test_json_progress_is_json_from_start_to_end(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    done = cli("pull", f"{registry.address}/app", "--store", tmp_path / "s", "--progress", "json")
    told = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert told[0] == "image_started"
    assert told[-2:] == ["image_done", "summary"]
    assert {"image_planned", "blob_started", "blob_progress", "blob_done"} <= set(told)


def test_info_names_versions_and_tiers(cli: Cli) -> None:
    facts = dict(line.split(None, 1) for line in cli("info").stdout.splitlines())
    assert {"fastoci", "python", "aiohttp", "sha256", "gzip", "zstd", "receive"} <= facts.keys()


def test_help_has_examples_and_the_exit_codes(cli: Cli) -> None:
    shown = cli("--help").stdout
    assert "fastoci pull alpine" in shown
    assert "130 interrupted" in shown
    for command in ("pull", "ls", "inspect", "apply", "info"):
        assert f"fastoci {command}" in cli(command, "--help").stdout


@contextmanager
def as_started_with(handler: signal.Handlers, *numbers: signal.Signals) -> Iterator[None]:
    """What is started meanwhile takes, or ignores, these signals, whatever the tests were started with."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_a_pull_and_keeps_what_is_done(
    registry: Registry, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        names = f"{registry.address}/app", f"127.0.0.1:{port}/app"
        command: list[str | Path] = ["pull", *names, "--store", tmp_path / "s", "--progress", "json"]
        with as_started_with(signal.SIG_DFL, signal.SIGHUP), started(command) as process:
            connection, _ = silent.accept()
            assert process.stderr is not None
            while json.loads(process.stderr.readline())["event"] != "image_done":
                pass
            process.send_signal(number)
            out, err = process.communicate()
            connection.close()
    assert process.returncode == code
    assert out == f"{registry.address}/app@{IMAGE.descriptor.digest}\n"
    assert [json.loads(line)["event"] for line in err.splitlines()[-2:]] == ["stopped", "summary"]
    assert "Traceback" not in err


def test_a_hang_up_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command: list[str | Path] = ["pull", f"127.0.0.1:{silent.getsockname()[1]}/app", "--store", tmp_path / "s"]
        with as_started_with(signal.SIG_IGN, signal.SIGHUP), started(command) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate()
            connection.close()
    assert (process.returncode, "stopped by SIGTERM" in err) == (143, True)


def test_a_stdout_that_nobody_reads_is_no_traceback(registry: Registry, tmp_path: Path) -> None:
    Store.at(tmp_path / "s").close()
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout, started(["ls", "--store", tmp_path / "s"], stdout=stdout) as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err == "fastoci: cannot write to stdout: Broken pipe\n"


@pytest.mark.parametrize("command", [["ls"], ["inspect", "alpine"]])
def test_a_mistyped_store_is_an_error_and_does_not_become_one(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    done = cli(*command, "--store", tmp_path / "absent")
    assert done.returncode == 3
    assert "there is no store at" in done.stderr
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("before", "option", "ends"),
    [
        pytest.param("", "-B", "", id="it leaves at once"),
        pytest.param("", "-Xdev", "the interpreter ends\n", id="but not where Python looks for what was left open"),
        pytest.param(
            "import threading; threading.Timer(0.2, print, ['a thread ends']).start()",
            "-B",
            "a thread ends\nthe interpreter ends\n",
            id="nor while a thread is at work",
        ),
    ],
)
def test_the_program_loses_nothing_and_takes_nothing_apart(before: str, option: str, ends: str) -> None:
    ending = "import atexit; atexit.register(print, 'the interpreter ends')"
    source = f"{ending}\n{before}\nfrom fastoci.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, option, "-c", source, "--version"],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastoci {fastoci.__version__}\n{ends}", "")
