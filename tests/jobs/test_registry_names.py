"""Images of the store in registries, by an engine: pushed, named again, taken away."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fastoci import CopyOptions, Engine
from fastoci.errors import BlobNotFoundError, NotFoundError, PlatformError, ReferenceSyntaxError, UnsupportedError
from fastoci.events import Event, Warned
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry, serve
from fastoci.testing.uploads import Uploads
from support.images import made

LAYER = Layer.build(made(1, files=2, size=2000))
IMAGE = Image.build([LAYER, Layer.build(made(2, files=1, size=1000))])
OTHER = Image.build([LAYER], platform=Platform("linux", "arm64", "v8"))
INDEX = Index.build([IMAGE, OTHER])


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "pushed").mkdir()
    return Uploads(tmp_path / "pushed")


@pytest.fixture
def registry(uploads: Uploads) -> Iterator[Registry]:
    with serve(Registry(uploads=uploads)) as registry:
        yield registry


@pytest.fixture
def app() -> Iterator[str]:
    """An image in another registry."""
    registry = Registry()
    registry.add_image("app", "1", INDEX)
    with serve(registry):
        yield f"{registry.address}/app:1"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with Engine(tmp_path / "store") as engine:
        yield engine


async def test_the_platform_that_the_store_has_is_pushed_and_can_be_pulled(
    registry: Registry, app: str, engine: Engine, tmp_path: Path
) -> None:
    target = f"{registry.address}/team/copy:2"
    await engine.pull(app, platform="linux/amd64")
    pushed = await engine.push(app, target)
    assert (pushed.descriptor.digest, pushed.brought) == (IMAGE.descriptor.digest, 3)
    assert (await engine.push(app, target)).there == 3
    async with Engine(tmp_path / "other") as other:
        assert (await other.pull(target, platform="linux/amd64")).manifest_descriptor.digest == IMAGE.descriptor.digest


async def test_the_whole_index_is_pushed_where_the_store_has_it(registry: Registry, app: str, engine: Engine) -> None:
    target = f"{registry.address}/team/copy:2"
    await engine.pull_platforms(app, ["all"])
    assert (await engine.push(app, target)).descriptor.digest == INDEX.descriptor.digest
    one = await engine.push(app, f"{registry.address}/team/copy:arm", platforms=["linux/arm64"])
    assert (one.descriptor.digest, one.sent) == (OTHER.descriptor.digest, 0)
    with pytest.raises(BlobNotFoundError):
        await engine.push("registry.test/absent:1", target)


async def test_blobs_of_another_repository_of_the_registry_are_mounted(
    registry: Registry, app: str, engine: Engine
) -> None:
    base = f"{registry.address}/team/base:1"
    await engine.copy(f"docker://{app}", f"docker://{base}", CopyOptions(platforms=("all",)))
    copied = await engine.copy(
        f"docker://{base}", f"docker://{registry.address}/team/next:1", CopyOptions(platforms=("all",))
    )
    assert (copied.mounted, copied.sent, copied.descriptor.digest) == (4, 0, INDEX.descriptor.digest)


async def test_an_image_that_is_there_costs_one_request_a_blob_and_no_bytes(
    registry: Registry, app: str, engine: Engine, uploads: Uploads
) -> None:
    target = f"{registry.address}/team/copy:2"
    await engine.pull(app, platform="linux/amd64")
    await engine.push(app, target)
    before, received = len(registry.log), uploads.received
    await engine.push(app, target)
    asked = [record.method for record in registry.log[before:]]
    assert sorted(asked) == ["GET", *["HEAD"] * 5, "PUT"], "for the blobs, the manifest, and its tag"
    assert uploads.received == received


async def test_a_tag_is_given_and_taken_away(registry: Registry, app: str, engine: Engine) -> None:
    name = f"{registry.address}/team/app"
    await engine.copy(f"docker://{app}", f"docker://{name}:1", CopyOptions(platforms=("all",)))
    assert (await engine.tag(f"{name}:1", f"{name}:2")).digest == INDEX.descriptor.digest
    await engine.tag(f"{name}@{IMAGE.descriptor.digest}", f"{name}:amd64")
    assert await engine.tags(name) == ("1", "2", "amd64")
    await engine.delete(f"{name}:1")
    assert await engine.tags(name) == ("2", "amd64")
    await engine.delete(f"{name}@{IMAGE.descriptor.digest}")
    assert await engine.tags(name) == ("2",)
    with pytest.raises(NotFoundError):
        await engine.delete(f"{name}:1")
    with pytest.raises(NotFoundError):
        await engine.tag(f"{name}:1", f"{name}:3")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("h/other:2", "`fastoci copy docker://docker.io/h/app:1 docker://docker.io/h/other:2` brings the image there"),
        ("other:2", "docker.io/library/other, and a tag stays in its repository, docker.io/h/app"),
        ("h/app@sha256:" + "0" * 64, "no digest"),
        ("h/app:", "is not a tag"),
        ("", "empty"),
        ("-x", "is not a tag"),
        ("app", "write docker.io/h/app:latest or docker.io/h/app:app"),
    ],
)
async def test_a_tag_stays_in_its_repository(target: str, message: str, engine: Engine) -> None:
    with pytest.raises(ReferenceSyntaxError, match=re.escape(message)):
        await engine.tag("h/app:1", target)


async def test_a_tag_alone_is_one_of_the_repository(registry: Registry, app: str, engine: Engine) -> None:
    name = f"{registry.address}/team/app"
    await engine.copy(f"docker://{app}", f"docker://{name}:1", CopyOptions(platforms=("all",)))
    for tag in ("latest", "v1.2", "UPPER"):
        assert (await engine.tag(f"{name}:1", tag)).digest == INDEX.descriptor.digest
    assert sorted(await engine.tags(name)) == ["1", "UPPER", "latest", "v1.2"]


@pytest.mark.parametrize("reference", ["h/app", f"h/app:1@sha256:{'0' * 64}"], ids=["neither", "both"])
async def test_what_is_to_go_is_named_by_a_tag_or_a_digest(reference: str, engine: Engine) -> None:
    with pytest.raises(ReferenceSyntaxError, match="name the tag"):
        await engine.delete(reference)


async def test_a_registry_that_deletes_no_tags_says_what_to_do(
    registry: Registry, app: str, engine: Engine, uploads: Uploads
) -> None:
    uploads.faults.deletes = "by digest"
    name = f"{registry.address}/team/app:1"
    await engine.copy(f"docker://{app}", f"docker://{name}", CopyOptions(platforms=("all",)))
    with pytest.raises(UnsupportedError, match="takes away the manifest, with all its tags"):
        await engine.delete(name)


async def test_all_of_a_stored_image_is_what_the_store_has_of_it_and_says_so(
    registry: Registry, app: str, tmp_path: Path
) -> None:
    whole, events = CopyOptions(platforms=("all",)), list[Event]()
    async with Engine(tmp_path / "store", observer=events.append) as engine:
        await engine.pull(app, platform="linux/arm64")
        copied = await engine.copy(f"store:{app}", f"oci:{tmp_path}/a:one", whole)
        assert copied.descriptor.digest == OTHER.descriptor.digest
        (warned,) = [each.message for each in events if isinstance(each, Warned)]
        assert warned.startswith("not all of it is in the store, which has linux/arm64")
        with pytest.raises(UnsupportedError, match="not all of it is in the store"):
            exact = CopyOptions(platforms=("all",), preserve_digests=True)
            await engine.copy(f"store:{app}", f"oci:{tmp_path}/a:two", exact)
        await engine.pull(app, platform="linux/amd64")
        copied = await engine.copy(f"store:{app}", f"oci:{tmp_path}/a:all", whole)
        assert copied.descriptor.digest == INDEX.descriptor.digest
        by_digest = await engine.copy(f"store:{OTHER.descriptor.digest}", f"oci:{tmp_path}/a:arm", whole)
        pushed = await engine.push(str(OTHER.descriptor.digest), f"{registry.address}/team/arm:1")
        assert {by_digest.descriptor.digest, pushed.descriptor.digest} == {OTHER.descriptor.digest}
    assert len([each for each in events if isinstance(each, Warned)]) == 1


async def test_of_three_platforms_two_that_are_there_get_an_index_of_theirs(registry: Registry, tmp_path: Path) -> None:
    index = Index.build([IMAGE, OTHER, Image.build([LAYER], platform=Platform("linux", "s390x"))])
    origin = Registry()
    origin.add_image("app", "1", index)
    with serve(origin):
        async with Engine(tmp_path / "store") as engine:
            name = f"{origin.address}/app:1"
            await engine.pull_platforms(name, ["linux/amd64", "linux/arm64"])
            copied = await engine.copy(f"store:{name}", f"oci:{tmp_path}/a", CopyOptions(platforms=("all",)))
            pushed = await engine.push(name, f"{registry.address}/team/app:1")
            rows = json.loads((tmp_path / "a/blobs/sha256" / copied.descriptor.digest.hex).read_bytes())["manifests"]
    assert pushed.descriptor.digest == copied.descriptor.digest
    assert [row["digest"] for row in rows] == [str(IMAGE.descriptor.digest), str(OTHER.descriptor.digest)]


async def test_a_platform_that_the_store_lacks_is_told_and_no_other_taken(
    app: str, engine: Engine, tmp_path: Path
) -> None:
    await engine.pull(app, platform="linux/arm64")
    with pytest.raises(PlatformError, match=f"fastoci pull {app} --platform linux/amd64` brings it"):
        await engine.copy(f"store:{app}", f"oci:{tmp_path}/a", CopyOptions(platforms=("linux/amd64",)))


async def test_an_index_of_one_image_is_copied_whole_on_request(tmp_path: Path) -> None:
    index, origin = Index.build([IMAGE]), Registry()
    origin.add_image("app", "1", index)
    with serve(origin):
        async with Engine(tmp_path / "store") as engine:
            name = f"{origin.address}/app:1"
            await engine.pull(name, platform="linux/amd64")
            copied = await engine.copy(f"store:{name}", f"oci:{tmp_path}/a", CopyOptions(platforms=("all",)))
    assert copied.descriptor.digest == index.descriptor.digest
