"""Credentials out of the files of Docker and Podman: the most specific key, and the first file that has one.

Covers: registry/auth/auth_file.py, registry/auth/credential.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import ConfigError, CredentialError
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials, load
from support.helper_programs import HelperProgram, plugin

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


@pytest.mark.parametrize(
    "domain", ["r.test.evil", "r.test:443", "R.TEST:443", "r.test.", "xr.test", "est", "xn--r-test", "r.test:80"]
)
async def test_a_host_that_only_resembles_the_key_gets_nothing(tmp_path: Path, domain: str) -> None:
    credentials = _load(_write(tmp_path / "a.json", {"https://r.test/v2/": _auth("me", "pw")}))
    assert await credentials.find("R.test", "a")
    assert await credentials.find("R.TEST", "a")
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
    (tmp_path / "null.json").write_text("null")
    assert await _load(tmp_path / "null.json").find("r.test", "a") is None
    assert await _load(_write(tmp_path / "a.json", {"r.test": {}})).find("r.test", "a") is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"x"',
        '{"auths":[]}',
        "[" * 100_000,
        '{"auths":{"r.test":{"auth":"hunter2"}',
        " " * (2 << 20),
    ],
)
def test_a_broken_file_is_named_and_its_secrets_are_not(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        _load(path)
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        [],
        "aHVudGVyMg==",
        {"auth": "***hunter2***"},
        {"auth": "aHVudGVyMg=="},  # a bare token
        {"auth": "aHVudGVyMjp4e"},  # cut
        {"auth": "aHVudGVyMjpw_w=="},  # the alphabet of URLs
        {"auth": 5},
        {"password": ["hunter2"]},
    ],
)
async def test_a_broken_entry_fails_for_its_own_host_alone_and_shows_no_secret(tmp_path: Path, entry: object) -> None:
    path = _write(tmp_path / "a.json", {"r.test": _auth("me", "pw"), "broken.test/team": entry})
    credentials = _load(path)
    assert await credentials.find("r.test", "a") == Credential("me", "pw")
    assert await credentials.find("broken.test", "other/app") is None
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"'broken\.test/team'") as caught:
            await credentials.find("broken.test", "team/app")
        assert str(path) in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "aHVudGVyMg" not in str(caught.value)


async def test_null_is_an_empty_entry(tmp_path: Path) -> None:
    credentials = _load(_write(tmp_path / "a.json", {"r.test/team": None, "r.test": _auth("me", "pw")}))
    assert await credentials.find("r.test", "team/app") == Credential("me", "pw")


@pytest.mark.parametrize("width", [1, 4, 76, 77])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_line_ends_in_base64_are_as_absent(tmp_path: Path, width: int, end: str) -> None:
    secret = "x" * 200
    text = _auth("AWS", secret)["auth"]
    wrapped = "".join(text[start : start + width] + end for start in range(0, len(text), width))
    credentials = _load(_write(tmp_path / "a.json", {"r.test": {"auth": wrapped}}))
    assert await credentials.find("r.test", "a") == Credential("AWS", secret)


@pytest.mark.parametrize("password", ["p", "pw", "pwd"])
async def test_base64_may_have_no_padding(tmp_path: Path, password: str) -> None:
    text = _auth("me", password)["auth"].rstrip("=") + "\n"
    credentials = _load(_write(tmp_path / "a.json", {"r.test": {"auth": text}}))
    assert await credentials.find("r.test", "a") == Credential("me", password)


async def test_the_case_of_a_member_s_name_counts_as_little_as_for_docker(
    tmp_path: Path, helper_program: Callable[..., HelperProgram]
) -> None:
    helper = helper_program("one", {"h.test": ("helper", "x")})
    file = _config(
        tmp_path / "a.json",
        Auths={"r.test": {"Username": "me", "PASSWORD": "pw", "IdentityToken": "refresh"}, "t.test": {"Auth": "bTpw"}},
        CREDHELPERS={"h.test": "one"},
    )
    credentials = load(file, environ=helper.environ)
    assert await credentials.find("r.test", "a") == Credential("me", "pw", "refresh")
    assert await credentials.find("t.test", "a") == Credential("m", "p")
    assert await credentials.find("h.test", "a") == Credential("helper", "x")


async def test_a_wildcard_in_a_host_means_whole_labels_and_comes_after_every_other_key(tmp_path: Path) -> None:
    keys = ("*.r.test", "own.r.test", "*.r.test/team", "*.*.r.test", "*.p.test:5000", "https://*.old.test/v1/")
    credentials = _load(_write(tmp_path / "a.json", {key: _auth(str(keys.index(key)), "x") for key in keys}))

    async def user(domain: str, path: str) -> str | None:
        found = await credentials.find(domain, path)
        return None if found is None else keys[int(found.username)]

    assert await user("a.r.test", "app") == "*.r.test"
    assert await user("A.R.test", "team") == "*.r.test/team"
    assert await user("a.r.test", "team/app") == "*.r.test/team"
    assert await user("a.r.test", "teammate") == "*.r.test"
    assert await user("own.r.test", "team/app") == "own.r.test"
    assert await user("a.b.r.test", "app") == "*.*.r.test"
    assert await user("a.p.test:5000", "app") == "*.p.test:5000"
    assert await user("a.old.test", "app") == "https://*.old.test/v1/"
    for other in ("r.test", "a.r.test.evil", "a.r.test:443", "a.p.test", "a.p.test:5001", "ar.test", "a.b.c.r.test"):
        assert await user(other, "app") is None


async def test_a_helper_may_be_for_all_hosts_of_a_wildcard(
    tmp_path: Path, helper_program: Callable[..., HelperProgram]
) -> None:
    hosts = ("1.dkr.ecr.eu-west-1.amazonaws.com", "2.dkr.ecr.eu-west-1.amazonaws.com", "dkr.ecr.test")
    ecr = helper_program("ecr", {host: ("AWS", host) for host in hosts})
    helper_program("own", {hosts[1]: ("own", "x")})
    file = _config(
        tmp_path / "a.json", credHelpers={"*.dkr.ecr.*.amazonaws.com": "ecr", hosts[1]: "own", "*.bad.test": "../x"}
    )
    credentials = load(file, environ=ecr.environ)
    assert await credentials.find(hosts[0], "app") == Credential("AWS", hosts[0])
    assert await credentials.find(hosts[1], "app") == Credential("own", "x")
    assert await credentials.find(hosts[2], "app") is None
    with pytest.raises(ConfigError, match="not the name of a credential helper"):
        await credentials.find("a.bad.test", "app")


def test_a_named_file_that_is_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        _load(tmp_path / "absent.json")


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    credential = Credential("me", "hunter2", "hunter3")
    assert "hunter" not in repr(credential) + str(credential)
    credentials = _load(_write(tmp_path / "a.json", {"r.test": _auth("me", "hunter2")}))
    assert "hunter" not in repr(credentials)


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        ("bücher.de", "xn--bcher-kva.de"),
        ("\u212a8s.io", "k8s.io"),  # the Kelvin sign, whose lower case is an ASCII k
        ("r.test:443", "r.test"),
        ("r.test.", "r.test"),
        ("r.test/v2", "r.test"),
        ("user@r.test", "r.test"),
    ],
)
async def test_a_key_that_only_resembles_the_host_is_for_another(tmp_path: Path, key: str, domain: str) -> None:
    assert await _load(_write(tmp_path / "a.json", {key: _auth("me", "pw")})).find(domain, "team/app") is None


async def test_a_key_without_a_scheme_wins_over_its_old_spelling(tmp_path: Path) -> None:
    auths = {"https://r.test/v1/": _auth("old", "pw"), "r.test": _auth("new", "pw")}
    assert await _load(_write(tmp_path / "a.json", auths)).find("r.test", "a") == Credential("new", "pw")


async def test_a_registry_token_is_read(tmp_path: Path) -> None:
    credentials = _load(_write(tmp_path / "a.json", {"r.test": {"registrytoken": "bearer.me"}}))
    assert await credentials.find("r.test", "a") == Credential("", registry_token="bearer.me")
    broken = _load(_write(tmp_path / "b.json", {"r.test": {"registrytoken": "a\r\nX-Evil: 1"}}))
    with pytest.raises(ConfigError, match="'registrytoken'"):
        await broken.find("r.test", "a")


async def test_the_variable_comes_before_the_files_and_after_a_named_one(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "DOCKER_AUTH_CONFIG": json.dumps({"auths": {"r.test": _auth("variable", "x")}})}
    _write(tmp_path / ".docker/config.json", {"r.test": _auth("file", "x"), "d.test": _auth("file", "x")})
    credentials = load(environ=environ)
    assert await credentials.find("r.test", "a") == Credential("variable", "x")
    assert await credentials.find("d.test", "a") == Credential("file", "x")
    named = _write(tmp_path / "named.json", {})
    assert await load(named, environ=environ).find("r.test", "a") is None


def test_a_broken_variable_is_named_and_its_secrets_are_not() -> None:
    with pytest.raises(ConfigError, match="DOCKER_AUTH_CONFIG: this auth file is not JSON") as caught:
        load(environ={"DOCKER_AUTH_CONFIG": '{"auths": hunter2'})
    assert "hunter2" not in str(caught.value)


async def test_the_old_dockercfg_is_asked_last(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    old = {"https://index.docker.io/v1/": _auth("hub", "x"), "r.test": {**_auth("old", "x"), "email": "me@r.test"}}
    (tmp_path / ".dockercfg").write_text(json.dumps(old))
    assert await load(environ=environ).find("docker.io", "library/redis") == Credential("hub", "x")
    assert await load(environ=environ).find("r.test", "a") == Credential("old", "x")
    _write(tmp_path / ".docker/config.json", {"r.test": _auth("new", "x")})
    assert await load(environ=environ).find("r.test", "a") == Credential("new", "x")


async def test_docker_config_leaves_only_its_own_file(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    _write(tmp_path / "run/containers/auth.json", {"r.test": _auth("run", "x")})
    assert await load(environ=environ).find("r.test", "a") == Credential("run", "x")
    assert await load(environ={**environ, "DOCKER_CONFIG": str(tmp_path / "d")}).find("r.test", "a") is None


def _config(path: Path, **members: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(members))
    return path


async def test_the_helper_of_a_host_comes_before_the_store_and_the_entries(
    tmp_path: Path, helper_program: Callable[..., HelperProgram]
) -> None:
    one = helper_program("one", {"r.test:5000": ("one", "x")})
    hosts = ("https://index.docker.io/v1/", "r.test:5000", "own.test")
    helper_program("all", {host: ("all", "x") for host in hosts})
    file = _config(
        tmp_path / "a.json",
        auths={host: _auth("file", "x") for host in ("r.test:5000", "plain.test", "own.test")} | {"docker.io": {}},
        credHelpers={"r.test:5000": "one", "own.test": ""},
        credsStore="all",
    )
    credentials = load(file, environ=one.environ)
    assert await credentials.find("r.test:5000", "a") == Credential("one", "x")
    assert await credentials.find("docker.io", "library/redis") == Credential("all", "x")
    assert await credentials.find("plain.test", "a") == Credential("file", "x")  # the store knows nothing of it
    assert await credentials.find("own.test", "a") == Credential("file", "x")  # the store is not asked
    assert await credentials.find("nobody.test", "a") is None


async def test_a_helper_that_fails_is_an_error_and_not_an_anonymous_pull(
    tmp_path: Path, helper_program: Callable[..., HelperProgram]
) -> None:
    helper = helper_program("broken", fails="hunter2")
    file = _config(tmp_path / "a.json", credHelpers={"r.test": "broken"}, auths={"r.test": _auth("me", "hunter2")})
    credentials = load(file, environ=helper.environ)
    with pytest.raises(CredentialError, match="docker-credential-broken") as caught:
        await credentials.find("r.test", "a")
    assert "hunter2" not in str(caught.value)
    assert await credentials.find("other.test", "a") is None


@pytest.mark.parametrize("name", ["../../bin/sh", "a/b", "", "-x", "a b", "a;b", "x" * 65, "a\n", 5, None])
@pytest.mark.parametrize("place", ["credHelpers", "credsStore"])
async def test_a_helper_has_a_plain_name(tmp_path: Path, place: str, name: object) -> None:
    if place == "credsStore" and not name:
        assert load(_config(tmp_path / "a.json", credsStore=name), environ={})  # docker writes it so
        return
    file = _config(tmp_path / "a.json", **{place: {"r.test": name} if place == "credHelpers" else name})
    credentials = load(file, environ={})
    if name == "":
        assert await credentials.find("r.test", "a") is None  # for docker: this host has none
        return
    with pytest.raises(ConfigError, match="not the name of a credential helper"):
        await credentials.find("r.test", "a")
    if place == "credHelpers":
        assert await credentials.find("other.test", "a") is None


def test_of_docker_s_headers_those_for_registries_are_kept(tmp_path: Path) -> None:
    headers = {"X-Meta-Team": "a", "x-meta-b": "b", "Authorization": "hunter2", "X-Meta-Bad": "a\r\nb", "X-Meta-N": 5}
    credentials = load(_config(tmp_path / "a.json", HttpHeaders=headers), environ={})
    assert credentials.headers == {"X-Meta-Team": "a", "x-meta-b": "b"}


async def test_what_the_user_gives_is_not_for_mirrors(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.json", {"mirror.test": _auth("mirror", "x")})
    credentials = load(file, explicit=Credential("given", "x"), environ={})
    assert await credentials.find("r.test", "a") == Credential("given", "x")
    assert await credentials.find("mirror.test", "a", mirror=True) == Credential("mirror", "x")
    assert await credentials.find("other.test", "a", mirror=True) is None


async def test_the_kubelet_s_plugins_are_asked_after_the_files(tmp_path: Path) -> None:
    answer = {
        "kind": "CredentialProviderResponse",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Registry",
        "auth": {"docker.io": {"username": "plugin", "password": "x"}},
    }
    program = plugin(tmp_path, "p", answer)
    provider = {
        "name": "p",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "matchImages": ["docker.io"],
        "defaultCacheDuration": "1h",
    }
    config = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [provider]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    file = _write(tmp_path / "a.json", {"docker.io/team": _auth("file", "x")})
    credentials = load(file, providers=(tmp_path / "config.json", tmp_path), environ=program.environ)
    assert await credentials.find("docker.io", "team/app") == Credential("file", "x")
    assert program.lines() == []
    assert await credentials.find("docker.io", "library/redis") == Credential("plugin", "x")
    assert await credentials.find("r.test", "library/redis") is None
    assert len(program.lines()) == 1


async def test_helpers_of_the_machine_are_asked_in_their_order_with_the_files_among_them(
    tmp_path: Path, helper_program: Callable[..., HelperProgram]
) -> None:
    first = helper_program("first", {"both.test": ("first", "x")})
    helper_program("last", {host: ("last", "x") for host in ("both.test", "file.test", "last.test")})
    file = _write(tmp_path / "a.json", {"both.test": _auth("file", "x"), "file.test": _auth("file", "x")})
    order = ("first", "containers-auth.json", "last")
    credentials = load(file, machine=order, environ=first.environ)
    hosts = ("both.test", "file.test", "last.test", "none.test")
    users = [getattr(await credentials.find(host, "a"), "username", None) for host in hosts]
    assert users == ["first", "file", "last", None]
    alone = load(file, machine=("last",), environ=first.environ)
    assert await alone.find("file.test", "a") == Credential("last", "x")  # a list without the files leaves them out
    with pytest.raises(ConfigError, match="not the name of a credential helper"):
        load(file, machine=("../x",), environ={})
