from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from fastoci.errors import FormatError
from fastoci.registry.credential import Credential
from fastoci.registry.credentials import Credentials, load

SECRET = "hunter2:with:colons"


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def _write(path: Path, auths: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths}))
    return path


def _load(path: Path) -> Credentials:
    return load(path, environ={})


async def test_an_entry_is_found_and_its_password_may_hold_colons(tmp_path: Path) -> None:
    credentials = _load(_write(tmp_path / "a.json", {"127.0.0.1:5000": _auth("me", SECRET)}))
    assert await credentials.find("127.0.0.1:5000", "library/redis") == Credential("me", SECRET)
    assert await credentials.find("127.0.0.1:5001", "library/redis") is None


async def test_trailing_nul_bytes_of_a_password_are_dropped(tmp_path: Path) -> None:
    credentials = _load(_write(tmp_path / "a.json", {"r.test": _auth("me", "pw\0\0")}))
    assert await credentials.find("r.test", "a") == Credential("me", "pw")


async def test_username_password_and_identity_token_fields_are_read(tmp_path: Path) -> None:
    entry = {"username": "me", "password": "pw", "identitytoken": "refresh"}
    credentials = _load(_write(tmp_path / "a.json", {"r.test": entry}))
    assert await credentials.find("r.test", "a") == Credential("me", "pw", "refresh")


@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "https://index.docker.io/v1", "docker.io", "index.docker.io", "Docker.IO/"]
)
async def test_docker_hub_is_known_by_all_its_keys(tmp_path: Path, key: str) -> None:
    assert await _load(_write(tmp_path / "a.json", {key: _auth("me", "pw")})).find("docker.io", "library/redis")


async def test_the_most_specific_key_wins(tmp_path: Path) -> None:
    auths = {
        "r.test": _auth("host", "x"),
        "r.test/team": _auth("team", "x"),
        "r.test/team/app": _auth("app", "x"),
        "r.test/te": _auth("other", "x"),
    }
    credentials = _load(_write(tmp_path / "a.json", auths))
    users = [
        getattr(await credentials.find("r.test", path), "username", None) for path in ("team/app", "team/b/c", "t/app")
    ]
    assert users == ["app", "team", "host"]


@pytest.mark.parametrize("domain", ["r.test.evil", "r.test:443", "r.test.", "xr.test", "est"])
async def test_a_host_that_only_resembles_the_key_gets_nothing(tmp_path: Path, domain: str) -> None:
    credentials = _load(_write(tmp_path / "a.json", {"https://r.test/v2/": _auth("me", "pw")}))
    assert await credentials.find("R.test", "a")
    assert await credentials.find(domain, "a") is None


async def test_the_first_file_with_a_match_wins(tmp_path: Path) -> None:
    environ = {
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HOME": str(tmp_path / "home"),
    }
    _write(tmp_path / "run/containers/auth.json", {"other.test": _auth("run", "x")})
    _write(tmp_path / "config/containers/auth.json", {"r.test": _auth("config", "x")})
    _write(tmp_path / "home/.docker/config.json", {"r.test": _auth("docker", "x"), "d.test": _auth("docker", "x")})
    credentials = load(environ=environ)
    users = [
        getattr(await credentials.find(host, "a"), "username", None) for host in ("other.test", "r.test", "d.test", "n")
    ]
    assert users == ["run", "config", "docker", None]
    _write(tmp_path / "docker/config.json", {"d.test": _auth("elsewhere", "x")})
    found = await load(environ={**environ, "DOCKER_CONFIG": str(tmp_path / "docker")}).find("d.test", "a")
    assert found is not None
    assert found.username == "elsewhere"


async def test_a_named_file_is_the_only_one_read(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    _write(tmp_path / "containers/auth.json", {"r.test": _auth("me", "pw")})
    named = _write(tmp_path / "named.json", {})
    assert await load(environ=environ).find("r.test", "a")
    assert await load(named, environ=environ).find("r.test", "a") is None
    assert await load(environ={**environ, "REGISTRY_AUTH_FILE": str(named)}).find("r.test", "a") is None


async def test_what_the_user_gives_wins_over_files(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.json", {"r.test": _auth("file", "pw")})
    given = Credential("given", "pw")
    assert await load(file, explicit=given, environ={}).find("r.test", "a") is given


async def test_no_files_give_no_credentials(tmp_path: Path) -> None:
    assert await load(environ={"HOME": str(tmp_path)}).find("docker.io", "library/redis") is None


async def test_empty_files_and_empty_entries_are_no_credentials(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("")
    assert await _load(tmp_path / "empty.json").find("r.test", "a") is None
    assert await _load(_write(tmp_path / "a.json", {"r.test": {}})).find("r.test", "a") is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"x"',
        '{"auths":[]}',
        '{"auths":{"r.test":[]}}',
        '{"auths":{"r.test":{"auth":"***hunter2***"}}}',
        '{"auths":{"r.test":{"auth":"aHVudGVyMg=="}}}',
        '{"auths":{"r.test":{"auth":5}}}',
        "[" * 100_000,
        '{"auths":{"r.test":{"auth":"hunter2"}',
        " " * (2 << 20),
    ],
)
def test_a_broken_file_is_named_and_its_secrets_are_not(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(FormatError) as caught:
        _load(path)
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "aHVudGVyMg" not in str(caught.value)


def test_a_named_file_that_is_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        _load(tmp_path / "absent.json")


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    credential = Credential("me", "hunter2", "hunter3")
    assert "hunter" not in repr(credential) + str(credential)
    credentials = _load(_write(tmp_path / "a.json", {"r.test": _auth("me", "hunter2")}))
    assert "hunter" not in repr(credentials)
