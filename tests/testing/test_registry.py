"""The loopback registry, asked over real connections by aiohttp's client.

Covers: server/http.py, server/pull_api.py, testing/auth.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from fastoci.server.pull_api import byte_range
from fastoci.testing.auth import Basic, Bearer, Cdn
from fastoci.testing.faults.certificates import Authority
from fastoci.testing.images import Image, Index, write_layout
from fastoci.testing.layers import Entry, Layer, from_seed
from fastoci.testing.registry import Record, Registry, serve

CONTENT = bytes(range(256)) * 4


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with Registry() as running:
        running.add_blob("sha256:aa", CONTENT)
        (tmp_path / "blob").write_bytes(CONTENT)
        running.add_blob("sha256:bb", tmp_path / "blob")
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("", None),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-", (2, 10)),
        ("bytes=2-99", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=9-9", (9, 10)),
        ("bytes=10-", (10, 10)),
        ("bytes=11-12", (11, 10)),
        ("bytes=-0", (10, 10)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=0-1,3-4", None),
        ("items=0-1", None),
        ("bytes=0-1x", None),
        ("bytes=\u0661-", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_ranges_are_read_as_rfc_9110_has_them(wanted: str, part: tuple[int, int] | None) -> None:
    assert byte_range(wanted, 10) == part


def test_no_range_of_an_empty_blob_can_be_satisfied() -> None:
    for wanted in ("bytes=0-", "bytes=0-0", "bytes=-5"):
        part = byte_range(wanted, 0)
        assert part is not None and part[0] >= part[1]


@pytest.mark.parametrize("digest", ["sha256:aa", "sha256:bb"])
@pytest.mark.parametrize(
    ("wanted", "status", "content_range", "body"),
    [
        ("", 200, None, CONTENT),
        ("bytes=0-9", 206, "bytes 0-9/1024", CONTENT[:10]),
        ("bytes=1000-", 206, "bytes 1000-1023/1024", CONTENT[1000:]),
        ("bytes=-24", 206, "bytes 1000-1023/1024", CONTENT[1000:]),
        ("bytes=1024-", 416, "bytes */1024", b""),
        ("bytes=7-3", 200, None, CONTENT),
    ],
)
async def test_a_blob_is_served_whole_and_in_parts(
    registry: Registry,
    client: aiohttp.ClientSession,
    digest: str,
    wanted: str,
    status: int,
    content_range: str | None,
    body: bytes,
) -> None:
    headers = {"Range": wanted} if wanted else {}
    async with client.get(f"http://{registry.address}/v2/a/b/blobs/{digest}", headers=headers) as response:
        assert response.status == status
        assert response.headers.get("Content-Range") == content_range
        assert response.headers["Docker-Content-Digest"] == digest
        assert await response.read() == body
    assert registry.log == [Record("GET", f"/v2/a/b/blobs/{digest}", wanted, status, "")]


async def test_head_announces_what_get_sends_and_ignores_ranges(
    registry: Registry, client: aiohttp.ClientSession
) -> None:
    url = f"http://{registry.address}/v2/a/blobs/sha256:bb"
    async with client.head(url, headers={"Range": "bytes=0-1"}) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "1024")
    async with client.get(url) as response:  # the connection is still in step
        assert await response.read() == CONTENT


async def test_an_image_is_served_by_tag_and_by_digest(registry: Registry, client: aiohttp.ClientSession) -> None:
    image = Image.build([Layer.build([Entry("f")])])
    registry.add_image("library/app", "1.0", image)
    for reference in ("1.0", str(image.descriptor.digest)):
        async with client.get(f"http://{registry.address}/v2/library/app/manifests/{reference}") as response:
            assert await response.read() == image.manifest
            assert response.headers["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
            assert response.headers["Docker-Content-Digest"] == str(image.descriptor.digest)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/app/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("/v2/app/blobs/sha256:cc", 404, "BLOB_UNKNOWN"),
        ("/v2/app//x/blobs/sha256:aa", 400, "NAME_INVALID"),
        ("/v2/none/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/app/tags/1", 404, "NAME_UNKNOWN"),
        ("/v1/", 404, "UNSUPPORTED"),
        ("/token", 404, "UNSUPPORTED"),
    ],
)
async def test_refusals_carry_an_error_document(
    registry: Registry, client: aiohttp.ClientSession, path: str, status: int, code: str
) -> None:
    async with client.get(f"http://{registry.address}{path}") as response:
        assert response.status == status
        assert (await response.json())["errors"][0]["code"] == code


async def test_the_tags_of_a_repository_are_listed(registry: Registry, client: aiohttp.ClientSession) -> None:
    registry.add_manifest("app", "1", "a/b", b"{}")
    registry.add_manifest("app", "sha256:" + "0" * 64, "a/b", b"{}")
    async with client.get(f"http://{registry.address}/v2/app/tags/list?n=1000") as response:
        assert await response.json() == {"name": "app", "tags": ["1"]}


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
async def test_writes_are_not_allowed(registry: Registry, client: aiohttp.ClientSession, method: str) -> None:
    async with client.request(method, f"http://{registry.address}/v2/a/manifests/x", data=b"{}") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


async def test_basic_authentication_wants_the_right_password(client: aiohttp.ClientSession) -> None:
    async with Registry(Basic("me", "secret:word")) as registry:
        url = f"http://{registry.address}/v2/"
        async with client.get(url) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Basic ")
        async with client.get(url, headers=basic("me", "wrong")) as response:
            assert response.status == 401
        async with client.get(url, headers=basic("me", "secret:word")) as response:
            assert response.status == 200
        assert [record.authorization for record in registry.log] == ["", "Basic", "Basic"]


async def test_a_bearer_token_is_good_for_its_scope_until_it_expires(client: aiohttp.ClientSession) -> None:
    now = [1000.0]
    async with Registry(Bearer("me", "pw", life_s=60, clock=lambda: now[0])) as registry:
        registry.add_blob("sha256:aa", b"x")
        blob = f"http://{registry.address}/v2/app/blobs/sha256:aa"
        async with client.get(blob) as response:
            challenge = response.headers["WWW-Authenticate"]
            assert challenge == (
                f'Bearer realm="http://{registry.address}/token",service="fastoci.testing",scope="repository:app:pull"'
            )
        realm = f"http://{registry.address}/token?scope=repository:app:pull"
        async with client.get(realm) as response:
            assert response.status == 401
        async with client.get(realm, headers=basic("me", "pw")) as response:
            answer = await response.json()
        headers = {"Authorization": f"Bearer {answer['token']}"}
        async with client.get(blob, headers=headers) as response:
            assert response.status == 200
        async with client.get(blob.replace("/app/", "/other/"), headers=headers) as response:
            assert response.status == 401
            assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]
        now[0] += answer["expires_in"]
        async with client.get(blob, headers=headers) as response:
            assert response.status == 401
            assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


async def test_without_a_user_anybody_gets_a_token(client: aiohttp.ClientSession) -> None:
    async with Registry(Bearer()) as registry:
        async with client.get(f"http://{registry.address}/token?service=x") as response:
            token = (await response.json())["token"]
        async with client.get(
            f"http://{registry.address}/v2/", headers={"Authorization": f"Bearer {token}"}
        ) as response:
            assert response.status == 200


async def test_a_token_is_given_by_post_for_a_password_or_an_identity_token(client: aiohttp.ClientSession) -> None:
    async with Registry(Bearer("me", "pw", identity_token="id")) as registry:
        url, scope = f"http://{registry.address}/token", {"scope": "repository:app:pull"}
        for fields, status in (
            ({"grant_type": "password", "username": "me", "password": "pw"}, 200),
            ({"grant_type": "password", "username": "me", "password": "no"}, 401),
            ({"grant_type": "refresh_token", "refresh_token": "id"}, 200),
            ({"grant_type": "refresh_token", "refresh_token": ""}, 401),
            ({"grant_type": "refresh_token"}, 401),
        ):
            async with client.post(url, data={**scope, **fields}) as response:
                assert response.status == status, fields
                answer = await response.json()
            if status == 200:
                assert answer["token"] == answer["access_token"] and answer["token"] in registry.secrets
                headers = {"Authorization": f"Bearer {answer['token']}"}
                async with client.get(f"http://{registry.address}/v2/", headers=headers) as response:
                    assert response.status == 200


async def test_an_identity_token_can_be_good_for_one_token(client: aiohttp.ClientSession) -> None:
    async with Registry(Bearer("me", "pw", identity_token="id", once=True)) as registry:
        url, given = f"http://{registry.address}/token", "id"
        for _ in range(2):
            fields = {"grant_type": "refresh_token", "refresh_token": given}
            async with client.post(url, data=fields) as response:
                assert response.status == 200
                given = (await response.json())["refresh_token"]
            async with client.post(url, data=fields) as response:
                assert response.status == 401


async def test_a_token_can_be_good_for_some_requests(client: aiohttp.ClientSession) -> None:
    async with Registry(Bearer(uses=2)) as registry:
        headers = {"Authorization": f"Bearer {registry.token('app')}"}
        statuses = []
        for _ in range(3):
            async with client.get(f"http://{registry.address}/v2/", headers=headers) as response:
                statuses.append(response.status)
        assert statuses == [200, 200, 401]


async def test_blobs_can_be_redirected_to_signed_addresses_of_another_host(client: aiohttp.ClientSession) -> None:
    async with Registry(Basic("me", "pw"), cdn=Cdn(uses=1)) as registry:
        registry.add_blob("sha256:aa", CONTENT)
        url = f"http://{registry.address}/v2/app/blobs/sha256:aa"
        async with client.get(url, headers=basic("me", "pw"), allow_redirects=False) as response:
            assert (response.status, await response.read()) == (307, b"")
            location = response.headers["Location"]
        assert location.startswith(f"http://{registry.cdn_address}/blobs/sha256:aa?")
        async with client.get(location, headers={"Range": "bytes=1-2"}) as response:
            assert (response.status, await response.read()) == (206, CONTENT[1:3])
        async with client.get(location) as response:
            assert response.status == 403
        async with client.get(location.partition("?")[0]) as response:
            assert response.status == 403
        assert [record.host for record in registry.log] == ["registry", "cdn", "cdn", "cdn"]
        assert location.rpartition("=")[2] in registry.secrets


async def test_a_registry_can_speak_tls(client: aiohttp.ClientSession) -> None:
    authority = Authority()
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    async with Registry(Bearer(), tls=authority.context(["127.0.0.1"])) as registry:
        response = await client.get(f"https://{registry.address}/v2/", ssl=trust)
        response.release()
        assert response.status == 401
        assert f'realm="https://{registry.address}/token"' in response.headers["WWW-Authenticate"]


async def test_a_tls_handshake_at_a_plain_port_is_answered_at_once(registry: Registry) -> None:
    host, _, port = registry.address.partition(":")
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection(host, int(port), ssl=ssl.create_default_context())


async def test_a_client_that_leaves_in_mid_body_hurts_nobody(
    registry: Registry, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(256 << 20)
    registry.add_blob("sha256:dd", big)
    for _ in range(3):
        async with client.get(f"http://{registry.address}/v2/a/blobs/sha256:dd") as response:
            await response.content.readexactly(1 << 20)
            response.close()
    async with client.get(f"http://{registry.address}/v2/") as response:
        assert response.status == 200


def test_serve_runs_on_a_thread_that_ends() -> None:
    threads = threading.active_count()
    with serve(Registry()) as registry:
        registry.add_blob("sha256:aa", CONTENT)
        with urllib.request.urlopen(f"http://{registry.address}/v2/a/blobs/sha256:aa", timeout=10) as response:
            assert response.read() == CONTENT
    assert threading.active_count() == threads
    assert [record.status for record in registry.log] == [200]


def test_a_layout_is_served_by_the_command(tmp_path: Path) -> None:
    images = [Image.build([Layer.build(from_seed(seed, files=3, size=100))]) for seed in (1, 2)]
    layout: dict[str, Image | Index] = {"app": images[0], "127.0.0.1:5000/team/tool:v2": Index.build(images)}
    write_layout(layout, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "fastoci.testing.registry", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert [process.stdout.readline().strip() for _ in layout] == [
            f"{address}/app:latest",
            f"{address}/team/tool:v2",
        ]
        with urllib.request.urlopen(f"http://{address}/v2/team/tool/manifests/v2", timeout=10) as response:
            index = json.load(response)
        for entry in index["manifests"]:
            url = f"http://{address}/v2/team/tool/manifests/{entry['digest']}"
            with urllib.request.urlopen(url, timeout=10) as response:
                manifest = json.load(response)
            url = f"http://{address}/v2/app/blobs/{manifest['layers'][0]['digest']}"
            with urllib.request.urlopen(url, timeout=10) as response:
                assert len(response.read()) == manifest["layers"][0]["size"]
        process.terminate()
        assert process.wait(10) == 0


def test_a_directory_that_is_no_layout_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastoci.testing.registry", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr and "Traceback" not in done.stderr
