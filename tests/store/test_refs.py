"""References: set, merged, listed, touched, broken.

Covers: image/stored_image.py.
"""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from fastoci.errors import BlobNotFoundError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.mediatype import OCI_INDEX, OCI_MANIFEST
from fastoci.image.platform import Platform
from fastoci.image.stored_image import StoredImage
from fastoci.store.refs import Refs
from support.store_shelf import Shelf

NAME = "127.0.0.1:5000/library/redis:7"
TOP = Descriptor.of(b"index", OCI_INDEX)
AMD64 = Descriptor(OCI_MANIFEST, Descriptor.of(b"a", OCI_MANIFEST).digest, 1, platform=Platform("linux", "amd64"))
ARM64 = Descriptor.of(b"b", OCI_MANIFEST)
WHEN = "2026-01-02T03:04:05Z"
REF = StoredImage(NAME, TOP, {"linux/amd64": AMD64}, WHEN)


@pytest.fixture
def refs(shelf: Shelf) -> Refs:
    return shelf.store.refs


def _file(shelf: Shelf, name: str = NAME) -> Path:
    return Path(shelf.store.paths.ref_path(name))


def test_a_reference_comes_out_as_it_went_in(refs: Refs, shelf: Shelf) -> None:
    assert refs.set(REF) == REF
    assert refs.get(NAME) == REF
    assert stat.S_IMODE(_file(shelf).stat().st_mode) == 0o644


def test_the_file_is_where_and_what_the_format_says(refs: Refs, shelf: Shelf) -> None:
    refs.set(REF)
    # sha256 of the name, by hand
    key = subprocess.run(["sha256sum"], input=NAME.encode(), capture_output=True, check=True).stdout.split()[0].decode()
    document = json.loads((shelf.path / "refs" / key[:2] / key).read_bytes())
    assert document == {
        "name": NAME,
        "descriptor": {"mediaType": OCI_INDEX, "digest": str(TOP.digest), "size": 5},
        "images": {
            "linux/amd64": {
                "mediaType": OCI_MANIFEST,
                "digest": str(AMD64.digest),
                "size": 1,
                "platform": {"architecture": "amd64", "os": "linux"},
            }
        },
        "pinned": False,
        "pulled_at": WHEN,
    }


def test_platforms_of_one_index_are_merged(refs: Refs) -> None:
    refs.set(REF)
    both = refs.set(StoredImage(NAME, TOP, {"linux/arm64": ARM64}, "2026-02-02T00:00:00Z"))
    assert both.images == {"linux/amd64": AMD64, "linux/arm64": ARM64}
    assert refs.get(NAME) == both


def test_another_index_takes_the_place_of_the_old_one_and_its_platforms(refs: Refs) -> None:
    refs.set(REF)
    refs.set(StoredImage(NAME, ARM64, {"linux/arm64": ARM64}, WHEN))
    assert refs.get(NAME).images == {"linux/arm64": ARM64}


def test_a_pinned_name_stays_pinned(refs: Refs) -> None:
    refs.set(StoredImage(NAME, TOP, {}, WHEN, pinned=True))
    assert refs.set(REF).pinned
    assert refs.set(StoredImage(NAME, ARM64, {}, WHEN)).pinned


def test_references_are_listed_by_name(refs: Refs) -> None:
    names = [f"example.com/app{number}:1" for number in range(300)]
    for name in reversed(names):
        refs.set(StoredImage(name, TOP, {}, WHEN))
    listed, broken = refs.list()
    assert [ref.name for ref in listed] == sorted(names)
    assert broken == ()
    assert refs.more_than(299)
    assert not refs.more_than(300)


def test_a_reference_is_never_too_large_to_be_read(refs: Refs, shelf: Shelf) -> None:
    """What an index says of a manifest is the registry's, and a file that nobody can read stops gc."""
    wordy = replace(AMD64, annotations={"org.example.note": "x" * (1 << 20)})
    refs.set(replace(REF, images={"linux/amd64": wordy}))
    assert refs.get(NAME) == REF
    assert refs.pin(NAME, True).pinned
    strange = replace(AMD64, platform=Platform("linux", "amd64", os_version="y" * (1 << 20)))
    with pytest.raises(StoreError, match="more than 1048576"):
        refs.set(replace(REF, images={"linux/amd64": strange}))
    assert refs.get(NAME) == replace(REF, pinned=True)


def test_an_unknown_name_is_not_found(refs: Refs) -> None:
    with pytest.raises(BlobNotFoundError, match="redis"):
        refs.get(NAME)
    with pytest.raises(BlobNotFoundError, match="redis"):
        refs.touch(NAME)


BROKEN = [
    b"",
    b"{",
    b"\x00" * 300,
    b"[]",
    b'{"name": "127.0.0.1:5000/library/redis:7"}',
    b'{"name": "x", "name": "y"}',
    b'{"name": "another", "descriptor": {"mediaType": "a/b", "digest": "sha256:'
    + b"0" * 64
    + b'", "size": 1}, "images": {}, "pulled_at": ""}',
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_is_named_skipped_and_replaced(refs: Refs, shelf: Shelf, content: bytes) -> None:
    other = StoredImage("example.com/other:1", TOP, {}, WHEN)
    refs.set(other)
    refs.set(REF)
    _file(shelf).write_bytes(content)
    with pytest.raises(StoreError) as caught:
        refs.get(NAME)
    assert not isinstance(caught.value, BlobNotFoundError)
    assert caught.value.path == str(_file(shelf))
    listed, broken = refs.list()
    assert listed == (other,)
    assert [error.path for error in broken] == [str(_file(shelf))]
    refs.set(REF)
    assert refs.get(NAME) == REF


def test_a_link_or_fifo_in_a_references_place_is_not_followed(refs: Refs, shelf: Shelf, tmp_path: Path) -> None:
    refs.set(REF)
    _file(shelf).rename(tmp_path / "moved")
    _file(shelf).symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError):
        refs.get(NAME)
    _file(shelf).unlink()
    os.mkfifo(_file(shelf))
    with pytest.raises(StoreError, match="not a regular file"):
        refs.get(NAME)
    refs.set(REF)
    assert refs.get(NAME) == REF


def test_a_link_in_the_place_of_a_directory_of_references_is_not_followed(
    refs: Refs, shelf: Shelf, tmp_path: Path
) -> None:
    refs.set(REF)
    directory = _file(shelf).parent
    directory.rename(tmp_path / "outside")
    directory.symlink_to(tmp_path / "outside")
    before = sorted((tmp_path / "outside").iterdir())
    assert refs.list() == ((), ())
    for change in (lambda: refs.set(REF), lambda: refs.remove(NAME), lambda: refs.pin(NAME, True)):
        with pytest.raises(StoreError, match="not a directory"):
            change()
    with pytest.raises(StoreError, match="not a directory"):
        refs.get(NAME)
    assert sorted((tmp_path / "outside").iterdir()) == before


def test_foreign_files_among_the_references_are_not_references(refs: Refs, shelf: Shelf) -> None:
    refs.set(REF)
    (shelf.path / "refs" / "README").write_text("x")
    (_file(shelf).parent / ".new").write_text("left by a crash")
    assert refs.list() == ((REF,), ())
    refs.set(REF)
    assert not (_file(shelf).parent / ".new").exists()


def test_last_use_is_noted_at_most_hourly(refs: Refs, shelf: Shelf) -> None:
    refs.set(REF)
    for age, noted in ((60, False), (3500, False), (3700, True), (-7200, True)):
        now = _now(shelf)
        os.utime(_file(shelf), (now - age, now - age))
        before = _file(shelf).stat().st_mtime_ns
        refs.touch(NAME)
        assert (_file(shelf).stat().st_mtime_ns != before) is noted, age


def _now(shelf: Shelf) -> float:
    (shelf.path / "now").write_bytes(b"")
    return (shelf.path / "now").stat().st_mtime


WRITER = """
import pathlib, sys
from fastoci.image.descriptor import Descriptor
from fastoci.store.opening import open_store
from fastoci.image.stored_image import StoredImage
from fastoci.store.refs import Refs
refs = Refs(open_store(pathlib.Path(sys.argv[1])))
top, one = Descriptor.of(b"index", "a/b"), Descriptor.of(sys.argv[2].encode(), "a/b")
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    refs.set(StoredImage("example.com/app:1", top, {f"linux/{sys.argv[2]}{number}": one}, ""))
"""


def _writer(shelf: Shelf, name: str, count: int) -> "subprocess.Popen[bytes]":
    writer = subprocess.Popen([sys.executable, "-c", WRITER, shelf.path, name, str(count)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    return writer


def test_processes_that_record_one_name_lose_no_platform(refs: Refs, shelf: Shelf) -> None:
    writers = [_writer(shelf, name, 25) for name in "abc"]
    for writer in writers:
        with writer:
            assert writer.wait() == 0
    assert len(refs.get("example.com/app:1").images) == 75


def test_a_killed_writer_leaves_the_old_reference_or_the_new(refs: Refs, shelf: Shelf) -> None:
    for _ in range(5):
        with _writer(shelf, "k", 10_000_000) as writer:
            while not refs.list()[0]:
                pass
            seen = len(refs.get("example.com/app:1").images)
            while len(refs.get("example.com/app:1").images) < seen + 20:
                pass
            writer.send_signal(signal.SIGKILL)
        assert refs.list()[1] == ()
        refs.set(StoredImage("example.com/app:1", ARM64, {}, ""))
