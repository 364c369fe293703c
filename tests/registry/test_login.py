"""Login and logout: what is checked, what is written, and that a failure changes nothing.

Covers: registry/auth/auth_file_edit.py.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import ssl
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trustme

from fastoci.aio import when_free
from fastoci.errors import (
    ConnectError,
    CredentialError,
    FormatError,
    NotFoundError,
    ReferenceSyntaxError,
    StoreBusyError,
    StoreError,
    UnauthorizedError,
)
from fastoci.registry.auth.auth_file_edit import edit
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import load
from fastoci.registry.login import keep, logged_in, login, logout
from support.attacker import Attacker, scene
from support.helper_programs import HelperProgram
from support.scripted_server import Asked, Raw, Script, answer, as_json, serving, unauthorized

BASIC = "Basic " + base64.b64encode(b"me:hunter2").decode()
KEPT = {"auth": base64.b64encode(b"me:hunter2").decode()}


def basic(asked: Asked) -> Raw:
    return answer() if asked.headers.get("authorization") == BASIC else unauthorized('Basic realm="x"')


def document(path: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(path.read_text())
    return found


@pytest.fixture
def authfile(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "auth.json"


async def test_a_login_is_checked_and_kept_for_its_owner_alone(authfile: Path) -> None:
    async with serving(basic) as server:
        assert await login(server.address, "me", "hunter2", authfile=authfile) is True
        assert server.paths() == ["/v2/", "/v2/"]
    assert document(authfile) == {"auths": {server.address: KEPT}}
    assert stat.S_IMODE(authfile.stat().st_mode) == 0o600
    assert os.listdir(authfile.parent) == ["auth.json"]
    assert await load(authfile, environ={}).find(server.address, "a") == Credential("me", "hunter2")
    assert await logged_in(server.address, authfile=authfile) == "me"
    assert await logged_in("other.test", authfile=authfile) is None


async def test_wrong_credentials_are_not_kept(authfile: Path) -> None:
    async with serving(basic) as server:
        with pytest.raises(UnauthorizedError, match="were not accepted") as caught:
            await login(server.address, "me", "wrong-hunter3", authfile=authfile)
    assert "hunter3" not in str(caught.value)
    assert not authfile.exists()


def tokens(realm: Callable[[], str], status: int = 200) -> Script:
    def script(asked: Asked) -> Raw:
        if asked.path == "/token":
            good = asked.headers.get("authorization") == BASIC
            return as_json({"token": "t0"}, status) if good else as_json({"details": "incorrect password"}, 401)
        if asked.headers.get("authorization") == "Bearer t0":
            return answer()
        return unauthorized(f'Bearer realm="{realm()}",service="svc"')

    return script


async def test_a_token_service_is_asked_as_well(authfile: Path) -> None:
    async with serving(tokens(lambda: f"http://{server.address}/token")) as server:
        assert await login(server.address, "me", "hunter2", authfile=authfile) is True
        with pytest.raises(UnauthorizedError, match="incorrect password"):
            await login(server.address, "me", "wrong", authfile=authfile)
    assert document(authfile)["auths"] == {server.address: KEPT}


async def test_a_token_that_came_without_the_credentials_is_no_login(authfile: Path) -> None:
    async with (
        serving(lambda asked: as_json({"token": "t0"})) as elsewhere,
        serving(tokens(lambda: f"http://{elsewhere.address}/token")) as server,
    ):
        with pytest.raises(UnauthorizedError, match="the credentials were not sent"):
            await login(server.address, "me", "hunter2", authfile=authfile)
        assert elsewhere.asked == []
    assert not authfile.exists()


async def test_a_registry_that_asks_for_nothing_is_told_apart(authfile: Path) -> None:
    async with serving(lambda asked: answer()) as server:
        assert await login(server.address, "me", "hunter2", authfile=authfile) is False
        assert "authorization" not in server.asked[0].headers
    assert document(authfile)["auths"] == {server.address: KEPT}


async def test_what_is_no_registry_gets_no_credentials(authfile: Path) -> None:
    async with serving(lambda asked: answer(404)) as server:
        with pytest.raises(NotFoundError, match="is not a registry"):
            await login(server.address, "me", "hunter2", authfile=authfile)
    with pytest.raises(ConnectError):
        await login(server.address, "me", "hunter2", authfile=authfile)
    assert not authfile.exists()


@pytest.mark.parametrize(
    "host", ["", "registry", "r.test:port", "r.test/UPPER", "a b", "r.test/x:1", "user@r.test", "http://"]
)
async def test_what_is_no_host_is_refused(authfile: Path, host: str) -> None:
    with pytest.raises(ReferenceSyntaxError):
        await login(host, "me", "hunter2", authfile=authfile)
    with pytest.raises(ReferenceSyntaxError):
        await logout(host, authfile=authfile)


async def test_a_login_may_be_for_a_part_of_a_registry(authfile: Path) -> None:
    async with serving(basic) as server:
        await login(f"{server.address}/team", "me", "hunter2", authfile=authfile)
    credentials = load(authfile, environ={})
    assert await credentials.find(server.address, "team/app") == Credential("me", "hunter2")
    assert await credentials.find(server.address, "other/app") is None


async def test_what_else_a_file_holds_stays(authfile: Path) -> None:
    other = {"auths": {"r.test": {"auth": "eDp5"}}, "credHelpers": {"h.test": "x"}, "unknown": [1, {"a": None}]}
    authfile.parent.mkdir()
    authfile.write_text(json.dumps(other))
    authfile.chmod(0o644)
    async with serving(basic) as server:
        await login(server.address, "me", "hunter2", authfile=authfile)
        assert document(authfile) == {**other, "auths": {"r.test": {"auth": "eDp5"}, server.address: KEPT}}
        assert stat.S_IMODE(authfile.stat().st_mode) == 0o600
        assert await logout(server.address, authfile=authfile) == (server.address,)
    assert document(authfile) == other
    assert await logout(server.address, authfile=authfile) == ()


async def test_old_spellings_of_a_host_are_replaced_and_removed(authfile: Path) -> None:
    async with serving(basic) as server:
        old = {f"https://{server.address}/v1/": {}, f"http://{server.address}": {"auth": "eDp5"}}
        authfile.parent.mkdir()
        authfile.write_text(json.dumps({"auths": old}))
        await login(server.address, "me", "hunter2", authfile=authfile)
        assert document(authfile)["auths"] == {f"https://{server.address}/v1/": KEPT}
        await logout(server.address, authfile=authfile)
        assert document(authfile)["auths"] == {}


async def test_logout_of_all_empties_the_file_and_keeps_its_other_members(authfile: Path) -> None:
    edit(authfile, lambda found: found.update(auths={"a.test": KEPT, "b.test/team": KEPT}, HttpHeaders={}) is None)
    assert await logout(None, authfile=authfile) == ("a.test", "b.test/team")
    assert document(authfile) == {"auths": {}, "HttpHeaders": {}}


async def test_logout_makes_no_file(authfile: Path) -> None:
    assert await logout(None, authfile=authfile) == ()
    assert not authfile.parent.exists()


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"XDG_RUNTIME_DIR": "run"}, "run/containers/auth.json"),
        ({"XDG_RUNTIME_DIR": "run", "DOCKER_CONFIG": "docker"}, "docker/config.json"),
        ({"XDG_RUNTIME_DIR": "run", "DOCKER_CONFIG": "docker", "REGISTRY_AUTH_FILE": "named"}, "named"),
    ],
)
async def test_the_file_is_where_the_other_tools_look(tmp_path: Path, environ: dict[str, str], place: str) -> None:
    environ = {name: str(tmp_path / value) for name, value in environ.items()}
    async with serving(basic) as server:
        await login(server.address, "me", "hunter2", environ=environ)
        assert document(tmp_path / place)["auths"] == {server.address: KEPT}
        assert await logged_in(server.address, environ={**environ, "HOME": str(tmp_path)}) == "me"
        assert await logout(server.address, environ=environ) == (server.address,)


async def test_a_file_that_is_none_is_left_as_it_is_and_nobody_is_asked(authfile: Path) -> None:
    authfile.parent.mkdir()
    authfile.write_text('{"auths": hunter2')
    async with serving(basic) as server:
        with pytest.raises(FormatError, match="is not JSON"):
            await login(server.address, "me", "hunter2", authfile=authfile)
        assert server.asked == []
    assert authfile.read_text() == '{"auths": hunter2'


async def test_a_directory_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with serving(basic) as server:
        for place in (tmp_path / "file" / "auth.json", Path("/proc/none/auth.json")):
            with pytest.raises((StoreError, FormatError), match=str(place)):
                await login(server.address, "me", "hunter2", authfile=place)


def test_an_edit_that_fails_leaves_the_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    path.write_text('{"auths": {}}')

    def change(found: dict[str, object]) -> bool:
        found["auths"] = {b"not JSON"}
        return True

    with pytest.raises(TypeError):
        edit(path, change)
    assert path.read_text() == '{"auths": {}}'
    assert os.listdir(tmp_path) == ["auth.json"]


def test_a_file_may_have_the_longest_of_names(tmp_path: Path) -> None:
    authfile = tmp_path / f"{'a' * 250}.json"
    edit(authfile, lambda found: found.update({"one": 1}) is None)
    edit(authfile, lambda found: found.update({"two": 2}) is None)
    assert json.loads(authfile.read_bytes()) == {"one": 1, "two": 2}
    assert os.listdir(tmp_path) == [authfile.name]


def test_a_link_stays_and_what_it_leads_to_is_changed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "auth.json", tmp_path / "auth.json"
    target.write_text("")
    link.symlink_to(target)
    assert edit(link, lambda found: found.update(auths={}) is None)
    assert link.is_symlink()
    assert json.loads(target.read_text()) == {"auths": {}}


async def test_a_helper_keeps_the_secret_instead_of_the_file(
    authfile: Path, helper_program: Callable[..., HelperProgram]
) -> None:
    async with serving(basic) as server:
        helper = helper_program("test", {server.address: ("me", "hunter2")})
        authfile.parent.mkdir()
        authfile.write_text(json.dumps({"credsStore": "test", "auths": {server.address: {"auth": "eDp5"}}}))
        await login(server.address, "me", "hunter2", authfile=authfile, environ=helper.environ)
        (action, given), *others = helper.calls()
        assert action == "store"
        assert json.loads(given) == {"ServerURL": server.address, "Username": "me", "Secret": "hunter2"}
        assert not others
        assert document(authfile)["auths"] == {server.address: {}}  # as docker marks it
        assert await logged_in(server.address, authfile=authfile, environ=helper.environ) == "me"
        assert await logout(None, authfile=authfile, environ=helper.environ) == (server.address,)
        assert helper.calls()[-1] == ("erase", server.address)
    assert document(authfile) == {"credsStore": "test", "auths": {}}


async def test_a_helper_is_not_given_for_a_whole_registry_what_is_for_a_part(
    authfile: Path, helper_program: Callable[..., HelperProgram]
) -> None:
    helper = helper_program("test")
    async with serving(basic) as server:
        authfile.parent.mkdir()
        authfile.write_text(json.dumps({"credsStore": "test"}))
        with pytest.raises(CredentialError, match="whole registries"):
            await login(f"{server.address}/team", "me", "hunter2", authfile=authfile, environ=helper.environ)
    assert not helper.calls()
    assert json.loads(authfile.read_text()) == {"credsStore": "test"}


async def test_a_helper_that_does_not_keep_it_is_an_error_and_the_file_stays(
    authfile: Path, helper_program: Callable[..., HelperProgram]
) -> None:
    helper = helper_program("test", fails="hunter2")
    async with serving(basic) as server:
        authfile.parent.mkdir()
        authfile.write_text(json.dumps({"credHelpers": {server.address: "test"}}))
        before = authfile.read_text()
        with pytest.raises(CredentialError, match="docker-credential-test store") as caught:
            await login(server.address, "me", "hunter2", authfile=authfile, environ=helper.environ)
    assert "hunter2" not in str(caught.value)
    assert authfile.read_text() == before


async def test_docker_hub_is_written_as_each_tool_reads_it(tmp_path: Path) -> None:
    for name, key in (("auth.json", "docker.io"), ("config.json", "https://index.docker.io/v1/")):
        path = tmp_path / name
        await asyncio.to_thread(keep, path, "docker.io", Credential("me", "hunter2"), helper="")
        assert document(path)["auths"] == {key: KEPT}
        assert await load(path, environ={}).find("docker.io", "library/redis") == Credential("me", "hunter2")
        assert await logout("https://index.docker.io/v1/", authfile=path) == ("docker.io",)


@pytest.fixture
def secure(certified: Callable[..., ssl.SSLContext]) -> ssl.SSLContext:
    return certified("registry.test")


async def test_a_registry_with_an_authority_of_its_own_is_trusted_by_a_directory(
    authfile: Path, tmp_path: Path, authority: trustme.CA, secure: ssl.SSLContext, names: dict[str, str]
) -> None:
    names["registry.test"] = "127.0.0.1"
    directory = tmp_path / "certs"
    directory.mkdir()
    authority.cert_pem.write_to_path(directory / "ca.crt")
    async with serving(basic, tls=secure) as server:
        host = f"registry.test:{server.port}"
        with pytest.raises(ConnectError, match="not trusted"):
            await login(host, "me", "hunter2", authfile=authfile)
        assert await login(host, "me", "hunter2", authfile=authfile, cert_dir=directory) is True


async def test_the_certificates_of_a_host_are_those_that_pulls_use(
    authfile: Path, tmp_path: Path, authority: trustme.CA, secure: ssl.SSLContext, names: dict[str, str]
) -> None:
    names["registry.test"] = "127.0.0.1"
    async with serving(basic, tls=secure) as server:
        host = f"registry.test:{server.port}"
        place = Path(os.environ["HOME"]) / ".config/containers/certs.d" / host
        place.mkdir(parents=True)
        authority.cert_pem.write_to_path(place / "ca.crt")
        assert await login(host, "me", "hunter2", authfile=authfile) is True


async def test_a_login_goes_through_the_proxy(authfile: Path, names: dict[str, str]) -> None:
    """A proxy for plain http gets the whole address of what it is asked for."""
    conf = Path(os.environ["HOME"]) / "registries.conf"
    conf.write_text('[[registry]]\nlocation = "registry.test:81"\ninsecure = true\n')
    async with serving(basic) as proxy:
        environ = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(conf), "HTTP_PROXY": f"http://{proxy.address}"}
        assert await login("registry.test:81", "me", "hunter2", authfile=authfile, environ=environ) is True
    assert {asked.headers["host"] for asked in proxy.asked} == {"registry.test:81"}


def add(path: Path, key: str) -> None:
    keep(path, key, Credential("me", "hunter2"), helper="")


async def test_logins_at_once_lose_no_entry_and_leave_no_lock(authfile: Path) -> None:
    names = [f"r{number}.test" for number in range(20)]
    adding = (when_free(partial(asyncio.to_thread, add, authfile, name), within_s=60) for name in names)
    await asyncio.gather(*adding)
    assert sorted(document(authfile)["auths"]) == sorted(names)
    assert os.listdir(authfile.parent) == ["auth.json"]


@pytest.mark.attack
async def test_a_lock_on_the_directory_of_an_auth_file_stops_no_login(authfile: Path) -> None:
    authfile.parent.mkdir()
    directory = os.open(authfile.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # needs no more than permission to read
        add(authfile, "a.test")
    finally:
        os.close(directory)
    assert list(document(authfile)["auths"]) == ["a.test"]


async def test_an_auth_file_that_another_process_changes_is_an_error_in_time(authfile: Path) -> None:
    add(authfile, "a.test")
    found: list[BaseException] = []

    def busy(_: dict[str, object]) -> bool:
        try:
            add(authfile, "b.test")
        except StoreBusyError as error:
            found.append(error)
        return False

    edit(authfile, busy)
    assert "auth.json.lock is locked by another process" in str(found[0])
    assert list(document(authfile)["auths"]) == ["a.test"]


@pytest.mark.attack
def test_secrets_are_not_written_to_a_file_that_another_user_put_there(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, and another user")
    tmp_path.chmod(0o1777)
    (tmp_path / "auth.json").write_text("{}")
    os.chown(tmp_path / "auth.json", 65534, 65534)
    with pytest.raises(StoreError, match="belongs to user 65534"):
        add(tmp_path / "auth.json", "a.test")
    assert (tmp_path / "auth.json").read_text() == "{}"
    assert os.listdir(tmp_path) == ["auth.json"]


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_another_user_of_the_directory_leads_no_login_elsewhere(kind: str) -> None:
    def change(path: Path) -> None:
        with suppress(StoreError, FormatError):
            add(path, "a.test")

    with scene(kind) as at:
        assert Attacker(at).between(change) > 50
        Attacker(at).beside(change, 100)
