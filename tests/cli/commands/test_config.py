"""``fastoci config show``: files, values and servers, and no secret.

Covers: cli/commands/config.py, registry/access.py.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from conftest import Cli

SECRET = "hunter2"


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a configuration file, a mirror with a certificate and a secret header, and credentials for both."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "fastoci").mkdir()
    hosts = tmp_path / "hosts" / "registry.test"
    hosts.mkdir(parents=True)
    (hosts / "ca.crt").write_text("")
    (hosts / "hosts.toml").write_text(
        'server = "https://registry.test"\n[host."https://mirror.test"]\ncapabilities = ["pull"]\nca = "ca.crt"\n'
        f'[host."https://mirror.test".header]\nx-key = "{SECRET}"\n'
    )
    entry = {"auth": base64.b64encode(f"me:{SECRET}".encode()).decode()}
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {"registry.test": entry}}))
    file = tmp_path / "fastoci" / "config.toml"
    file.write_text(f"store = '/s'\n[registry]\nhosts-dir = '{hosts.parent}'\nauthfile = '{tmp_path}/auth.json'\n")
    file.chmod(0o600)
    return file


def test_files_values_and_servers_are_shown_as_json(
    cli: Cli, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTOCI_MAX_AGE", "30d")
    done = cli("config", "show", "registry.test/app", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"path": str(configured), "there": True} in found["files"]
    values = {each["key"]: (each["value"], each["from"]) for each in found["values"]}
    assert values["store"] == ("/s", str(configured))
    assert values["gc.max-age"] == ("30d", "FASTOCI_MAX_AGE")
    mirror, own = found["servers"]
    assert (mirror["url"], mirror["resolves"], mirror["pulls"]) == ("https://mirror.test/v2", False, True)
    assert mirror["certificates"] == [str(configured.parents[1] / "hosts" / "registry.test" / "ca.crt")]
    assert (mirror["headers"], mirror["user"]) == (["x-key"], None)
    assert (own["url"], own["user"], own["source"]) == (
        "https://registry.test/v2",
        "me",
        str(configured.parents[1] / "auth.json"),
    )
    assert SECRET not in done.stdout + done.stderr


def test_the_text_shows_the_same_and_no_secret(cli: Cli, configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTOCI_CREDS", f"you:{SECRET}")
    done = cli("config", "show", "registry.test/app")
    assert done.returncode == 0, done.stderr
    assert f"value   store = /s, from {configured}" in done.stdout
    assert "server  https://mirror.test/v2/app: asked for blobs, no credentials" in done.stdout
    assert "https://registry.test/v2/app: asked for tags and blobs, user you, from those that were given" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_without_a_reference_no_server_is_shown(cli: Cli, configured: Path) -> None:
    shown = cli("config", "show", "--config", "/dev/null").stdout
    assert shown == "file    /dev/null\n"
    assert "server" not in cli("config", "show").stdout
