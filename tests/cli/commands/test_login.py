"""``fastoci login`` and ``logout`` as processes, against Debian's docker-registry and beside skopeo.

Covers: cli/commands/logout.py.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

import fastoci
from conftest import Cli
from support.helper_programs import helper

SOURCE = str(Path(fastoci.__file__).parents[1])


class Running(Protocol):
    address: str


class Copy(Protocol):
    def __call__(self, source: str, destination: str, *options: str) -> None: ...


@pytest.fixture
def authfile(tmp_path: Path) -> Path:
    return tmp_path / "auth.json"


@pytest.fixture
def image(private_registry: Running, registry_credentials: tuple[str, str], copy_image: Copy, shared: Path) -> str:
    """A repository of the registry, which has a tag ``1``."""
    where = f"docker://{private_registry.address}/login/image:1"
    copy_image(f"oci:{shared}/images/oci:busybox-musl", where, f"--dest-creds={':'.join(registry_credentials)}")
    return f"{private_registry.address}/login/image"


def test_skopeo_reads_what_login_wrote(
    cli: Cli,
    image: str,
    private_registry: Running,
    registry_credentials: tuple[str, str],
    peer: Callable[[str], str],
    authfile: Path,
) -> None:
    user, password = registry_credentials
    done = cli(
        "login", private_registry.address, "-u", user, "--password-stdin", "--authfile", authfile, given=f"{password}\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Login succeeded\n", "")
    command = [peer("skopeo"), "list-tags", "--tls-verify=false", f"--authfile={authfile}", f"docker://{image}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(listed.stdout)["Tags"] == ["1"], listed.stderr
    shown = cli("login", "--get-login", private_registry.address, "--authfile", authfile)
    assert shown.stdout == f"{user}\n"
    left = cli("logout", private_registry.address, "--authfile", authfile)
    assert (left.returncode, left.stdout) == (0, f"Removed login credentials for {private_registry.address}\n")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_pull_uses_what_skopeo_login_wrote(
    cli: Cli,
    image: str,
    private_registry: Running,
    registry_credentials: tuple[str, str],
    peer: Callable[[str], str],
    authfile: Path,
    tmp_path: Path,
) -> None:
    user, password = registry_credentials
    skopeo = [peer("skopeo"), "login", "--tls-verify=false", f"--authfile={authfile}", "-u", user, "--password-stdin"]
    subprocess.run([*skopeo, private_registry.address], input=password, text=True, capture_output=True, check=True)
    pulled = cli("pull", f"{image}:1", "--store", tmp_path / "store", "--authfile", authfile)
    assert pulled.returncode == 0, pulled.stderr
    refused = cli("pull", f"{image}:1", "--store", tmp_path / "other")
    assert refused.returncode == 4
    assert "fastoci login" in refused.stderr
    assert cli("logout", "--all", "--authfile", authfile).returncode == 0
    assert json.loads(authfile.read_text()) == {"auths": {}}


def test_login_without_an_authfile_is_found_by_the_next_pull(
    cli: Cli,
    image: str,
    private_registry: Running,
    registry_credentials: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    user, password = registry_credentials
    assert cli("login", private_registry.address, "-u", user, "--password-stdin", given=password).returncode == 0
    assert (tmp_path / "containers" / "auth.json").stat().st_mode & 0o777 == 0o600
    assert cli("pull", f"{image}:1", "--store", tmp_path / "store").returncode == 0


def test_wrong_credentials_end_with_4_and_are_not_kept(cli: Cli, private_registry: Running, authfile: Path) -> None:
    done = cli(
        "login", private_registry.address, "-u", "me", "--password-stdin", "--authfile", authfile, given="hunter2"
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"fastoci: GET http://{private_registry.address}/v2/: 401")
    assert "hunter2" not in done.stderr
    assert not authfile.exists()


def test_a_registry_that_does_not_ask_is_told_in_a_warning(cli: Cli, docker_registry: Running, authfile: Path) -> None:
    done = cli(
        "login", docker_registry.address, "-u", "me", "--password-stdin", "--authfile", authfile, given="hunter2"
    )
    assert (done.returncode, done.stdout) == (0, "Login succeeded\n")
    assert "asked for no credentials" in done.stderr


def test_a_terminal_is_asked_and_does_not_show_the_password(
    private_registry: Running, registry_credentials: tuple[str, str], authfile: Path
) -> None:
    user, password = registry_credentials
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fastoci", "login", private_registry.address, "--authfile", str(authfile)]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    shown = b""
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        for prompt, typed in ((b"Username: ", user), (b"Password: ", password)):
            while prompt not in shown:
                shown += os.read(ours, 4096)
            os.write(ours, f"{typed}\n".encode())
        with suppress(OSError):  # EIO: the other side has closed
            while data := os.read(ours, 4096):
                shown += data
    os.close(ours)
    assert process.returncode == 0, shown
    assert b"Login succeeded" in shown
    assert password.encode() not in shown
    assert json.loads(authfile.read_text())["auths"].keys() == {private_registry.address}


@pytest.mark.parametrize(
    ("arguments", "given", "wrong"),
    [
        (["login", "r.test"], "", "no terminal"),
        (["login", "r.test", "--password-stdin"], "pw", "--password-stdin needs --username"),
        (["login", "r.test", "-u", "a:b", "--password-stdin"], "pw", "colon"),
        (["login", "r.test", "-u", "me", "--password-stdin"], "", "stdin holds no password"),
        (["login", "r.test", "-u", "me", "--password-stdin"], "a\nb\n", "stdin holds no password"),
        (["login"], "", "Missing argument"),
        (["login", "registry", "-u", "me", "--password-stdin"], "pw", "is not a registry"),
        (["logout"], "", "give HOST or --all"),
        (["logout", "r.test", "--all"], "", "give HOST or --all"),
        (["pull", "r.test/x", "--image-credential-provider-config", "f"], "", "go together"),
    ],
)
def test_wrong_usage_ends_with_2(cli: Cli, arguments: list[str], given: str, wrong: str) -> None:
    done = cli(*arguments, given=given)
    assert (done.returncode, done.stdout) == (2, "")
    assert wrong in done.stderr


@pytest.mark.parametrize("arguments", [["login", "--get-login", "r.test"], ["logout", "r.test"]])
def test_who_is_not_logged_in_is_told_so(cli: Cli, arguments: list[str], authfile: Path) -> None:
    authfile.write_text("")
    done = cli(*arguments, "--authfile", authfile)
    assert (done.returncode, done.stdout) == (4, "")
    assert "r.test: not logged in" in done.stderr


def test_a_pull_asks_the_kubelet_s_plugins(
    cli: Cli, image: str, registry_credentials: tuple[str, str], tmp_path: Path
) -> None:
    user, password = registry_credentials
    address = image.partition("/")[0]
    protocol = "credentialprovider.kubelet.k8s.io/v1"
    answer = {
        "kind": "CredentialProviderResponse",
        "apiVersion": protocol,
        "cacheKeyType": "Registry",
        "auth": {address: {"username": user, "password": password}},
    }
    plugin = tmp_path / "bin" / "node-plugin"
    plugin.parent.mkdir()
    plugin.write_text(f"#!/bin/sh\ncat >/dev/null\ncat <<'EOF'\n{json.dumps(answer)}\nEOF\n")
    plugin.chmod(0o755)
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: node-plugin\n"
        f"  apiVersion: {protocol}\n  matchImages: ['{address}/login']\n  defaultCacheDuration: 1h\n"
    )
    options: list[str | Path] = [
        "--image-credential-provider-config",
        config,
        "--image-credential-provider-bin-dir",
        plugin.parent,
    ]
    done = cli("pull", f"{image}:1", "--store", tmp_path / "store", *options)
    assert done.returncode == 0, done.stderr
    plugin.unlink()
    failed = cli("pull", f"{image}:1", "--store", tmp_path / "other", *options)
    assert failed.returncode == 4
    assert "node-plugin: cannot be run" in failed.stderr


def test_a_pull_asks_the_helpers_that_registries_conf_names(
    cli: Cli, image: str, registry_credentials: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = image.partition("/")[0]
    helper(tmp_path, "machine", {address: registry_credentials})
    (tmp_path / "registries.conf").write_text('credential-helpers = ["containers-auth.json", "machine"]\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = cli("pull", f"{image}:1", "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert cli("login", "--get-login", address).stdout == f"{registry_credentials[0]}\n"
