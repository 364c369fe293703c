"""What ``fastoci pull`` reaches by an option, ``fastoci repair`` reaches by the same, and neither reaches without."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

import fastoci
from conftest import Cli
from fastoci.cli import registry_options
from fastoci.cli.commands.pull import pull
from fastoci.cli.commands.repair import repair
from fastoci.server.http import Request
from fastoci.server.pull_api import Answer
from fastoci.testing.auth import Basic
from fastoci.testing.faults.certificates import Authority
from fastoci.testing.registry import Registry, serve
from support.helper_programs import plugin
from support.images import FIRST, SECOND, image_of

IMAGE = image_of(FIRST, SECOND)
LAYER = IMAGE.layers[1].descriptor
USER, PASSWORD = "puller", "correct horse battery"


@dataclass(frozen=True, slots=True)
class Setting:
    """A registry that is reached by options alone."""

    name: str
    options: tuple[str, ...]
    given: str = ""  # on stdin
    environ: tuple[tuple[str, str], ...] = ()
    always: tuple[str, ...] = ()  # also given to the repair that must fail


Settle = Callable[[Path, ExitStack], Setting]


def _served(stack: ExitStack, registry: Registry, name: str = "app") -> str:
    registry.add_image(name, "1", IMAGE)
    return f"{stack.enter_context(serve(registry)).address}/{name}:1"


def _private(stack: ExitStack) -> str:
    return _served(stack, Registry(Basic(USER, PASSWORD)))


def _mirrored(place: Path, origin: str) -> tuple[str, str]:
    (place / "hosts" / "gone.invalid").mkdir(parents=True)
    text = f'[host."{origin}"]\n  capabilities = ["pull", "resolve"]\n'
    (place / "hosts" / "gone.invalid" / "hosts.toml").write_text(text)
    return "--hosts-dir", f"{place}/hosts"


def _by_https(place: Path, stack: ExitStack, authority: Authority) -> tuple[str, str]:
    """A host that is asked by https: this machine itself would be asked by http."""
    address = _served(stack, Registry(tls=authority.context(["127.0.0.1"]))).partition("/")[0]
    return _mirrored(place, f"https://{address}")


def by_tls_verify(place: Path, stack: ExitStack) -> Setting:
    hosts = _by_https(place, stack, Authority())
    return Setting("gone.invalid/app:1", ("--tls-verify", "false"), always=hosts)


def by_cert_dir(place: Path, stack: ExitStack) -> Setting:
    authority = Authority()
    (place / "certs").mkdir()
    (place / "certs" / "ca.crt").write_bytes(authority.pem)
    hosts = _by_https(place, stack, authority)
    return Setting("gone.invalid/app:1", ("--cert-dir", f"{place}/certs"), always=hosts)


def by_authfile(place: Path, stack: ExitStack) -> Setting:
    name = _private(stack)
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (place / "auth.json").write_text(json.dumps({"auths": {name.partition("/")[0]: {"auth": auth}}}))
    return Setting(name, ("--authfile", f"{place}/auth.json"))


def by_creds(place: Path, stack: ExitStack) -> Setting:
    return Setting(_private(stack), ("--creds", f"{USER}:{PASSWORD}"))


def by_creds_of_the_environment(place: Path, stack: ExitStack) -> Setting:
    return Setting(_private(stack), (), environ=(("FASTOCI_CREDS", f"{USER}:{PASSWORD}"),))


def by_password_on_stdin(place: Path, stack: ExitStack) -> Setting:
    return Setting(_private(stack), ("--creds", USER, "--password-stdin"), PASSWORD)


def by_kubelet_plugin(place: Path, stack: ExitStack) -> Setting:
    name = _private(stack)
    answer = {
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Image",
        "auth": {name.partition("/")[0]: {"username": USER, "password": PASSWORD}},
    }
    programs = place / "plugins"
    programs.mkdir()
    plugin(programs, "provider", answer)
    provider = {
        "name": "provider",
        "matchImages": [name.partition("/")[0]],
        "defaultCacheDuration": "1m",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
    }
    config = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [provider]}
    (place / "providers.yaml").write_text(json.dumps(config))
    options = (
        "--image-credential-provider-config",
        f"{place}/providers.yaml",
        "--image-credential-provider-bin-dir",
        str(programs),
    )
    return Setting(name, options)


def by_registries_conf(place: Path, stack: ExitStack) -> Setting:
    mirror = _served(stack, Registry()).partition("/")[0]
    text = f'[[registry]]\nlocation = "gone.invalid"\n[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n'
    (place / "mirrors.conf").write_text(text)
    return Setting("gone.invalid/app:1", ("--registries-conf", f"{place}/mirrors.conf"))


def by_hosts_dir(place: Path, stack: ExitStack) -> Setting:
    mirror = _served(stack, Registry()).partition("/")[0]
    return Setting("gone.invalid/app:1", _mirrored(place, f"http://{mirror}"))


SETTINGS: tuple[Settle, ...] = (
    by_tls_verify,
    by_cert_dir,
    by_authfile,
    by_creds,
    by_creds_of_the_environment,
    by_password_on_stdin,
    by_kubelet_plugin,
    by_registries_conf,
    by_hosts_dir,
)


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(cli: Cli) -> Run:
    def called(setting: Setting, command: str, store: Path, *options: str) -> subprocess.CompletedProcess[str]:
        asked = bool(options)
        given = setting.given if asked else ""
        environ = {**os.environ, **(dict(setting.environ) if asked else {})}
        words: tuple[str | Path, ...] = (
            setting.name,
            "--store",
            store,
            *options,
            *setting.always,
            "--progress",
            "none",
        )
        return cli(command, *words, given=given, environ=environ)

    return called


def damage(store: Path) -> None:
    path = store / "blobs" / "sha256" / LAYER.digest.hex
    path.chmod(0o644)
    path.write_bytes(b"\0" * LAYER.size)


@pytest.mark.parametrize("settle", SETTINGS)
def test_repair_mends_by_every_option_what_pull_brought_by_it(run: Run, tmp_path: Path, settle: Settle) -> None:
    store = tmp_path / "store"
    with ExitStack() as stack:
        setting = settle(tmp_path, stack)
        options = (*setting.options, "--memory", "32M", "--connections", "2", "--max-wait", "1s")
        pulled = run(setting, "pull", store, *options)
        assert pulled.returncode == 0, pulled.stderr
        damage(store)
        assert run(setting, "repair", store).returncode in (4, 5)
        mended = run(setting, "repair", store, *options)
        assert (mended.returncode, mended.stdout) == (0, f"{LAYER.digest}\n"), mended.stderr


def test_every_registry_option_has_a_setting(tmp_path: Path) -> None:
    @registry_options.registry
    def command(**given: object) -> None:
        """Nothing."""

    known = {parameter.opts[0] for parameter in click.command(command).params}
    with ExitStack() as stack:
        used = set()
        for number, settle in enumerate(SETTINGS):
            (tmp_path / str(number)).mkdir()
            used |= {each for each in settle(tmp_path / str(number), stack).options if each.startswith("--")}
    # One needs a network of its own (test_private_redirects.py), one a second registry (test_foreign_layers.py), the
    # others a registry that fails (below).
    assert used == known - {
        "--allow-private-redirects",
        "--download-foreign-layers",
        "--retries",
        "--retry-delay",
    }


class Failing(Registry):
    """Answers so many requests for a layer with 503."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left, self.asked = times, 0

    async def answer(self, request: Request, host: str) -> Answer:
        """An answer."""
        if str(LAYER.digest) in request.target:
            self.asked += 1
            self.left -= 1
            if self.left >= 0:
                return Answer(503)
        return await super().answer(request, host)


@pytest.mark.parametrize("command", ["pull", "repair"])
def test_a_request_is_sent_again_as_often_as_the_user_says(cli: Cli, tmp_path: Path, command: str) -> None:
    registry, store = Failing(0), tmp_path / "store"
    with ExitStack() as stack:
        name = _served(stack, registry)
        if command == "repair":
            assert cli("pull", name, "--store", store).returncode == 0
            damage(store)
        registry.left, registry.asked = 20, 0
        few = cli(command, name, "--store", store, "--retries", "1", "--retry-delay", "1ms")
        assert (few.returncode, registry.asked) == (5, 2), few.stderr
        environ = {**os.environ, "FASTOCI_RETRIES": "18", "FASTOCI_RETRY_DELAY": "1ms"}
        many = cli(command, name, "--store", store, environ=environ)
        assert (many.returncode, registry.asked) == (0, 21), many.stderr


@pytest.mark.parametrize("given", [("--retries", "-1"), ("--retries", "x"), ("--retry-delay", "5")])
def test_retries_that_cannot_be_are_usage_errors(cli: Cli, tmp_path: Path, given: tuple[str, str]) -> None:
    done = cli("pull", "127.0.0.1:1/a", "--store", tmp_path / "store", *given)
    assert done.returncode == 2
    assert given[0] in done.stderr
    assert not (tmp_path / "store").exists()
    for wrong in ({"retries": -1}, {"retry_delay_s": -1.0}, {"retry_delay_s": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            fastoci.RegistryOptions(**wrong)


def test_the_commands_that_ask_registries_have_the_same_options() -> None:
    only_pull = {option for option in _flags(pull) if option not in _flags(repair)}
    assert only_pull == {"--platform", "--rootfs", "--oci", "--same-owner", "--dry-run"} | {
        "--pull",
        "--offline",
        "--max-unpacked",
        "--max-entries",
        "--max-store-size",
        "--nice",
        "--layers",
        "--layers-only",
        "--verity",
        "--into",
        "--containerd-address",
        "--snapshotter",
        "--unpack",
        "--pin",
        "--policy",
        "--insecure-policy",
    }


def _flags(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
