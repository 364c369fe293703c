"""``fastoci pull``'s options about registries, each seen to act.

Covers: cli/registry_options.py, cli/plan.py, registry/options.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastoci
from fastoci.cli.formatting import size as size_text
from fastoci.errors import ConfigError, ReferenceSyntaxError
from fastoci.testing.registry import Registry, serve
from support.images import FIRST, SECOND, image_of

if TYPE_CHECKING:
    from conftest import Cli

IMAGE = image_of(FIRST)


@contextmanager
def registry() -> Iterator[Registry]:
    made = Registry()
    made.add_image("team/app", "v1", IMAGE)
    with serve(made) as served:
        yield served


@contextmanager
def limited(retry_after: str) -> Iterator[str]:
    """A registry that always answers 429."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(429)
            self.send_header("Retry-After", retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def podman(directory: Path, mirror: str) -> list[str | Path]:
    path = directory / "mirrors.conf"
    path.write_text(
        f'[[registry]]\nlocation = "gone.invalid"\n[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n'
    )
    return ["--registries-conf", path]


def containerd(directory: Path, mirror: str) -> list[str | Path]:
    path = directory / "hosts"
    (path / "gone.invalid").mkdir(parents=True)
    (path / "gone.invalid" / "hosts.toml").write_text(
        f'[host."http://{mirror}"]\n  capabilities = ["pull", "resolve"]\n'
    )
    return ["--hosts-dir", path]


@pytest.mark.parametrize("form", [podman, containerd])
def test_mirrors_are_those_of_the_option(
    cli: Cli, tmp_path: Path, form: Callable[[Path, str], list[str | Path]]
) -> None:
    with registry() as mirror:
        done = cli("pull", "gone.invalid/team/app:v1", "--store", tmp_path / "store", *form(tmp_path, mirror.address))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"gone.invalid/team/app@{IMAGE.descriptor.digest}\n"


def test_a_dry_run_prints_what_would_be_fetched_and_fetches_no_blob(cli: Cli, tmp_path: Path) -> None:
    small, large = IMAGE, image_of(FIRST, SECOND)  # with one layer in common
    blobs = [{blob.digest: blob.size for blob, _ in image.blobs()} for image in (small, large)]
    sizes = [sum(each.values()) for each in (*blobs, blobs[0] | blobs[1])]
    with registry() as served:
        served.add_image("team/app", "v2", large)
        names = [f"{served.address}/team/app:{tag}" for tag in ("v1", "v2")]
        first = cli("pull", "--dry-run", *names, f"{served.address}/team/none", "--store", tmp_path / "store")
        asked = [record.path for record in served.log]
        assert cli("pull", names[0], "--store", tmp_path / "store").returncode == 0
        second = cli("pull", "--dry-run", *names, "--store", tmp_path / "store")
    assert (first.returncode, second.returncode) == (9, 0), first.stderr + second.stderr
    assert not [path for path in asked if "/blobs/" in path]
    assert "team/none" in first.stderr
    for done, had in ((first, 0), (second, sizes[0])):
        header, *rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
        assert header == "IMAGE PLATFORM BLOBS SIZE TO FETCH UNPACKED"
        assert rows[0].startswith(f"{served.address}/team/app@{small.descriptor.digest} ")
        for line, blobs_of, size in zip(rows, (2, 3, 4), sizes, strict=True):
            fetched = size_text(size - had) if size > had else "nothing"
            assert f" {blobs_of} {size_text(size)} {fetched} about " in line


@pytest.mark.parametrize("option", ["--registries-conf", "--hosts-dir", "--cert-dir"])
def test_what_an_option_names_must_be_there(cli: Cli, tmp_path: Path, option: str) -> None:
    for name in ("127.0.0.1:1/app", "registry.test/app"):
        done = cli("pull", name, "--store", tmp_path / "store", "--oci", tmp_path / "oci", option, tmp_path / "absent")
        assert done.returncode == 2, done.stderr
        assert str(tmp_path / "absent") in done.stderr
        assert list(tmp_path.iterdir()) == []


WRONG = {
    "an auth file": ("--authfile", "auth.json", "{"),
    "mirrors in podman's form": ("--registries-conf", "mirrors.conf", "[["),
    "mirrors in containerd's form": ("--hosts-dir", "hosts/registry.test/hosts.toml", "[["),
    "a certificate": ("--cert-dir", "certs/client.cert", "no certificate"),
    "a key without its certificate": ("--cert-dir", "certs/client.key", ""),
    "a configuration file": ("--config", "config.toml", "store = "),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_a_usage_error_before_anything_is_made(cli: Cli, tmp_path: Path, name: str) -> None:
    option, path, content = WRONG[name]
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(0o600)
    given = tmp_path / path.split("/")[0]
    made = ("--store", tmp_path / "store", "--oci", tmp_path / "oci", "--rootfs", tmp_path / "root")
    done = cli("pull", "registry.test/app", *made, option, given)
    assert (done.returncode, str(file) in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == [given]


def test_a_wrong_certificate_for_a_mirror_leaves_the_registry_itself(tmp_path: Path) -> None:
    hosts = tmp_path / "registry.test"
    hosts.mkdir()
    (hosts / "ca.crt").write_text("no certificate")
    mirror = '[host."https://mirror.test"]\nca = "ca.crt"\n'
    (hosts / "hosts.toml").write_text(f'server = "https://registry.test"\n{mirror}')
    fastoci.check_access("registry.test/app", fastoci.RegistryOptions(hosts_dir=tmp_path))
    (hosts / "hosts.toml").write_text(f'server = "https://registry.test"\nca = "ca.crt"\n{mirror}')
    with pytest.raises(ConfigError, match=r"ca\.crt: not an authority's certificate"):
        fastoci.check_access("registry.test/app", fastoci.RegistryOptions(hosts_dir=tmp_path))


def test_a_wrong_file_of_one_registry_keeps_no_other_from_being_pulled(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "hosts/registry.test").mkdir(parents=True)
    (tmp_path / "hosts/registry.test/hosts.toml").write_text("[[")
    with registry() as served:
        names = ("registry.test/app", f"{served.address}/team/app:v1")
        done = cli("pull", *names, "--store", tmp_path / "store", "--hosts-dir", tmp_path / "hosts")
    assert done.returncode == 9, done.stderr
    assert done.stdout.startswith(f"{served.address}/team/app@sha256:")


def test_a_wait_that_is_longer_than_the_user_allows_ends_the_pull_and_says_when_to_come_back(
    cli: Cli, tmp_path: Path
) -> None:
    with limited("50") as host:
        done = cli("pull", f"{host}/app", "--store", tmp_path / "store", "--max-wait", "20s", "--progress", "json")
    assert done.returncode != 0
    assert f"{host}/v2/app/manifests/latest: 429" in done.stderr
    assert "asks to wait 50 s, until 2" in done.stderr
    assert "--max-wait 51s" in done.stderr


def test_waiting_not_at_all_is_allowed(cli: Cli, tmp_path: Path) -> None:
    with limited("1") as host:
        done = cli("pull", f"{host}/app", "--store", tmp_path / "store", "--max-wait", "0s")
    assert done.returncode != 0
    assert "asks to wait 1 s" in done.stderr


def test_one_connection_is_enough(cli: Cli, tmp_path: Path) -> None:
    with registry() as source:
        done = cli("pull", f"{source.address}/team/app:v1", "--store", tmp_path / "store", "--connections", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "store" / "index.json").read_text())["manifests"]


@pytest.mark.parametrize("arguments", [["--connections", "0"], ["--max-wait", "soon"]])
def test_what_cannot_be_is_a_wrong_usage(cli: Cli, arguments: list[str]) -> None:
    assert cli("pull", "app", *arguments).returncode == 2


@pytest.mark.parametrize("words", [["team/UPPER"], ["a:b:c", "b@sha256:ff"], ["app", "--platform", "a/b/c/d/e"]])
def test_what_does_not_parse_creates_nothing(cli: Cli, tmp_path: Path, words: list[str]) -> None:
    made = ("--store", tmp_path / "store", "--oci", tmp_path / "oci")
    done = cli("pull", *words, *made)
    assert done.returncode == 2, done.stderr
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ReferenceSyntaxError):
        fastoci.pull(words[0], store=tmp_path / "store", platform="a/b/c/d/e")
    assert list(tmp_path.iterdir()) == []


def test_a_reference_that_does_not_parse_keeps_no_other_from_being_pulled(cli: Cli, tmp_path: Path) -> None:
    with registry() as served:
        done = cli("pull", "team/UPPER", f"{served.address}/team/app:v1", "--store", tmp_path / "store")
    assert done.returncode == 9, done.stderr
    assert done.stdout.startswith(f"{served.address}/team/app@sha256:")
    assert "team/UPPER" in done.stderr


@pytest.mark.parametrize("content", [None, "{", '{"auths": []}'])
def test_a_wrong_auth_file_is_a_usage_error(cli: Cli, tmp_path: Path, content: str | None) -> None:
    auth = tmp_path / "auth.json"
    if content is not None:
        auth.write_text(content)
    for command in (("pull", "127.0.0.1:1/app", "--store", tmp_path / "store"), ("login", "--get-login", "r.test")):
        done = cli(*command, "--authfile", auth)
        assert (done.returncode, str(auth) in done.stderr) == (2, True), done.stderr
