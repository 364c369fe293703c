"""The programs of ``examples/``, each run as a reader would run it, against a loopback registry."""

from __future__ import annotations

import configparser
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from examples import fetch_blobs
from fastoci import Descriptor, parse_list
from fastoci.cli import main
from fastoci.interfaces import BlobSource
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from fastoci.testing.suites.blob_source import BlobSourceSuite

LINES = {"other_store.py": 320}  # a whole store
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILE = Entry("greeting", data=b"hello\n")
IMAGE = Image.build([Layer.build([FILE]), Layer.build([Entry("etc/name", data=b"example\n")])])


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("team/app", "1", IMAGE)
        yield registry


def run(name: str, *arguments: str | Path, status: int = 0) -> list[str]:
    """The lines that an example prints, stderr behind stdout."""
    command = [sys.executable, "-W", "error", EXAMPLES / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


def pulled(registry: Registry, store: Path, name: str = "team/app:1") -> str:
    reference = f"{registry.address}/{name}"
    run("pull_and_list.py", store, reference)
    return reference


def test_an_image_is_pulled_and_the_store_listed(registry: Registry, tmp_path: Path) -> None:
    reference = f"{registry.address}/team/app:1"
    size = sum(blob.size for blob, _ in IMAGE.blobs())
    assert run("pull_and_list.py", tmp_path / "store", reference) == [
        f"{reference} has 2 layers, {size} bytes",
        f"{reference} {IMAGE.descriptor.digest} linux/amd64 {size}",
    ]


def test_what_is_not_found_ends_an_example_by_the_errors_exit_code(registry: Registry, tmp_path: Path) -> None:
    (line,) = run("pull_and_list.py", tmp_path / "store", f"{registry.address}/team/app:2", status=3)
    assert "team/app:2" in line


def test_an_observer_prints_the_progress_of_a_rootfs(registry: Registry, tmp_path: Path) -> None:
    root = tmp_path / "root"
    lines = run("rootfs_with_progress.py", tmp_path / "store", f"{registry.address}/team/app:1", root)
    assert (root / "greeting").read_bytes() == b"hello\n"
    assert "3 of 3 blobs to fetch" in lines[0]
    assert sum("verified" in line for line in lines) == 4  # the manifest, too
    assert f"{root}: 2 entries" in lines


def test_a_list_is_prefetched_and_its_failures_told_with_their_lines(registry: Registry, tmp_path: Path) -> None:
    image, size = f"{registry.address}/team/app", sum(blob.size for blob, _ in IMAGE.blobs())
    listed = tmp_path / "images.txt"
    listed.write_text(f"# for all nodes\n{image}:1\n{image}:2\n{image}:1 pni\n")
    planned, came, *failed = run("prefetch_list.py", tmp_path / "store", listed, status=1)
    assert planned == f"3 blobs to fetch, {size} bytes"
    assert came == f"{image}:1@{IMAGE.descriptor.digest} fetched, {size} bytes fetched"
    problem, unknown = sorted(failed, key=lambda line: "404" in line)
    assert problem.startswith(f"{listed}:4: {image}:1: 'pni' ")
    assert unknown.startswith(f"{image}:2 ({listed}:3): ")


def test_blobs_come_from_a_source_of_another_puller(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    digests = []
    for blob, content in IMAGE.blobs():
        assert isinstance(content, bytes)
        (source / blob.digest.hex).write_bytes(content)
        digests.append(blob.digest)
    store = tmp_path / "store"
    assert run("fetch_blobs.py", store, source) == [f"3 blobs are in {store}"]
    for digest in digests:
        assert (store / "blobs" / "sha256" / digest.hex).read_bytes() == (source / digest.hex).read_bytes()


class TestSourceOfAnotherPuller(BlobSourceSuite):
    """What an implementation of a Protocol runs: the suite that fastoci ships."""

    @asynccontextmanager
    async def open(self, blobs: Mapping[Descriptor, bytes]) -> AsyncIterator[BlobSource]:
        with tempfile.TemporaryDirectory() as directory:
            for blob, data in blobs.items():
                (Path(directory) / blob.digest.hex).write_bytes(data)
            yield fetch_blobs.Directory(Path(directory))


def test_wrong_bytes_of_such_a_source_never_get_a_name(tmp_path: Path) -> None:
    name, source = "0" * 64, tmp_path / "source"
    source.mkdir()
    (source / name).write_bytes(b"something else")
    lines = run("fetch_blobs.py", tmp_path / "store", source, status=1)
    assert "DigestMismatchError" in lines[-1]
    assert not (tmp_path / "store" / "blobs" / "sha256" / name).exists()


def test_retention_lets_go_of_the_image_that_was_used_first(registry: Registry, tmp_path: Path) -> None:
    registry.add_image("team/other", "1", Image.build([Layer.build([Entry("other", data=b"other\n")])]))
    store = tmp_path / "store"
    first, second = pulled(registry, store), pulled(registry, store, "team/other:1")
    time.sleep(2.1)  # gc leaves a reference that changed since the plan, or so shortly before that it could not tell
    lines = run("gc_with_retention.py", store, "1")
    assert any(line.startswith(f"ref {first} ") for line in lines)
    assert lines[-1].startswith("deleted 5 items")
    listed = run("pull_and_list.py", store, second)
    assert not any(line.startswith(first) for line in listed)


def test_a_damaged_blob_is_found_and_fetched_again(registry: Registry, tmp_path: Path) -> None:
    store = tmp_path / "store"
    pulled(registry, store)
    assert run("verify_store.py", store)[-1].endswith("0 are bad")
    blob = store / "blobs" / "sha256" / IMAGE.descriptor.digest.hex
    good = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(bytes(len(good)))
    lines = run("verify_store.py", store)
    assert (lines[0][-9:], lines[1]) == ("1 are bad", "fetched 1 blobs again")
    assert blob.read_bytes() == good


def test_a_file_is_held_against_the_digest_of_a_reference(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(IMAGE.config)
    digest = next(blob.digest for blob, content in IMAGE.blobs() if content == IMAGE.config)
    assert run("parse_and_verify.py", f"example.com/team/app@{digest}", file) == [
        f"registry example.com, repository team/app, digest {digest}",
        "verified",
    ]
    file.write_bytes(b"")
    run("parse_and_verify.py", f"example.com/team/app@{digest}", file, status=6)
    run("parse_and_verify.py", "Not A Reference", file, status=2)


def test_the_program_of_the_readme_runs(registry: Registry, tmp_path: Path) -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), re.DOTALL)
    imports, _, body = shown.partition("\n\n")
    body = body.replace('"/var/lib/fastoci"', repr(str(tmp_path / "store")))
    body = body.replace('"127.0.0.1:5000/library/redis:7"', f'"{registry.address}/team/app:1"')
    program = f"import asyncio\n{imports}\nasync def main(descriptors, source):\n{textwrap.indent(body, '    ')}\n"
    source = "class Source:\n    async def fetch(self, blob, offset, buffers):\n        yield buffers\n"
    command = [sys.executable, "-W", "error", "-c", f"{program}\n{source}\nasyncio.run(main([], Source()))"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "rootfs" / "greeting").read_bytes() == b"hello\n"


def test_the_unit_for_systemd_gives_options_that_the_program_takes() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((EXAMPLES / "systemd" / "fastoci-prefetch.service").read_text().replace("\\\n", ""))
    program, command, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert (unit["Service"]["Type"], Path(program).name) == ("notify", "fastoci")
    given = options_of(command, arguments)
    assert given["every_s"]
    assert unit["Service"]["SuccessExitStatus"] == str(128 + signal.SIGTERM)
    assert unit["Service"]["Environment"].partition("=")[0] == "FASTOCI_STORE"


def test_the_manifest_for_kubernetes_reads_the_list_that_it_mounts() -> None:
    text = (EXAMPLES / "kubernetes" / "prefetch.yaml").read_text()
    config, daemons = yaml.safe_load_all(text)
    pod = daemons["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command, *arguments = container["args"]
    given = options_of(command, arguments)
    (listed,) = map(Path, given["files"])
    mounted = {Path(each["mountPath"]): each["name"] for each in container["volumeMounts"]}
    sources = {each["name"]: each for each in pod["volumes"]}
    assert sources[mounted[listed.parent]]["configMap"]["name"] == config["metadata"]["name"]
    found = parse_list(config["data"][listed.name].encode(), listed.name)
    assert len(found.requests) == 2
    assert found.problems == ()
    assert sources[mounted[Path(given["store"])]]["hostPath"]["path"] == given["store"]
    assert sources[mounted[Path(given["authfile"]).parent]]["secret"]["items"][0]["path"] == "config.json"
    assert daemons["spec"]["selector"]["matchLabels"] == daemons["spec"]["template"]["metadata"]["labels"]


def options_of(command: str, arguments: list[str]) -> dict[str, Any]:
    """What a command line gives, which is not run."""
    assert isinstance(main.program, click.Group)
    found = main.program.commands[command]
    return found.make_parser(click.Context(found)).parse_args(arguments)[0]


def test_each_example_is_short_and_says_how_it_is_run() -> None:
    ran = set(Path(__file__).read_text().split('"'))
    for path in sorted(EXAMPLES.glob("*.py")):
        text = path.read_text()
        assert f"python examples/{path.name} " in text, path
        assert text.count("\n") <= LINES.get(path.name, 60), path
        assert path.name in ran, f"no test here runs {path.name}"
