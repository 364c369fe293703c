"""Writing images into a user's OCI layout.

Covers: image_interfaces.py, layouts/layout_files.py.
"""

import asyncio
import fcntl
import gzip
import hashlib
import io
import json
import logging
import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from fastoci import _core, files, locks, path_walk
from fastoci.aio import when_free
from fastoci.errors import BlobNotFoundError, DigestMismatchError, StoreBusyError, StoreError
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.layout import OCI_LAYOUT, REF_NAME
from fastoci.image.mediatype import OCI_CONFIG, OCI_MANIFEST
from fastoci.image_interfaces import WholeImage
from fastoci.layouts.layout_files import LayoutFiles
from fastoci.layouts.oci_layout import OciLayout
from fastoci.store.store import Store
from fastoci.stream.verify import Verifier, hash_buffers
from fastoci.testing.suites.image_sink import StoreFiles, bring
from support.attacker import Attacker, scene
from support.streaming import OwnStreams, run_hashing

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Image:
    """An image of one small layer, whose blobs a store holds."""

    store: Store
    top: Descriptor
    blobs: tuple[Descriptor, ...]

    def file(self, blob: Descriptor) -> Path:
        return self.store.path / "blobs" / "sha256" / blob.digest.hex


def _put(store: Store, data: bytes, media_type: str) -> Descriptor:
    blob = Descriptor.of(data, media_type)
    path = store.path / "blobs" / "sha256" / blob.digest.hex
    path.write_bytes(data)
    path.chmod(0o444)
    return blob


def _make(store: Store, content: bytes) -> Image:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("hello.txt")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    layer = stream.getvalue()
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    blobs = [
        _put(store, json.dumps(config).encode(), OCI_CONFIG),
        _put(store, gzip.compress(layer, mtime=0), LAYER),
    ]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": encode(blobs[0]), "layers": [encode(blobs[1])]}
    top = _put(store, json.dumps(manifest).encode(), OCI_MANIFEST)
    return Image(store, top, (top, *blobs))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.at(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def image(store: Store) -> Image:
    return _make(store, b"hello")


def _write(target: Path, name: str, image: Image) -> None:
    _write_whole(target, WholeImage(name, image.top, image.blobs), image.store)


def _write_whole(target: Path, image: WholeImage, store: Store) -> None:
    asyncio.run(bring(OciLayout(target, run_hashing, OwnStreams()), [image], store, linked=True))


def _names(target: Path) -> list[tuple[str, str]]:
    index = json.loads((target / "index.json").read_bytes())
    return [(entry.get("annotations", {}).get(REF_NAME, ""), entry["digest"]) for entry in index["manifests"]]


def _files(target: Path) -> set[str]:
    return {str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir()}


def test_a_layout_is_made_with_blobs_linked_to_the_store(tmp_path: Path, image: Image) -> None:
    target = tmp_path / "a" / "layout"
    _write(target, "app:1", image)
    assert (target / "oci-layout").read_bytes() == OCI_LAYOUT
    assert _names(target) == [("app:1", str(image.top.digest))]
    for blob in image.blobs:
        assert (target / "blobs" / "sha256" / blob.digest.hex).samefile(image.file(blob))
    assert _files(target) == {
        "oci-layout",
        "index.json",
        *(f"blobs/sha256/{blob.digest.hex}" for blob in image.blobs),
    }


def test_what_was_put_is_in_the_log(tmp_path: Path, image: Image, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastoci.layouts")
    _write(tmp_path / "layout", "app:1", image)
    assert caplog.messages == [f"{tmp_path / 'layout'}: 1 images are in the layout"]


def test_on_another_file_system_blobs_are_copied(image: Image, small_disk: Path) -> None:
    _write(small_disk / "layout", "app:1", image)
    for blob in image.blobs:
        copy = small_disk / "layout" / "blobs" / "sha256" / blob.digest.hex
        assert copy.read_bytes() == image.file(blob).read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o444
        assert not copy.samefile(image.file(blob))


def test_a_full_disk_leaves_no_entry_and_no_half_blob(image: Image, small_disk: Path) -> None:
    big = _put(image.store, os.urandom(12 << 20), LAYER)
    with pytest.raises(StoreError, match="No space") as caught:
        _write_whole(small_disk / "layout", WholeImage("app:1", image.top, (*image.blobs, big)), image.store)
    assert caught.value.path == str(small_disk / "layout")
    assert not (small_disk / "layout" / "index.json").exists()
    assert not [name for name in _files(small_disk / "layout") if big.digest.hex in name]


def test_a_second_image_is_added_and_a_name_is_replaced(tmp_path: Path, image: Image) -> None:
    other = _make(image.store, b"other")
    target = tmp_path / "layout"
    _write(target, "app:1", image)
    _write(target, "app:2", other)
    assert _names(target) == [("app:1", str(image.top.digest)), ("app:2", str(other.top.digest))]
    _write(target, "app:1", other)
    assert sorted(_names(target)) == [("app:1", str(other.top.digest)), ("app:2", str(other.top.digest))]


def test_an_image_without_a_name_has_one_entry_without_the_annotation(tmp_path: Path, image: Image) -> None:
    for _ in range(2):
        _write(tmp_path / "layout", "", image)
    _write(tmp_path / "layout", "", _make(image.store, b"other"))
    assert [name for name, _ in _names(tmp_path / "layout")] == ["", ""]
    assert b"annotations" not in (tmp_path / "layout" / "index.json").read_bytes()


def test_entries_of_others_keep_fields_that_are_unknown_here(tmp_path: Path, image: Image) -> None:
    foreign = {**encode(Descriptor.of(b"x", "a/b")), "io.example.unknown": [1]}
    target = tmp_path / "layout"
    _write(target, "app:1", image)
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [foreign], "subject": None}))
    _write(target, "app:1", image)
    index = json.loads((target / "index.json").read_bytes())
    assert index["manifests"][0] == foreign
    assert len(index["manifests"]) == 2
    assert "subject" in index


def test_right_blobs_stay_and_others_are_replaced(tmp_path: Path, image: Image) -> None:
    target = tmp_path / "layout"
    _write(target, "app:1", image)
    top, config, layer = (target / "blobs" / "sha256" / blob.digest.hex for blob in image.blobs)
    for file, data in ((top, top.read_bytes()), (config, b"x" * image.blobs[1].size)):
        file.unlink()
        file.write_bytes(data)
    kept = top.stat().st_ino
    layer.unlink()
    layer.symlink_to("elsewhere")
    (layer.parent / f".{layer.name}.new").write_text("left by a crash")
    _write(target, "app:1", image)
    assert top.stat().st_ino == kept
    assert config.samefile(image.file(image.blobs[1]))
    assert layer.samefile(image.file(image.blobs[2]))
    assert not layer.is_symlink()
    assert not [name for name in _files(target) if name.endswith(".new")]


def _spooled(directory: Path, data: bytes) -> tuple[Descriptor, int, bytes]:
    """A blob in a file without a name, as a packer or a read archive leaves it."""
    verifier = Verifier(Digest.of(data), len(data))
    fd = files.nameless_at(directory_fd := os.open(directory, os.O_RDONLY))
    os.close(directory_fd)
    os.write(fd, data)
    pool = _core.Pool(1 << 20)
    buffer = pool.take()
    assert buffer is not None
    buffer.append(data)
    hash_buffers([(verifier, buffer)])
    buffer.release()
    return Descriptor.of(data, "application/x-layer"), fd, verifier.state()


def test_a_file_without_a_name_gets_that_of_the_blob_that_it_is(tmp_path: Path) -> None:
    blob, fd, state = _spooled(tmp_path, b"packed")
    layout = LayoutFiles(tmp_path / "out", None)
    layout.adopt(blob, fd, state, lambda: None)
    layout.close()
    made = os.stat(tmp_path / "out" / "blobs/sha256" / blob.digest.hex)
    assert made.st_ino == os.fstat(fd).st_ino
    assert stat.S_IMODE(made.st_mode) == 0o444
    os.close(fd)


def test_a_file_without_a_name_is_copied_to_another_file_system(tmp_path: Path, small_disk: Path) -> None:
    blob, fd, state = _spooled(tmp_path, b"packed")
    layout = LayoutFiles(small_disk / "out", None)
    layout.adopt(blob, fd, state, lambda: None)
    layout.close()
    os.close(fd)
    assert (small_disk / "out" / "blobs/sha256" / blob.digest.hex).read_bytes() == b"packed"


def test_a_file_whose_hash_is_not_the_blobs_gets_no_name(tmp_path: Path) -> None:
    _, fd, state = _spooled(tmp_path, b"packed")
    layout = LayoutFiles(tmp_path / "out", None)
    with pytest.raises(DigestMismatchError):
        layout.adopt(Descriptor.of(b"others", "application/x-layer"), fd, state, lambda: None)
    layout.close()
    os.close(fd)
    assert _files(tmp_path / "out") == {"oci-layout"}


@pytest.mark.attack
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_blob_that_is_damaged_in_the_store_never_gets_a_name(tmp_path: Path, image: Image, number: int) -> None:
    blob = image.blobs[number]
    file = image.file(blob)
    file.chmod(0o644)
    file.write_bytes(bytes(blob.size))
    with pytest.raises(DigestMismatchError) as caught:
        _write(tmp_path / "layout", "app:1", image)
    assert caught.value.subject == str(blob.digest)
    assert not (tmp_path / "layout" / "blobs" / "sha256" / blob.digest.hex).exists()
    assert not (tmp_path / "layout" / "index.json").exists()


def test_a_foreign_directory_is_refused_and_untouched(tmp_path: Path, image: Image) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="neither empty nor an OCI layout"):
        _write(target, "app:1", image)
    assert _files(target) == {"thesis.txt"}


@pytest.mark.parametrize("layout", [b"{}", b"{", b'{"imageLayoutVersion":"2.0.0"}'])
def test_a_layout_that_is_none_is_refused(tmp_path: Path, image: Image, layout: bytes) -> None:
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout" / "oci-layout").write_bytes(layout)
    with pytest.raises(StoreError, match="not an OCI layout"):
        _write(tmp_path / "layout", "app:1", image)


def test_an_index_that_does_not_parse_is_left_as_it_is(tmp_path: Path, image: Image) -> None:
    _write(tmp_path / "layout", "app:1", image)
    (tmp_path / "layout" / "index.json").write_bytes(b"{")
    with pytest.raises(StoreError, match="not an index"):
        _write(tmp_path / "layout", "app:2", image)
    assert (tmp_path / "layout" / "index.json").read_bytes() == b"{"


def test_blobs_that_lead_out_of_the_layout_are_refused(tmp_path: Path, image: Image) -> None:
    (tmp_path / "outside").mkdir()
    target = tmp_path / "layout"
    target.mkdir()
    (target / "oci-layout").write_bytes(OCI_LAYOUT)
    (target / "blobs").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError):
        _write(target, "app:1", image)
    assert os.listdir(tmp_path / "outside") == []


def test_a_blob_that_the_store_lacks_leaves_no_entry(tmp_path: Path, image: Image) -> None:
    absent = Descriptor.of(b"absent", LAYER)
    with pytest.raises(BlobNotFoundError):
        _write_whole(tmp_path / "layout", WholeImage("app:1", image.top, (image.top, absent)), image.store)
    assert not (tmp_path / "layout" / "index.json").exists()


async def test_many_writers_of_one_layout_lose_no_entry(tmp_path: Path, store: Store) -> None:
    images = [_make(store, bytes([number])) for number in range(20)]

    def write(number: int) -> Awaitable[None]:
        return asyncio.to_thread(_write, tmp_path / "layout", f"app:{number}", images[number])

    await asyncio.gather(*(when_free(partial(write, number), within_s=60) for number in range(20)))
    assert not (tmp_path / "layout" / ".fastoci.lock").exists()
    assert sorted(_names(tmp_path / "layout")) == sorted((f"app:{n}", str(images[n].top.digest)) for n in range(20))


async def test_who_waits_for_another_writer_gives_up_in_time_and_says_for_what(tmp_path: Path, image: Image) -> None:
    target = tmp_path / "layout"
    await asyncio.to_thread(_write, target, "app:1", image)
    before = (target / "index.json").read_bytes()
    root = path_walk.open_directory(target)
    try:
        with (
            locks.locked_at(root, ".fastoci.lock", "held"),
            pytest.raises(StoreBusyError, match=r"layout/\.fastoci\.lock is locked by another process"),
        ):
            await when_free(lambda: asyncio.to_thread(LayoutFiles, target), within_s=0.2)
    finally:
        os.close(root)
    assert (target / "index.json").read_bytes() == before


@pytest.mark.attack
def test_locks_that_readers_of_a_layout_may_take_stop_no_writer(tmp_path: Path, image: Image) -> None:
    target = tmp_path / "layout"
    _write(target, "app:1", image)
    with (target / "oci-layout").open("rb") as reader, (target / "index.json").open("rb") as other:
        fcntl.flock(reader, fcntl.LOCK_EX)
        for file in (reader, other):
            shared = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, shared)
        _write(target, "app:2", image)
    assert [name for name, _ in _names(target)] == ["app:1", "app:2"]


@pytest.mark.attack
def test_an_empty_file_with_another_name_is_not_written_to(tmp_path: Path, image: Image) -> None:
    (tmp_path / "layout").mkdir()
    (tmp_path / "elsewhere").touch()
    os.link(tmp_path / "elsewhere", tmp_path / "layout" / "oci-layout")
    _write(tmp_path / "layout", "app:1", image)
    assert (tmp_path / "elsewhere").read_bytes() == b""
    assert (tmp_path / "layout" / "oci-layout").read_bytes() == OCI_LAYOUT


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_another_user_of_the_directory_leads_nothing_elsewhere(kind: str, image: Image) -> None:
    def write(target: Path) -> None:
        with suppress(StoreError):
            layout = LayoutFiles(target)  # as ``LayoutWriter`` calls it, without threads
            try:
                layout.link([(blob, StoreFiles(image.store)) for blob in image.blobs], lambda files: [], lambda: None)
                layout.write(image.top.digest, b"{}")
                layout.finish([WholeImage("app:1", image.top, image.blobs)])
            finally:
                layout.close()

    with scene(kind) as at:
        assert Attacker(at).between(write) > 50
        Attacker(at).beside(write, 100)


def test_sha512_blobs_have_their_own_directory(tmp_path: Path, store: Store, image: Image) -> None:
    data = b"content"
    verifier = Verifier(Digest.of(data, "sha512"), 7)
    assert verifier.digest.algorithm == "sha512"
    blob = Descriptor("a/b", verifier.digest, 7)
    (store.path / "blobs" / "sha512").mkdir()
    (store.path / "blobs" / "sha512" / blob.digest.hex).write_bytes(data)
    _write_whole(tmp_path / "layout", WholeImage("app:1", image.top, (*image.blobs, blob)), store)
    assert (tmp_path / "layout" / "blobs" / "sha512" / blob.digest.hex).read_bytes() == data


def test_skopeo_and_umoci_read_the_layout(tmp_path: Path, image: Image, peer: Callable[[str], str]) -> None:
    target = tmp_path / "layout"
    _write(target, "app:1", image)
    raw = subprocess.run([peer("skopeo"), "inspect", "--raw", f"oci:{target}:app:1"], capture_output=True, check=True)
    assert raw.stdout == image.file(image.top).read_bytes()
    subprocess.run(
        [peer("umoci"), "unpack", "--rootless", "--image", f"{target}:app:1", tmp_path / "bundle"],
        capture_output=True,
        check=True,
    )
    assert (tmp_path / "bundle" / "rootfs" / "hello.txt").read_bytes() == b"hello"
