"""Files of an image are listed, read and exported without a tree of them: from blobs, from layer files, from both."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import DigestMismatchError, FormatError, ImagePathError, IntegrityError, UnpackError
from fastoci.image.digest import Digest
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, Seeded, directory, hardlink, opaque, symlink, whiteout
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, listing

LARGE = Seeded(7, 3_000_001)
BASE = [
    directory("etc", mode=0o750),
    Entry("etc/passwd", data=b"root:x:0:0\n", uid=5, gid=6),
    Entry("etc/gone", data=b"gone"),
    directory("usr"),
    directory("usr/lib"),
    Entry("usr/lib/large", data=LARGE, mode=0o755),
    hardlink("usr/lib/same", "usr/lib/large"),
    symlink("lib", "usr/lib"),
    symlink("passwd", "/etc/passwd"),
    symlink("nowhere", "../../../etc/shadow"),
    Entry("fifo", kind="fifo"),
]
ABOVE = [
    whiteout("etc/gone"),
    directory("etc", mode=0o755),
    Entry("etc/passwd", data=b"root:x:0:0\nme:x:1:1\n"),
    opaque("usr/share"),
    Entry("usr/share/new", data=b"new", mtime_ns=1_600_000_000_123_456_789),
    Entry("café\udcff\x1b[31m", data=b"hostile"),
]
LAYERS = [Layer.build(BASE), Layer.build(ABOVE, "zstd"), Layer.build([]), Layer.build(ABOVE, "zstd")]
IMAGE = Image.build(LAYERS)
Stored = Callable[[], AbstractAsyncContextManager[fastoci.Image]]


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", IMAGE)
        yield registry


@pytest.fixture(params=["none", "erofs", "some"])
def stored(request: pytest.FixtureRequest, registry: Registry, tmp_path: Path) -> Stored:
    """An image of a store that has no layer files, all with merged metadata, or the first one alone."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[fastoci.Image]:
        async with fastoci.Engine(tmp_path / "store") as engine:
            image = await engine.pull(f"{registry.address}/app:1")
            if request.param != "none":
                await image.make_layers(fastoci.Layers("erofs"))
            if request.param == "some":
                (tmp_path / "store/images" / f"{IMAGE.descriptor.digest.hex}.erofs").unlink()
                for layer in LAYERS[1:]:
                    for path in (tmp_path / "store/layers").rglob(f"{layer.diff_id.hex}.erofs"):
                        path.unlink()
            yield image

    return opened


async def test_files_are_those_that_unpack_makes(stored: Stored, tmp_path: Path) -> None:
    async with stored() as image:
        await image.unpack(tmp_path / "tree")
        nodes = {f"/{node.path}": node for node in listing(tmp_path / "tree")}
        with await image.files() as files:
            found = {file.path: file for file in files.walk()}
            assert set(found) == {"/", *nodes}
            for path, node in nodes.items():
                file = found[path]
                assert (file.kind, file.mode, file.link) == (node.kind, node.mode, node.link)
                assert file.size == (node.size if node.kind != "symlink" else len(node.link))
                if os.geteuid() == 0:
                    assert (file.uid, file.gid) == (node.uid, node.gid)
            assert found["/usr/share/new"].mtime_ns == 1_600_000_000_123_456_789
            assert [file.path for file in files.list("/lib/")] == ["/usr/lib/large", "/usr/lib/same"]


async def test_a_file_is_read_through_links_inside_the_root(stored: Stored) -> None:
    async with stored() as image:
        with await image.open("passwd") as file:
            assert file.read() == b"root:x:0:0\nme:x:1:1\n"
        with await image.open("lib/same") as file:
            content = b"".join(LARGE.chunks())
            assert file.read() == content
            assert file.seek(2_000_000) == 2_000_000
            assert file.read(100) == content[2_000_000:2_000_100]


async def test_what_cannot_be_read_is_a_typed_error(stored: Stored) -> None:
    async with stored() as image:
        for path in ("etc/gone", "nowhere", "etc", "fifo", "etc/passwd/x"):
            with pytest.raises(ImagePathError) as caught:
                await image.open(path)
            assert (caught.value.path, caught.value.exit_code) == (path, 3)


async def test_the_tar_unpacks_to_the_same_tree(stored: Stored, tmp_path: Path) -> None:
    async with stored() as image:
        await image.unpack(tmp_path / "tree")
        (tmp_path / "again").mkdir()
        with await image.tar() as tar:
            (tmp_path / "tar").write_bytes(tar.read())
        await fastoci.apply(tmp_path / "again", [tmp_path / "tar"])
        wrong = differences(listing(tmp_path / "tree"), listing(tmp_path / "again"))
        assert [line for line in wrong if "mtime_ns" not in line] == []  # of a directory that no layer names
        assert len(wrong) <= 1


async def test_the_tar_of_a_path_has_that_alone(stored: Stored) -> None:
    async with stored() as image:
        with await image.tar("lib") as tar, tarfile.open(fileobj=io.BytesIO(tar.read())) as found:
            assert found.getnames() == ["usr/lib", "usr/lib/large", "usr/lib/same"]


async def test_what_was_opened_outlives_the_engine(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        image = await engine.pull(f"{registry.address}/app:1")
        files, file, tar = await image.files(), await image.open("passwd"), await image.tar("etc")
    with files, file, tar:
        assert files.stat("etc/passwd").size == len(file.read())
        assert len(tar.read()) % 512 == 0
    left = [path for path in tmp_path.rglob("*") if path.name.startswith("tmp")]
    assert left == []


async def test_nothing_of_a_layer_is_seen_that_is_not_what_its_diff_id_says(tmp_path: Path) -> None:
    wrong = Image.build([LAYERS[0]])
    other = Digest.of(b"another tar")
    image = Image(
        *(wrong.manifest, wrong.media_type, wrong.config.replace(LAYERS[0].diff_id.hex.encode(), other.hex.encode())),
        *(wrong.config_type, wrong.layers, wrong.platform),
    )
    image = with_config(image)
    with serve(Registry()) as registry:
        registry.add_image("bad", "1", image)
        async with fastoci.Engine(tmp_path) as engine:
            pulled = await engine.pull(f"{registry.address}/bad:1")
            for work in (pulled.files, pulled.tar, lambda: pulled.open("etc/passwd")):
                with pytest.raises(DigestMismatchError, match=other.hex):
                    await work()


def with_config(image: Image) -> Image:
    """The image with a manifest that fits its config."""
    manifest = image.manifest
    old = Image.build(image.layers).config
    manifest = manifest.replace(Digest.of(old).hex.encode(), Digest.of(image.config).hex.encode())
    return Image(manifest, image.media_type, image.config, image.config_type, image.layers, image.platform)


async def test_a_layer_that_unpack_refuses_is_refused(tmp_path: Path) -> None:
    bad = Image.build([LAYERS[0], Layer.build([Entry("../../etc/evil", data=b"x")])])
    with serve(Registry()) as registry:
        registry.add_image("bad", "1", bad)
        async with fastoci.Engine(tmp_path) as engine:
            pulled = await engine.pull(f"{registry.address}/bad:1")
            with pytest.raises(UnpackError, match="evil"):
                await pulled.files()


async def test_a_damaged_blob_is_fetched_again(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        image = await engine.pull(f"{registry.address}/app:1")
        blob = tmp_path / "blobs/sha256" / LAYERS[0].descriptor.digest.hex
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 0xFF
        blob.unlink()
        blob.write_bytes(data)
        with await image.open("etc/passwd") as file:
            assert file.read().startswith(b"root")
    async with fastoci.Engine(tmp_path) as engine:
        stored = await engine.image(f"{registry.address}/app:1")
        blob.unlink()
        blob.write_bytes(data)
        with pytest.raises((IntegrityError, FormatError)):
            await stored.files()


async def test_metadata_of_other_layers_are_refused(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "store") as engine:
        image = await engine.pull(f"{registry.address}/app:1")
        await image.make_layers(fastoci.Layers("erofs"))
        path = tmp_path / "store/images" / f"{IMAGE.descriptor.digest.hex}.erofs"
        data = path.read_bytes().replace(LAYERS[0].diff_id.hex.encode(), b"0" * 64)
        path.unlink()
        path.write_bytes(data)
        with pytest.raises(FormatError, match="names other layers"):
            await image.files()
