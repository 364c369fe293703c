"""Two images compared: by their documents, and by the files that their layers make, wherever these are.

Covers: jobs/compare.py, jobs/merging.py, transfer/spooled_source.py.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import fastoci
from fastoci import FileChange
from fastoci.errors import DigestMismatchError, FormatError, UnpackError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.jobs import compare
from fastoci.jobs.plan import LayerForm
from fastoci.testing.images import Artifact, Image, write_layout
from fastoci.testing.layers import TIME_NS, Entry, Layer, Seeded, directory, hardlink, symlink, whiteout
from fastoci.testing.registry import Registry, serve

LARGE = Seeded(7, 2_500_001, compressibility=0.1)
BASE = [
    directory("etc"),
    Entry("etc/same", data=b"same content"),
    Entry("etc/motd", data=b"hello\n", uid=5),
    Entry("etc/gone", data=b"gone"),
    directory("usr"),
    Entry("usr/large", data=LARGE),
    hardlink("usr/again", "usr/large"),
    symlink("link", "etc/motd"),
]
REBUILT = [replace(entry, mtime_ns=TIME_NS + 5) for entry in BASE]
CHANGES = [
    whiteout("etc/gone"),
    directory("etc", mode=0o700),
    Entry("etc/motd", data=b"HELLO\n", uid=5),
    Entry("etc/new", data=b"new"),
    symlink("link", "etc/new"),
]
OLD = Image.build([Layer.build(BASE, "gzip")])
AGAIN = Image.build([Layer.build(REBUILT, "zstd")])
NEW = Image.build([Layer.build(REBUILT, "zstd"), Layer.build(CHANGES, "gzip")])
CHART = Artifact.build("application/vnd.test.chart", b"a chart")
EXPECTED = {
    "/etc": ("changed", ("mode",)),
    "/etc/gone": ("removed", ()),
    "/etc/motd": ("changed", ("content",)),
    "/etc/new": ("added", ()),
    "/link": ("changed", ("link",)),
}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        for name, image in (("old", OLD), ("again", AGAIN), ("new", NEW), ("chart", CHART)):
            registry.add_image(name, "1", image)
        yield registry


async def files(engine: fastoci.Engine, left: str, right: str) -> list[FileChange]:
    async with engine.comparing(left, right) as comparing:
        return [change async for change in comparing.files()]


def facts(changes: list[FileChange]) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {change.path: (change.change, change.facets) for change in changes}


@pytest.mark.parametrize("layers", ["none", "erofs"])
async def test_files_of_the_store_are_compared(registry: Registry, tmp_path: Path, layers: LayerForm) -> None:
    names = [f"{registry.address}/{name}:1" for name in ("old", "new", "again")]
    async with fastoci.Engine(tmp_path) as engine:
        for name in names:
            await engine.pull(name, layers=fastoci.Layers(layers))
        found = await files(engine, names[0], names[1])
        assert facts(found) == EXPECTED
        assert await files(engine, names[0], names[2]) == []
    motd = found[2]
    assert motd.left is not None
    assert motd.right is not None
    assert (motd.left.path, motd.left.uid, motd.right.size) == ("/etc/motd", 5, 6)
    assert (found[1].right, found[3].left) == (None, None)


async def test_files_of_registries_are_compared_and_each_layer_comes_once(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        left, right = (f"docker://{registry.address}/{name}:1" for name in ("old", "new"))
        assert facts(await files(engine, left, right)) == EXPECTED
        assert await engine.images() == ()
        usage = await engine.usage()
        assert (usage.total.blobs, usage.partial.blobs) == (0, 0)
    asked = Counter(record.path for record in registry.log if "/blobs/" in record.path and record.method == "GET")
    assert set(asked.values()) == {1}


async def test_a_layer_that_both_have_comes_once(tmp_path: Path) -> None:
    base, more = Layer.build(BASE, "gzip"), Layer.build([Entry("etc/motd", data=b"HELLO\n")], "gzip")
    with serve(Registry()) as left, serve(Registry()) as right:
        left.add_image("one", "1", Image.build([base]))
        right.add_image("two", "1", Image.build([base, more]))
        async with fastoci.Engine(tmp_path) as engine:
            found = await files(engine, f"docker://{left.address}/one:1", f"docker://{right.address}/two:1")
        assert facts(found) == {"/etc/motd": ("changed", ("owner", "content"))}
        digest = str(base.descriptor.digest)
        assert sum(record.path.endswith(digest) for registry in (left, right) for record in registry.log) == 1


async def test_what_the_store_has_of_a_registrys_layers_is_not_fetched(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        for name in ("old", "new"):
            await engine.pull(f"{registry.address}/{name}:1")
        asked = sum("/blobs/" in record.path for record in registry.log)
        left, right = (f"docker://{registry.address}/{name}:1" for name in ("old", "new"))
        assert facts(await files(engine, left, right)) == EXPECTED
    assert sum("/blobs/" in record.path for record in registry.log) == asked


async def test_many_files_are_compared_in_batches(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_BATCH", 1)
    async with fastoci.Engine(tmp_path) as engine:
        left, right = (f"docker://{registry.address}/{name}:1" for name in ("old", "new"))
        assert facts(await files(engine, left, right)) == EXPECTED


async def test_images_of_the_same_layers_have_the_same_files_and_none_is_read(
    registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        name = f"docker://{registry.address}/new:1"
        assert await files(engine, name, name) == []
        assert (await engine.compare(name, name)).is_same
    layers = {str(layer.descriptor.digest) for layer in NEW.layers}
    assert not layers & {record.path.rpartition("/")[2] for record in registry.log}


async def test_a_comparison_says_what_documents_say(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        await engine.pull(f"{registry.address}/old:1")
        found = await engine.compare(f"{registry.address}/old:1", f"docker://{registry.address}/new:1")
    assert [(pair.left is not None, pair.right is not None) for pair in found.layers] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert found.fields == ()
    assert not found.is_same


async def test_an_artifact_has_no_files_to_compare(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        left, right = f"docker://{registry.address}/old:1", f"docker://{registry.address}/chart:1"
        assert "artifact_type" in [field.path for field in (await engine.compare(left, right)).fields]
        with pytest.raises(UnsupportedError):
            await files(engine, left, right)


async def test_layers_with_wrong_bytes_show_nothing(registry: Registry, tmp_path: Path) -> None:
    layer = NEW.layers[0]
    assert isinstance(layer.content, bytes)
    registry.add_blob(str(layer.descriptor.digest), layer.content[:-100] + bytes(100))
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises((FormatError, DigestMismatchError)):
            await files(engine, f"docker://{registry.address}/old:1", f"docker://{registry.address}/new:1")


async def test_layers_that_are_not_of_their_diff_id_show_nothing(tmp_path: Path) -> None:
    other = Image.build([Layer.build([Entry("other")], "gzip")])
    manifest = OLD.manifest.replace(str(Digest.of(OLD.config)).encode(), str(Digest.of(other.config)).encode())
    lying = replace(OLD, manifest=manifest, config=other.config)
    with serve(Registry()) as registry:
        registry.add_image("lying", "1", lying)
        registry.add_image("new", "1", NEW)
        async with fastoci.Engine(tmp_path) as engine:
            with pytest.raises(DigestMismatchError):
                await files(engine, f"docker://{registry.address}/lying:1", f"docker://{registry.address}/new:1")


async def test_a_layer_that_would_leave_its_root_is_refused(tmp_path: Path) -> None:
    evil = Image.build([Layer.build([Entry("../../evil", data=b"x")])])
    with serve(Registry()) as registry:
        registry.add_image("evil", "1", evil)
        registry.add_image("new", "1", NEW)
        async with fastoci.Engine(tmp_path) as engine:
            with pytest.raises(UnpackError):
                await files(engine, f"docker://{registry.address}/evil:1", f"docker://{registry.address}/new:1")


async def test_no_file_and_no_descriptor_is_left(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "store") as engine:
        await engine.compare(f"docker://{registry.address}/old:1", f"docker://{registry.address}/old:1")
        before = len(os.listdir("/proc/self/fd"))
        left, right = (f"docker://{registry.address}/{name}:1" for name in ("old", "new"))
        async with engine.comparing(left, right) as comparing:
            async for _ in comparing.files():
                break
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # connections
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 100_000] == []


async def test_a_layout_and_a_registry_are_compared(registry: Registry, tmp_path: Path) -> None:
    write_layout({"old": OLD}, tmp_path / "layout")
    async with fastoci.Engine(tmp_path / "store") as engine:
        found = await files(engine, f"oci:{tmp_path}/layout:old", f"docker://{registry.address}/new:1")
    assert facts(found) == EXPECTED
