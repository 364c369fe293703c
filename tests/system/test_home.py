"""A user without a home, and one whose HOME is another user's: what may not be read is as absent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from fastoci.testing.registry import Registry, serve
from support.images import FIRST, image_of
from support.sanitizers import ENVIRONMENT
from support.scratch import SOURCE
from support.warm_program import Ended, started_warm_program

OTHER = 12345  # a user whose files are nobody's in the namespace
# A user whom no passwd file knows, and who has the files of root.
AS_NOBODY = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
PLAIN = {"PATH": os.defpath, "PYTHONPATH": str(SOURCE)} | ENVIRONMENT

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run([*AS_NOBODY, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs root and user namespaces",
)


@pytest.fixture
def name() -> Iterator[str]:
    """An image that anyone may pull."""
    registry = Registry()
    registry.add_image("app", "1", image_of(FIRST))
    with serve(registry) as served:
        yield f"{served.address}/app:1"


class Pull(Protocol):
    """``pull(NAME, HOME=...)`` runs the command in this environment and no other."""

    def __call__(self, *arguments: str | Path, **environ: str | Path) -> Ended: ...


@pytest.fixture(scope="module")
def pull() -> Iterator[Pull]:
    """The command, as that user."""
    with started_warm_program(below=AS_NOBODY) as program:

        def run(*arguments: str | Path, **environ: str | Path) -> Ended:
            environment = PLAIN | {key: str(value) for key, value in environ.items()}
            return program.run("pull", "--progress", "none", *arguments, environ=environment)

        yield run


def theirs(path: Path, mode: int) -> Path:
    os.chown(path, OTHER, OTHER)
    path.chmod(mode)
    return path


def test_without_home_and_passwd_entry_a_pull_into_a_named_store_works(pull: Pull, tmp_path: Path, name: str) -> None:
    done = pull(name, "--store", tmp_path / "store")
    assert (done.returncode, done.stderr) == (0, "")
    done = pull(name, XDG_DATA_HOME=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "fastoci" / "fastoci.json").is_file()


def test_without_home_and_passwd_entry_the_usual_store_is_nowhere(pull: Pull, name: str) -> None:
    done = pull(name)
    assert done.returncode == 2
    assert "HOME is not set, and no user has the number 54321" in done.stderr


@pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME"])
def test_a_home_that_may_not_be_entered_is_as_absent(pull: Pull, tmp_path: Path, name: str, variable: str) -> None:
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    theirs(home, 0o700)
    done = pull(name, "--store", tmp_path / "store", **{variable: home})
    assert (done.returncode, done.stderr) == (0, "")


def test_files_in_a_home_that_may_not_be_read_are_as_absent(pull: Pull, tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    host = name.partition("/")[0]
    files = (
        ".config/containers/registries.conf",
        ".config/containers/registries.conf.d/a.conf",
        ".config/containers/auth.json",
        ".config/containerd/certs.d/HOST/hosts.toml",
        ".config/containerd/certs.d/HOST/client.key",
        ".config/containers/certs.d/HOST/ca.crt",
        ".config/containers/certs.d/HOST/client.key",
        ".docker/config.json",
        ".dockercfg",
    )
    for each in files:
        path = home / each.replace("HOST", host)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("neither TOML nor JSON")
        theirs(path, 0o600)
    (home / ".config/containers/certs.d" / host / "client.cert").touch()
    done = pull(name, "--store", tmp_path / "store", HOME=home)
    assert (done.returncode, done.stderr) == (0, "")
    for path in home.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            refused = pull(name, "--store", tmp_path / "other", HOME=home)
            assert refused.returncode == 2 or path.suffix in (".crt", ".key", ".cert"), path  # those are for https
            path.chmod(0o600)
