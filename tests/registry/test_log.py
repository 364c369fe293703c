"""What the loggers ``fastoci.registry.*`` say at DEBUG: every request and decision, and no secret."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.errors import FastociError
from fastoci.image.reference import Reference
from fastoci.registry.auth.credentials import load
from fastoci.registry.client import Registry
from fastoci.registry.fetch.retry import RetryPolicy
from support.scripted_mirrors import BLOB, BLOB_DESCRIPTOR, INDEX, MANIFEST, SIZE, endpoint
from support.scripted_server import Asked, Buffers, Raw, answer, as_json, drain, serving

PASSWORD, REFRESH, TOKEN = "pa55word+of/me", "r3fresh-t0ken", "t0ken.of.the.registry"
SIGNATURE, HEADER = "s1gnature%2Fof%3Dstorage", "h3ader-of-an-endpoint"
SECRETS = [
    PASSWORD,
    REFRESH,
    TOKEN,
    SIGNATURE,
    "s1gnature/of=storage",
    HEADER,
    base64.b64encode(f"me:{PASSWORD}".encode()).decode(),
]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "fastoci"):
        yield caplog


def texts(records: list[logging.LogRecord]) -> list[str]:
    formatter = logging.Formatter("%(name)s: %(message)s")
    return [formatter.format(record) for record in records if record.name.startswith("fastoci")]


def check(records: list[logging.LogRecord]) -> list[str]:
    """All texts of the log, in which no secret is, nor in what they are made of."""
    found = texts(records)
    for record in records:
        for secret in SECRETS:
            assert secret not in f"{record.getMessage()} {record.args!r} {record.exc_text} {record.exc_info!r}"
    return found


def auth_file(path: Path, host: str, identity_token: bool) -> Path:
    entry = {"auth": base64.b64encode(f"me:{PASSWORD}".encode()).decode()}
    if identity_token:
        entry = {"identitytoken": REFRESH}
    path.write_text(json.dumps({"auths": {host: entry}}))
    return path


class Site:
    """A registry with a token service, whose blobs are behind signed addresses; each in trouble once."""

    def __init__(self, *, hostile: bool = False) -> None:
        self.hostile = hostile  # repeats all that it is sent
        self.registry = self.storage = ""
        self.trouble = {"storage": 2, "cut": 1, "registry": 1}

    def _once(self, what: str) -> bool:
        self.trouble[what] -= 1
        return self.trouble[what] >= 0

    def api(self, asked: Asked) -> Raw:
        if asked.path.startswith("/token"):
            if self.hostile:
                words = f"{asked.path} {asked.headers} {asked.body.decode()}"
                return as_json({"message": f"no: {words}"}, status=403)
            return as_json({"token": TOKEN, "expires_in": 300})
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            realm = f'Bearer realm="http://{self.registry}/token",service="s"'
            return answer(401, headers={"WWW-Authenticate": realm})
        if "/manifests/" in asked.path:
            if self._once("registry"):
                return answer(503)
            return MANIFEST
        return answer(307, headers={"Location": f"http://{self.storage}/data?X-Amz-Signature={SIGNATURE}&a=b"})

    def data(self, asked: Asked) -> Raw:
        if self.hostile or self._once("storage"):
            return as_json({"message": f"expired: {asked.path}"}, status=403)
        if self._once("cut"):
            return Raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + BLOB[:2_000_000], "close")
        first = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        head = {"Content-Range": f"bytes {first}-{SIZE - 1}/{SIZE}"}
        return answer(206, BLOB[first:], head) if first else answer(body=BLOB)


@pytest.mark.attack
@pytest.mark.parametrize("identity_token", [False, True])
async def test_a_pull_with_credentials_and_signed_redirects_leaves_no_secret_in_the_log(
    identity_token: bool, log: pytest.LogCaptureFixture, tmp_path: Path, buffers: Buffers
) -> None:
    site = Site()
    site.trouble["storage"] = 1
    async with serving(site.api) as registry, serving(site.data) as storage:
        site.registry, site.storage = registry.address, storage.address
        file = auth_file(tmp_path / "auth.json", registry.address, identity_token)
        client = Registry(credentials=load(file, environ={}), retry=RetryPolicy(rng=lambda: 0.0))
        async with client:
            reference = Reference.parse(f"{registry.address}/team/app:1")
            where = [endpoint(registry.address, origin=True, headers=(("X-Key", HEADER),))]
            source = client.repository_at(reference, where, image="app:1")
            assert (await source.resolve(reference))[1] == INDEX
            assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
    said = "\n".join(check(log.records))
    api, digest = f"http://{registry.address}", BLOB_DESCRIPTOR.digest
    assert f"config.files: {file}: read this auth file" in said
    assert f"auth.credentials: {registry.address}/team/app: credentials: {file}" in said
    assert f"auth.tokens: 127.0.0.1: token for ('repository:team/app:pull',) from {api}/token, with the" in said
    assert f"http.transport: GET {api}/v2/team/app/manifests/1: 503, 0 bytes announced, after 0." in said
    assert f"http.transport: GET {api}/v2/team/app/manifests/1: 200, {len(INDEX)} bytes announced, after 0." in said
    assert f"http.reply: GET {api}/v2/team/app/manifests/1: {len(INDEX)} bytes of the body in 0." in said
    assert f"http.transport: GET http://{storage.address}/data: 403," in said
    assert f"http.reply: GET http://{storage.address}/data: {SIZE - 2_000_000} bytes of the body in 0." in said
    assert f"fetch.failover: app:1: candidate {api}/v2 is chosen; against it: nothing" in said
    assert f"fetch.resuming_range: app:1 {digest}: goes on at 2000000 after {api}/v2: the body ended" in said


@pytest.mark.attack
@pytest.mark.parametrize("identity_token", [False, True])
async def test_what_a_hostile_server_repeats_of_secrets_is_not_logged(
    identity_token: bool, log: pytest.LogCaptureFixture, tmp_path: Path, buffers: Buffers
) -> None:
    site = Site(hostile=True)
    async with serving(site.api) as registry, serving(site.data) as storage:
        site.registry, site.storage = registry.address, storage.address
        file = auth_file(tmp_path / "auth.json", registry.address, identity_token)
        async with Registry(credentials=load(file, environ={}), retry=RetryPolicy(rng=lambda: 0.0)) as client:
            reference = Reference.parse(f"{registry.address}/team/app:1")
            with pytest.raises(FastociError) as caught:
                await client.repository(reference).resolve(reference)
            site.hostile = False
            await client.repository(reference).resolve(reference)
            site.hostile = True
            with pytest.raises(FastociError) as expired:
                await drain(client.repository(reference).fetch(BLOB_DESCRIPTOR, 0, buffers))
    check(log.records)
    assert expired.value.retryable
    assert not any(secret in f"{caught.value} {expired.value}" for secret in SECRETS)


async def test_who_is_against_a_candidate_and_why_is_in_the_log(log: pytest.LogCaptureFixture) -> None:
    async with serving(lambda asked: MANIFEST) as origin:
        async with serving(lambda asked: answer()) as gone:
            dead = gone.address
        async with Registry(credentials=load(environ={}), retry=RetryPolicy(rng=lambda: 0.0)) as client:
            reference = Reference.parse(f"{origin.address}/team/app:1")
            where = [endpoint(dead), endpoint(origin.address, origin=True)]
            for _ in range(2):
                await client.repository_at(reference, where, image="app:1").resolve(reference)
    said = "\n".join(check(log.records))
    assert f"app:1: candidate http://{dead}/v2 is chosen; against it: nothing" in said
    assert f"GET http://{dead}/v2/team/app/manifests/1: connection refused by {dead}, after 0." in said
    assert f"app:1: candidate http://{dead}/v2 is in reserve; against it: ['it is unreachable']" in said


async def test_nothing_is_logged_that_nobody_wants(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(lambda asked: MANIFEST) as server, Registry(credentials=load(environ={})) as client:
        reference = Reference.parse(f"{server.address}/team/app:1")
        await client.repository(reference).resolve(reference)
    assert texts(caplog.records) == []
