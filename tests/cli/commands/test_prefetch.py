"""``fastoci prefetch``: what it prints, where, and its exit codes.

Covers: cli/commands/prefetch.py, cli/lists.py, cli/prefetch_text.py, cli/results/options.py.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Cli
from fastoci.cli.results.options import Address
from fastoci.server.http import Request
from fastoci.server.pull_api import Answer, Content
from fastoci.testing.auth import Basic
from fastoci.testing.images import Index
from fastoci.testing.registry import Registry, serve
from support.disks import mounted
from support.images import image_of, made, names, serving_apps

IMAGES = [image_of(made(1, files=2, size=50_000), made(10 + number, files=2, size=9_000)) for number in range(3)]


@pytest.fixture
def registry() -> Iterator[Registry]:
    yield from serving_apps(IMAGES)


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
    assert trees == [name.replace("/", "_") for name in names(registry, 0, 1)]


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


def test_lists_are_read_in_their_order_beside_the_names(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"# first\n{names(registry, '1')[0]} pin\n")
    (tmp_path / "pod.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n" + f"  - image: {names(registry, '2')[0]}\n"
    )
    files = ("-f", tmp_path / "a.txt", "--file", tmp_path / "pod.yaml")
    done = cli("prefetch", *names(registry, "0"), *files, "--store", tmp_path / "store", "--format", "json")
    assert done.returncode == 0, done.stderr
    images = json.loads(done.stdout)["images"]
    assert [image["origin"] for image in images] == ["", f"{tmp_path}/a.txt:2", f"{tmp_path}/pod.yaml:5"]
    listed = json.loads(cli("ls", "--format", "json", "--store", tmp_path / "store").stdout)
    assert {image["name"]: image["pinned"] for image in listed["images"]} == {
        name: tag == "1" for tag, name in zip("012", names(registry, *"012"), strict=True)
    }


def test_a_line_that_is_wrong_is_told_with_its_number_and_the_others_come(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    lines = [*names(registry, "0"), "app platfrom=x", "NOT//A/NAME", *names(registry, "absent"), "a platform=///"]
    (tmp_path / "list").write_text("\n".join(lines))
    done = cli("prefetch", "-f", tmp_path / "list", "--store", tmp_path / "store")
    assert done.returncode == 9
    assert done.stdout.startswith(names(registry, "0")[0])
    for number, (line, message) in enumerate(zip(lines[1:], ("not known", "NOT", "", "///"), strict=True), 2):
        [told] = [each for each in done.stderr.splitlines() if f"{tmp_path}/list:{number}" in each]
        assert message in told, line
    only_wrong = tmp_path / "wrong"
    only_wrong.write_text("app platfrom=x\n")
    assert cli("prefetch", "-f", only_wrong, "--store", tmp_path / "store").returncode == 2
    planned = cli("prefetch", "-f", only_wrong, "--store", tmp_path / "store", "--dry-run", "--format", "json")
    assert planned.returncode == 2
    assert [each["origin"] for each in json.loads(planned.stdout)["refused"]] == [f"{only_wrong}:1"]


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["job", "plan"])
def test_a_list_that_is_given_as_a_name_is_told_from_an_image(cli: Cli, tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "list").write_text("redis\n")
    done = cli("prefetch", tmp_path / "list", "a" * 5_000, "--store", tmp_path / "store", *more)
    assert done.returncode == 2, done.stderr
    assert f"warning: {tmp_path}/list is a file: --file {tmp_path}/list reads it as a list" in done.stderr


def test_a_list_without_an_image_is_warned_of(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# nothing yet\n")
    done = cli("prefetch", "-f", tmp_path / "list", "--store", tmp_path / "store")
    assert done.returncode == 0
    assert "warning: the lists are empty" in done.stderr


def test_a_dry_run_says_by_its_exit_code_that_the_job_does_not_fit(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        asked: list[str | Path] = ["prefetch", *names(registry, 0, 1, 2), "--store", tmp_path / "store"]
        planned, done = cli(*asked, "--dry-run"), cli(*asked)
    assert "too little" in planned.stdout
    assert "not enough space at" in planned.stderr
    assert (planned.returncode, done.returncode) == (8, 8), done.stderr


def test_the_platform_of_the_command_line_is_for_lines_that_say_none(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    registry.add_image("both", "1", Index.build(IMAGES[:1]))
    name = f"{registry.address}/both:1"
    (tmp_path / "list").write_text(f"{name}\n{name} platform=linux/s390x\n")
    asked = ("prefetch", "-f", tmp_path / "list", "--store", tmp_path / "store", "--platform", "linux/arm64")
    done = cli(*asked, "--dry-run", "--format", "json")
    [refused] = json.loads(done.stdout)["refused"]
    assert refused["origin"] == f"{tmp_path}/list:1, {tmp_path}/list:2"
    assert "linux/arm64" in refused["message"]
    (tmp_path / "list").write_text(f"{name} platform=linux/amd64\n")
    assert cli(*asked, "--dry-run").returncode == 0


def test_rules_of_a_list_choose_tags_and_one_that_chooses_none_is_told(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "sync.yaml").write_text(
        f"{registry.address}:\n  images-by-tag-regex:\n    app: '[02]'\n    gone: .\n"
        "  images-by-semver:\n    app: '>=9'\n"
    )
    asked = ("prefetch", "-f", tmp_path / "sync.yaml", "--store", tmp_path / "store", "--rootfs", tmp_path / "trees")
    done = cli(*asked)
    assert done.returncode == 9, done.stderr
    assert sorted(line.partition("@")[0] for line in done.stdout.splitlines()) == names(registry, "0", "2")
    assert "sync.yaml:4): GET" in done.stderr
    assert "sync.yaml:6): none of the 3 tags is one of '>=9'" in done.stderr
    trees = sorted(path.name for path in (tmp_path / "trees").iterdir())
    assert trees == [name.replace("/", "_") for name in names(registry, "0", "2")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("absent",), "No such file"),
        ((".",), "Is a directory"),
        (("-", "-"), "stdin is asked for twice"),
        (("",), "an empty path"),
    ],
)
def test_a_list_that_cannot_be_read_ends_the_command_before_anything_is_asked(
    cli: Cli, registry: Registry, tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    given = [word for file in files for word in ("-f", file)]
    done = cli("prefetch", *names(registry, "0"), *given, "--store", tmp_path / "store")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_list_may_come_from_stdin_and_may_ask_for_nothing(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    done = cli("prefetch", "-f", "-", "--store", tmp_path, given=f"{names(registry, '0')[0]} pin\nx y\n")
    assert done.stdout.startswith(names(registry, "0")[0])
    assert "stdin:2" in done.stderr
    empty = cli("prefetch", "-f", "-", "--store", tmp_path, given="# nothing\n")
    assert (empty.returncode, empty.stdout) == (0, "")


def test_a_list_of_skopeo_logs_in_and_tells_its_password_to_nobody_else(cli: Cli, tmp_path: Path) -> None:
    with serve(Registry(Basic("u", "hush-hush"))) as registry:
        registry.add_image("app", "1", IMAGES[0])
        says = "  images: {app: ['1', '2']}\n  credentials: {username: u, password: hush-hush}\n  tls-verify: false\n"
        (tmp_path / "sync.yaml").write_text(f"{registry.address}:\n{says}  surprise: x\n")
        asked = ("--store", tmp_path / "store", "--debug", "--report", tmp_path / "report.json")
        done = cli("prefetch", "-f", tmp_path / "sync.yaml", *asked)
    assert done.returncode == 9
    assert done.stdout.startswith(f"{registry.address}/app:1@")
    assert "sync.yaml:5" in done.stderr
    for told in (done.stdout, done.stderr, (tmp_path / "report.json").read_text()):
        assert "hush-hush" not in told


def test_a_plan_says_what_registries_leave_of_their_quota(cli: Cli, tmp_path: Path) -> None:
    class Limited(Registry):
        async def answer(self, request: Request, host: str) -> Answer:
            answer = await super().answer(request, host)
            return replace(
                answer, headers={**answer.headers, "RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76"}
            )

    with serve(Limited()) as registry:
        registry.add_image("app", "0", IMAGES[0])
        asked = ("prefetch", f"{registry.address}/app:0", "--dry-run", "--store", tmp_path)
        text = cli(*asked).stdout
        quotas = json.loads(cli(*asked, "--format", "json").stdout)["quotas"]
    assert any(line.split(None, 2)[1:] == ["leaves", "76 of 100 in 6 h 0 min"] for line in text.splitlines())
    assert quotas == {registry.address: {"remaining": 76, "limit": 100, "window_s": 21600}}


def test_names_that_differ_have_directories_that_differ(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    for path in ("a/b", "a_b", "a__b"):
        registry.add_image(path, "1", IMAGES[0])
    references = [f"{registry.address}/{path}:1" for path in ("a/b", "a_b", "a__b")]
    done = cli("prefetch", *references, "--store", tmp_path / "store", "--rootfs", tmp_path / "trees")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "trees").iterdir())) == 3
