"""Layers that no registry may distribute: fetched where the image says, on request, as what a stranger names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

import fastoci
from conftest import Cli
from fastoci.errors import FastociError, IntegrityError, NotFoundError, RegistryError, UnauthorizedError
from fastoci.image import mediatype
from fastoci.image.descriptor import encode
from fastoci.server.http import Request
from fastoci.server.pull_api import Answer
from fastoci.testing.auth import Basic
from fastoci.testing.faults.certificates import Authority
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry

LAYER = Layer.build([Entry("windows", "file", b"base")])
DIGEST = LAYER.descriptor.digest
USER, PASSWORD = "puller", "correct horse battery"


class Elsewhere(Registry):
    """A host that has the layer, and may say something else."""

    says: Answer | None = None

    async def answer(self, request: Request, host: str) -> Answer:
        """An answer."""
        return self.says or await super().answer(request, host)


class Scene:
    """A registry that lacks the layer of its image, and another host that has it."""

    def __init__(self, registry: Registry, elsewhere: Elsewhere, store: Path) -> None:
        self.registry = registry
        self.elsewhere = elsewhere
        self.store = store
        self.lacks = True
        elsewhere.add_blob(str(DIGEST), _bytes())
        self.urls = [f"https://{elsewhere.address}/v2/base/blobs/{DIGEST}"]

    def serve(self) -> str:
        built = Image.build([LAYER])
        form = json.loads(built.manifest)
        form["layers"] = [{**encode(LAYER.descriptor), "mediaType": mediatype.OCI_FOREIGN_GZIP, "urls": self.urls}]
        self.registry.add_image("app", "1", replace(built, manifest=json.dumps(form).encode()))
        if self.lacks:
            self.registry.remove_blob(str(DIGEST))
        return f"{self.registry.address}/app:1"

    def engine(self, *, allowed: bool) -> fastoci.Engine:
        options = fastoci.RegistryOptions(
            tls_verify=False, download_foreign_layers=allowed, creds=(USER, PASSWORD), retries=0
        )
        return fastoci.Engine(self.store, registry=options)

    async def pull(self, *, allowed: bool = True) -> list[str]:
        rootfs = self.store.parent / "rootfs"
        async with self.engine(allowed=allowed) as engine:
            await engine.pull(self.serve(), rootfs=rootfs, platform="linux/amd64")
        return [path.name for path in rootfs.iterdir()]


def _bytes() -> bytes:
    return LAYER.content if isinstance(LAYER.content, bytes) else LAYER.content.read_bytes()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    trust = Authority().context(["127.0.0.1"])
    async with Registry(Basic(USER, PASSWORD)) as registry, Elsewhere(tls=trust) as elsewhere:
        yield Scene(registry, elsewhere, tmp_path / "store")


async def test_a_foreign_layer_comes_from_where_the_image_says_without_credentials(scene: Scene) -> None:
    assert await scene.pull() == ["windows"]
    assert {record.authorization for record in scene.elsewhere.log} == {""}
    assert "Basic" in {record.authorization for record in scene.registry.log}


async def test_the_second_address_is_asked_when_the_first_lacks_the_layer(scene: Scene) -> None:
    scene.urls.insert(0, f"https://{scene.elsewhere.address}/v2/base/blobs/sha256:{'0' * 64}")
    assert await scene.pull() == ["windows"]


async def test_a_foreign_layer_is_not_asked_for_unless_that_is_allowed(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match="--download-foreign-layers allows") as caught:
        await scene.pull(allowed=False)
    assert scene.urls[0] in str(caught.value)
    assert scene.elsewhere.log == []


async def test_a_layer_that_the_registry_has_is_not_asked_for_elsewhere(scene: Scene) -> None:
    scene.lacks = False
    assert await scene.pull() == ["windows"]
    assert scene.elsewhere.log == []


REFUSED: dict[str, tuple[Callable[[Scene], Answer | None], type[FastociError], str]] = {
    "other bytes": (
        lambda scene: Answer(200, {}, b"x" * LAYER.descriptor.size, 0, LAYER.descriptor.size),
        IntegrityError,
        "expected sha256",
    ),
    "fewer bytes": (lambda scene: Answer(200, {}, b"x", 0, 1), IntegrityError, "expected"),
    "a request for credentials": (
        lambda scene: Answer(401, {"WWW-Authenticate": 'Basic realm="x"'}),
        UnauthorizedError,
        "which gets no credentials",
    ),
    "a redirect to plain http": (
        lambda scene: Answer(307, {"Location": f"http://{scene.registry.address}/"}),
        RegistryError,
        "from https to http",
    ),
    "a redirect to the metadata service": (
        lambda scene: Answer(307, {"Location": "https://169.254.169.254/latest/meta-data"}),
        RegistryError,
        "loopback, link-local or metadata",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_another_host_does_is_refused(scene: Scene, name: str) -> None:
    says, error, text = REFUSED[name]
    scene.elsewhere.says = says(scene)
    with pytest.raises(error, match=text):
        await scene.pull()
    assert not (scene.store.parent / "rootfs" / "windows").exists()


@pytest.mark.parametrize("scheme", ["http", "file", "ftp", ""])
async def test_an_address_that_is_not_https_is_not_asked(scene: Scene, scheme: str) -> None:
    scene.urls = [scene.urls[0].replace("https", scheme)]
    with pytest.raises(NotFoundError, match="none of its addresses is https"):
        await scene.pull()
    assert scene.elsewhere.log == []


async def test_the_metadata_service_is_not_asked_on_the_word_of_an_image(scene: Scene) -> None:
    scene.urls = ["https://169.254.169.254/latest/meta-data"]
    with pytest.raises(RegistryError, match="refused, the server sends this request to"):
        await scene.pull()


async def test_the_command_has_the_option(scene: Scene, cli: Cli) -> None:
    name = scene.serve()
    given = ["--store", str(scene.store), "--tls-verify", "false", "--platform", "linux/amd64"]
    environ = {"FASTOCI_CREDS": f"{USER}:{PASSWORD}"}
    refused = await asyncio.to_thread(cli, "pull", name, *given, environ=environ)
    assert (refused.returncode, "--download-foreign-layers allows" in refused.stderr) == (3, True), refused.stderr
    done = await asyncio.to_thread(cli, "pull", name, *given, "--download-foreign-layers", environ=environ)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_copy_to_a_layout_leaves_foreign_layers_where_they_are_unless_they_are_wanted(
    scene: Scene, tmp_path: Path, allowed: bool
) -> None:
    name = scene.serve()
    async with scene.engine(allowed=allowed) as engine:
        await engine.copy(f"docker://{name}", f"oci:{tmp_path}/layout:app", fastoci.CopyOptions(platforms=("all",)))
    assert (tmp_path / "layout/blobs/sha256" / DIGEST.hex).exists() == allowed
    assert bool(scene.elsewhere.log) == allowed
    manifest = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"][0]
    assert manifest["digest"] == str((await scene.registry.manifest("app", "1")).digest)  # type: ignore[union-attr]


async def test_the_store_takes_foreign_layers_or_nothing(scene: Scene) -> None:
    name = scene.serve()
    async with scene.engine(allowed=False) as engine:
        with pytest.raises(NotFoundError, match="--download-foreign-layers allows"):
            await engine.copy(f"docker://{name}", "store:registry.test/app")
        assert await engine.images() == ()
    async with scene.engine(allowed=True) as engine:
        await engine.copy(f"docker://{name}", "store:registry.test/app")
        assert [image.name for image in await engine.images()] == ["registry.test/app:latest"]
