"""Disk usage by descriptors: unique, shared, of nobody, elsewhere, missing.

Covers: store/graph.py.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastoci import files
from fastoci.directory import Directory
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.graph import tops_of
from fastoci.image.mediatype import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from fastoci.image.stored_image import StoredImage
from fastoci.store import graph
from fastoci.store.graph import names, reached, reader, size_of
from fastoci.store.usage import Amount, usage
from support.store_shelf import Shelf


async def image(shelf: Shelf, name: str, config: Descriptor, *layers: Descriptor) -> Descriptor:
    form = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": encode(config),
        "layers": list(map(encode, layers)),
    }
    manifest = await shelf.put(json.dumps(form).encode(), media_type=OCI_MANIFEST)
    shelf.store.refs.set(StoredImage(name, manifest, {"linux/amd64": manifest}, "2026-01-01T00:00:00Z"))
    return manifest


async def layer(shelf: Shelf, data: bytes) -> Descriptor:
    return await shelf.put(data, media_type=OCI_LAYER)


async def test_each_blob_counts_once_and_for_those_who_need_it(shelf: Shelf) -> None:
    config = await shelf.put(b"config", media_type=OCI_CONFIG)
    common, own, stray = await layer(shelf, b"c" * 100), await layer(shelf, b"o" * 10), await layer(shelf, b"s" * 7)
    one = await image(shelf, "example.com/one:1", config, common, own)
    two = await image(shelf, "example.com/two:1", config, common)
    result = usage(shelf.store.paths)
    assert result.shared == Amount(2, 106)
    assert result.unique == Amount(3, 10 + one.size + two.size)
    assert result.reclaimable == Amount(1, stray.size)
    assert result.missing == result.elsewhere == result.partial == Amount()
    first, second = result.references
    assert (first.name, first.held, first.unique) == (
        "example.com/one:1",
        Amount(4, 116 + one.size),
        Amount(2, 10 + one.size),
    )
    assert second.unique == Amount(1, two.size)
    refs, broken = shelf.store.refs.list()
    assert [size_of(ref, reader([shelf.store.paths])) for ref in refs] == [116, 106] and not broken


async def test_only_blobs_of_nobody_are_looked_at(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    config, needed = await shelf.put(b"config", media_type=OCI_CONFIG), await layer(shelf, b"needed")
    stray = await layer(shelf, b"stray")
    await image(shelf, "example.com/one:1", config, needed)
    looked: list[str] = []
    stat = os.stat

    def counted(name: str, **how: Any) -> os.stat_result:
        looked.append(name)
        return stat(name, **how)

    monkeypatch.setattr(os, "stat", counted)
    usage(shelf.store.paths)
    blobs = {blob.digest.hex for blob in (config, needed, stray)}
    assert [name for name in looked if name in blobs] == [stray.digest.hex]


async def test_what_is_missing_and_what_is_elsewhere_is_told(
    shelf: Shelf, tmp_path: Path, open_shelf: Callable[[Path], Shelf]
) -> None:
    base = open_shelf(tmp_path / "base")
    config, there = await shelf.put(b"config", media_type=OCI_CONFIG), await layer(base, b"there")
    lost = shelf.describe(b"lost")
    await image(shelf, "example.com/one:1", config, there, lost)
    result = usage(shelf.store.paths, [base.store.paths])
    assert (result.elsewhere, result.missing) == (Amount(1, 5), Amount(1, 4))
    assert result.references[0].missing == Amount(1, 4)


async def test_platforms_that_were_not_pulled_are_not_missing(shelf: Shelf) -> None:
    manifest = await image(shelf, "example.com/x:1", await shelf.put(b"config", media_type=OCI_CONFIG))
    other = Descriptor.of(b"arm", OCI_MANIFEST)
    raw = json.dumps({"schemaVersion": 2, "manifests": [encode(manifest), encode(other)]}).encode()
    top = await shelf.put(raw, media_type=OCI_INDEX)
    shelf.store.refs.set(StoredImage("example.com/x:1", top, {"linux/amd64": manifest}, ""))
    [ref] = shelf.store.refs.list()[0]
    there = names(shelf.store.paths)
    walk = reached(tops_of(ref), reader([shelf.store.paths]), lambda link: link.digest in there)
    found = {link.digest: needed for link, needed in walk}
    assert str(other.digest) not in found and all(found.values()) and len(found) == 3
    assert usage(shelf.store.paths).missing == Amount()


async def test_broken_references_and_foreign_files_are_named_and_survived(shelf: Shelf) -> None:
    await image(shelf, "example.com/one:1", await shelf.put(b"config", media_type=OCI_CONFIG))
    (shelf.path / "refs" / "zz").mkdir()
    (shelf.path / "refs" / "zz" / ("1" * 64)).write_text("{}")
    os.mkfifo(shelf.path / "refs" / "zz" / ("2" * 64))
    (shelf.path / "refs" / "zz" / "notes").write_text("foreign")
    (shelf.path / "blobs" / "sha256" / "README").write_text("hello")
    (shelf.path / "blobs" / "sha256" / ("z" * 64)).write_text("hello")
    result = usage(shelf.store.paths)
    assert len(result.broken) == 2 and len(result.references) == 1
    assert len(names(shelf.store.paths)) == 2 and result.reclaimable == Amount()


async def test_what_other_tools_listed_is_not_reclaimable(shelf: Shelf) -> None:
    manifest = await image(shelf, "example.com/one:1", await shelf.put(b"config", media_type=OCI_CONFIG))
    before = usage(shelf.store.paths)
    shelf.store.refs.remove("example.com/one:1")
    absent = shelf.describe(b"absent")
    view = {"schemaVersion": 2, "manifests": [encode(manifest), {**encode(absent), "mediaType": OCI_CONFIG}]}
    (shelf.path / "index.json").write_text(json.dumps(view))
    after = usage(shelf.store.paths)
    assert (after.unique, after.reclaimable, after.missing) == (before.unique, Amount(), Amount())
    assert after.references == ()
    (shelf.path / "index.json").write_text("{")
    assert len(usage(shelf.store.paths).broken) == 1


async def test_downloads_that_were_begun_are_partial(shelf: Shelf) -> None:
    data = shelf.random(1000)
    ingest = await shelf.store.blobs.begin(shelf.describe(data))
    assert ingest is not None
    shelf.feed(ingest, data, until=400)
    assert usage(shelf.store.paths).partial == Amount(1, 400)
    await ingest.abort()


async def index(shelf: Shelf, *entries: Descriptor, note: str = "") -> Descriptor:
    form = {"schemaVersion": 2, "manifests": list(map(encode, entries)), "annotations": {"note": note}}
    return await shelf.put(json.dumps(form).encode(), media_type=OCI_INDEX)


@pytest.mark.attack
async def test_a_reference_that_leads_to_very_many_blobs_is_named_and_the_others_count(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_OTHERS", 100)
    config, needed = await shelf.put(b"config", media_type=OCI_CONFIG), await layer(shelf, b"needed")
    manifest = await image(shelf, "example.com/wide:1", config, needed)
    many = [Descriptor.of(str(number).encode(), OCI_MANIFEST) for number in range(40)]
    levels = [await index(shelf, *many, note=str(number)) for number in range(3)]
    top = await index(shelf, manifest, *levels)
    shelf.store.refs.set(StoredImage("example.com/wide:1", top, {"linux/amd64": manifest}, "2026-01-01T00:00:00Z"))
    result = usage(shelf.store.paths)
    assert [str(error) for error in result.broken] == [
        "example.com/wide:1 leads to more than 100 blobs that it does not need"
    ]
    assert result.missing == Amount()
    assert result.references[0].held.size >= 12 + manifest.size + top.size


@pytest.mark.attack
async def test_a_document_that_an_index_names_a_thousand_times_is_read_once(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = await index(shelf)
    for depth in range(3):
        level = await index(shelf, *[level] * 1000, note=str(depth))
    shelf.store.refs.set(StoredImage("example.com/deep:1", level, {}, "2026-01-01T00:00:00Z"))
    reads: list[str] = []
    read = files.read_small

    def counted(directory: Directory, name: str, limit: int) -> bytes | None:
        reads.append(name)
        return read(directory, name, limit)

    monkeypatch.setattr(files, "read_small", counted)
    result = usage(shelf.store.paths)
    assert (result.unique.blobs, result.broken) == (4, ())
    assert len(reads) == 4  # each document


@pytest.mark.attack
async def test_a_document_too_large_counts_as_absent_and_what_it_names_as_nobodys(shelf: Shelf) -> None:
    config, needed = await shelf.put(b"config", media_type=OCI_CONFIG), await layer(shelf, b"needed")
    form = {"schemaVersion": 2, "config": encode(config), "layers": [encode(needed)], "x": "y" * (4 << 20)}
    large = await shelf.put(json.dumps(form).encode(), media_type=OCI_MANIFEST)
    shelf.store.refs.set(StoredImage("example.com/large:1", large, {"linux/amd64": large}, "2026-01-01T00:00:00Z"))
    assert usage(shelf.store.paths).reclaimable == Amount(2, 12)
    assert usage(shelf.store.paths, limit=8 << 20).reclaimable == Amount()
