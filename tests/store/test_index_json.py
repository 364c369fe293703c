"""``index.json``: ours kept up to date, theirs kept; and other tools read the store."""

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.layout import REF_NAME
from fastoci.image.mediatype import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from fastoci.image.stored_image import StoredImage
from fastoci.store.index_json import foreign, update_index
from support.store_shelf import Shelf

AMD64 = Descriptor.of(b"a", OCI_MANIFEST)
ARM64 = Descriptor.of(b"b", OCI_MANIFEST)
TOP = Descriptor.of(b"index", OCI_INDEX)
FOREIGN = {
    "mediaType": OCI_MANIFEST,
    "digest": str(ARM64.digest),
    "size": 1,
    "annotations": {REF_NAME: "theirs"},
    "io.example.unknown": {"kept": True},
}


def _update(shelf: Shelf) -> bool:
    return update_index(shelf.store._paths, shelf.store.refs)


def _entries(shelf: Shelf) -> list[dict[str, object]]:
    entries = json.loads((shelf.path / "index.json").read_bytes())["manifests"]
    assert isinstance(entries, list)
    return entries


def _write(shelf: Shelf, *entries: dict[str, object]) -> None:
    (shelf.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


def _names(shelf: Shelf) -> list[tuple[object, object]]:
    return [
        (entry["annotations"][REF_NAME], entry["digest"])  # type: ignore[index]
        for entry in _entries(shelf)
    ]


def test_one_platform_is_shown_as_its_manifest_and_more_as_the_index(shelf: Shelf) -> None:
    shelf.store.refs.set(StoredImage("example.com/one:1", TOP, {"linux/amd64": AMD64}, ""))
    shelf.store.refs.set(StoredImage("example.com/two:1", TOP, {"linux/amd64": AMD64, "linux/arm64": ARM64}, ""))
    assert _update(shelf)
    assert _names(shelf) == [("example.com/one:1", str(AMD64.digest)), ("example.com/two:1", str(TOP.digest))]


def test_nothing_is_written_when_nothing_changed(shelf: Shelf) -> None:
    assert not _update(shelf)
    shelf.store.refs.set(StoredImage("example.com/one:1", AMD64, {}, ""))
    assert _update(shelf)
    before = (shelf.path / "index.json").stat()
    assert not _update(shelf)
    assert (shelf.path / "index.json").stat().st_ino == before.st_ino


def test_a_moved_name_moves_its_entry(shelf: Shelf) -> None:
    for descriptor in (AMD64, ARM64):
        shelf.store.refs.set(StoredImage("example.com/one:1", descriptor, {}, ""))
        _update(shelf)
        assert _names(shelf) == [("example.com/one:1", str(descriptor.digest))]


def test_foreign_entries_and_fields_stay_as_they_are(shelf: Shelf) -> None:
    document = {"schemaVersion": 2, "manifests": [FOREIGN], "annotations": {"a": "b"}}
    (shelf.path / "index.json").write_text(json.dumps(document))
    shelf.store.refs.set(StoredImage("example.com/one:1", AMD64, {}, ""))
    _update(shelf)
    after = json.loads((shelf.path / "index.json").read_bytes())
    assert after["manifests"][0] == FOREIGN
    assert _names(shelf)[1:] == [("example.com/one:1", str(AMD64.digest))]
    assert {**after, "manifests": [FOREIGN]} == document


def test_a_name_that_another_tool_took_stays_theirs(shelf: Shelf) -> None:
    shelf.store.refs.set(StoredImage("theirs", AMD64, {}, ""))
    (shelf.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [FOREIGN]}))
    assert not _update(shelf)
    assert _entries(shelf) == [FOREIGN]


def test_an_entry_under_our_name_whose_image_is_not_here_does_not_hide_ours(shelf: Shelf) -> None:
    shelf.store.refs.set(StoredImage("example.com/one:1", AMD64, {}, ""))
    _update(shelf)
    [entry] = _entries(shelf)
    repacked = {**entry, "digest": str(ARM64.digest)}  # umoci repack, with our annotations carried along
    _write(shelf, repacked)
    assert _update(shelf)
    assert _entries(shelf) == [entry]


async def test_an_entry_of_another_tool_becomes_a_reference_and_keeps_its_name(shelf: Shelf) -> None:
    top, _ = await _put_image(shelf)
    theirs = {**encode(top), "annotations": {REF_NAME: "theirs", "a": "b"}, "io.example.unknown": 1}
    _write(shelf, theirs)
    assert _update(shelf)
    ref = shelf.store.refs.get("docker.io/library/theirs:latest")
    assert ref.descriptor.digest == top.digest
    assert {name: image.digest for name, image in ref.images.items()} == {"linux/amd64": top.digest}
    [entry] = _entries(shelf)
    assert {**theirs, "annotations": None} == {**entry, "annotations": None}
    assert entry["annotations"][REF_NAME] == "theirs"  # type: ignore[index]
    assert not _update(shelf)
    assert foreign(shelf.store.paths) == []


@pytest.mark.attack
async def test_an_entry_of_another_tool_whose_manifest_is_damaged_becomes_no_reference(shelf: Shelf) -> None:
    """Its bytes may parse, and name anything."""
    top, raw = await _put_image(shelf)
    shelf.file(top).chmod(0o644)
    shelf.file(top).write_bytes(raw.replace(b" ", b"\t"))
    theirs = {**encode(top), "annotations": {REF_NAME: "theirs"}}
    _write(shelf, theirs)
    _update(shelf)
    assert list(shelf.store.refs.list()[0]) == []
    assert _entries(shelf) == [theirs]


async def test_a_reference_that_was_adopted_and_removed_does_not_come_back(shelf: Shelf) -> None:
    top, _ = await _put_image(shelf)
    _write(shelf, {**encode(top), "annotations": {REF_NAME: "theirs"}})
    _update(shelf)
    Path(shelf.store.paths.ref_path("docker.io/library/theirs:latest")).unlink()
    assert _update(shelf)
    assert _entries(shelf) == []
    assert shelf.store.refs.list() == ((), ())


async def test_what_another_tool_wrote_under_our_name_moves_it(shelf: Shelf) -> None:
    top, _ = await _put_image(shelf)
    shelf.store.refs.set(StoredImage("example.com/one:1", AMD64, {}, "2026-01-01T00:00:00Z"))
    _write(shelf, {**encode(top), "annotations": {REF_NAME: "example.com/one:1"}})
    _update(shelf)
    assert shelf.store.refs.get("example.com/one:1").descriptor.digest == top.digest
    assert _names(shelf) == [("example.com/one:1", str(top.digest))]


async def test_a_name_pulled_since_stays_ours_and_their_image_stays_by_digest(shelf: Shelf) -> None:
    top, _ = await _put_image(shelf)
    _write(shelf, {**encode(top), "annotations": {REF_NAME: "example.com/one:1"}})
    shelf.store.refs.set(StoredImage("example.com/one:1", AMD64, {}, "2999-01-01T00:00:00Z"))
    _update(shelf)
    by_digest = f"example.com/one@{top.digest}"
    assert shelf.store.refs.get("example.com/one:1").descriptor.digest == AMD64.digest
    assert _names(shelf) == [("example.com/one:1", str(AMD64.digest)), (by_digest, str(top.digest))]
    assert not _update(shelf)


async def test_of_several_images_under_one_name_the_first_has_it_and_none_is_lost(shelf: Shelf) -> None:
    first, raw = await _put_image(shelf)
    second = await shelf.put(raw + b"\n", media_type=OCI_MANIFEST)
    _write(shelf, *({**encode(top), "annotations": {REF_NAME: "example.com/one:1"}} for top in (first, second)))
    for _ in range(3):
        _update(shelf)
        by_digest = (f"example.com/one@{second.digest}", str(second.digest))
        assert _names(shelf) == [("example.com/one:1", str(first.digest)), by_digest]
        assert [ref.name for ref in shelf.store.refs.list()[0]] == ["example.com/one:1", by_digest[0]]


async def test_entries_that_are_no_references_are_roots(shelf: Shelf) -> None:
    top, _ = await _put_image(shelf)
    nameless, odd = encode(top), {**encode(top), "annotations": {REF_NAME: "NOT A NAME"}}
    _write(shelf, nameless, odd)
    assert not _update(shelf)
    assert _entries(shelf) == [nameless, odd]
    assert [link.digest for link in foreign(shelf.store.paths)] == [str(top.digest)] * 2


async def test_a_tag_that_umoci_gave_to_our_image_is_a_reference_of_its_own(
    shelf: Shelf, peer: Callable[[str], str]
) -> None:
    top, _ = await _put_image(shelf)
    await shelf.record(StoredImage("example.com/x:tag", top, {"linux/amd64": top}, ""))
    await shelf.store.update_index()
    _run(peer("umoci"), "tag", "--image", f"{shelf.path}:example.com/x:tag", "also-theirs")
    await shelf.store.update_index()
    names = [ref.name for ref in shelf.store.refs.list()[0]]
    assert names == ["docker.io/library/also-theirs:latest", "example.com/x:tag"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\0\0", b'{"schemaVersion":2,"manifests":[{}]}'])
def test_an_index_that_does_not_parse_is_left_as_it_is(shelf: Shelf, content: bytes) -> None:
    (shelf.path / "index.json").write_bytes(content)
    shelf.store.refs.set(StoredImage("example.com/one:1", AMD64, {}, ""))
    with pytest.raises(StoreError, match="not an index") as caught:
        _update(shelf)
    assert caught.value.path == str(shelf.path / "index.json")
    assert (shelf.path / "index.json").read_bytes() == content


def test_a_lost_index_comes_back(shelf: Shelf) -> None:
    shelf.store.refs.set(StoredImage("example.com/one:1", AMD64, {}, ""))
    (shelf.path / "index.json").unlink()
    assert _update(shelf)
    assert _names(shelf) == [("example.com/one:1", str(AMD64.digest))]


def test_with_a_thousand_references_only_foreign_entries_are_listed(shelf: Shelf) -> None:
    shelf.store.refs.set(StoredImage("example.com/one:1", AMD64, {}, ""))
    (shelf.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [FOREIGN]}))
    _update(shelf)
    assert len(_entries(shelf)) == 2
    many = shelf.path / "refs" / "zz"
    many.mkdir()
    for number in range(999):
        (many / f"{number:064x}").touch()
    assert _update(shelf)
    assert _entries(shelf) == [FOREIGN]


async def _put_image(shelf: Shelf) -> tuple[Descriptor, bytes]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("hello.txt")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    layer = stream.getvalue()
    packed = gzip.compress(layer, mtime=0)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(shelf.describe(layer).digest)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": encode(await shelf.put(json.dumps(config).encode(), media_type=OCI_CONFIG)),
        "layers": [encode(await shelf.put(packed, media_type="application/vnd.oci.image.layer.v1.tar+gzip"))],
    }
    raw = json.dumps(manifest).encode()
    return await shelf.put(raw, media_type=OCI_MANIFEST), raw


def _run(*command: str | Path) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


async def test_skopeo_reads_the_store(shelf: Shelf, peer: Callable[[str], str], tmp_path: Path) -> None:
    top, raw = await _put_image(shelf)
    for name in ("127.0.0.1:5000/library/x:tag", f"example.com/y@{top.digest}"):
        await shelf.record(StoredImage(name, top, {"linux/amd64": top}, ""))
    await shelf.store.update_index()
    skopeo = peer("skopeo")
    for name in ("127.0.0.1:5000/library/x:tag", f"example.com/y@{top.digest}"):
        assert _run(skopeo, "inspect", "--raw", f"oci:{shelf.path}:{name}") == raw
    source = f"oci:{shelf.path}:127.0.0.1:5000/library/x:tag"
    _run(skopeo, "--insecure-policy", "copy", source, f"dir:{tmp_path}/copy")
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == raw


async def test_umoci_reads_the_store(shelf: Shelf, peer: Callable[[str], str], tmp_path: Path) -> None:
    top, _ = await _put_image(shelf)
    await shelf.record(StoredImage("127.0.0.1:5000/library/x:tag", top, {"linux/amd64": top}, ""))
    await shelf.store.update_index()
    umoci = peer("umoci")
    assert _run(umoci, "ls", "--layout", shelf.path).decode().split() == ["127.0.0.1:5000/library/x:tag"]
    image = f"{shelf.path}:127.0.0.1:5000/library/x:tag"
    _run(umoci, "unpack", "--rootless", "--image", image, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "rootfs" / "hello.txt").read_text() == "hello"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: skopeo writes to blobs that are there, which are 0444")
async def test_what_skopeo_and_umoci_write_into_the_store_stays(
    shelf: Shelf, peer: Callable[[str], str], tmp_path: Path
) -> None:
    top, _ = await _put_image(shelf)
    await shelf.record(StoredImage("127.0.0.1:5000/library/x:tag", top, {"linux/amd64": top}, ""))
    await shelf.store.update_index()
    source = f"oci:{shelf.path}:127.0.0.1:5000/library/x:tag"
    _run(peer("skopeo"), "--insecure-policy", "copy", source, f"oci:{shelf.path}:theirs")
    _run(peer("umoci"), "tag", "--image", f"{shelf.path}:127.0.0.1:5000/library/x:tag", "also-theirs")
    await shelf.store.update_index()
    names = {name for name, _ in _names(shelf)}
    assert names == {"theirs", "also-theirs", "127.0.0.1:5000/library/x:tag"}
