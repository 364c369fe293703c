"""Two trees by their metadata: what differs, in which facet, and which content is left open.

Covers: unpack/erofs_difference.py, unpack/content_hashes.py, unpack/entry_count.py.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastoci import _core
from fastoci.errors import FormatError, UnpackError
from fastoci.image.digest import Digest
from fastoci.image.layer_file import TAR_OFFSET
from fastoci.testing.layers import Entry, directory, hardlink, opaque, symlink, tar, whiteout
from fastoci.unpack.content_hashes import ContentHashes
from fastoci.unpack.entry_count import EntryCount
from fastoci.unpack.erofs import MergedWriter
from fastoci.unpack.erofs_difference import Difference, differences, places
from fastoci.unpack.erofs_reader import ErofsReader
from fastoci.unpack.erofs_tree import resolve

Layers = Sequence[Sequence[Entry]]
Found = Callable[[Layers, Layers], dict[str, Difference]]


def buffers(data: bytes, size: int = 1 << 20) -> Iterator[_core.Buffer]:
    pool = _core.Pool(2 << 20)
    for start in range(0, len(data), size):
        buffer = pool.take()
        assert buffer is not None
        buffer.append(data[start : start + size])
        yield buffer
        buffer.release()


@contextmanager
def merged(path: Path, layers: Layers) -> Iterator[ErofsReader]:
    """The merged metadata of layers; each layer's tag is the digest of its tar."""
    with path.open("w+b") as file:
        writer = MergedWriter(
            file.fileno(), manifest=Digest.of(b""), max_entries=1000, max_bytes=1 << 30, max_memory=1 << 20
        )
        for entries in layers:
            data = b"".join(tar(entries))
            writer.begin(Digest.of(data))
            for buffer in buffers(data):
                writer.feed(buffer)
            writer.end()
        writer.finish()
        yield ErofsReader(file.fileno(), path.name)


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """What differs between two stacks of layers, by path."""

    def compare(left: Layers, right: Layers) -> dict[str, Difference]:
        with merged(tmp_path / "left", left) as one, merged(tmp_path / "right", right) as two:
            return {each.path.decode(): each for each in differences(one, two, threading.Event())}

    return compare


def file(path: str, data: bytes = b"data", **facts: object) -> Entry:
    return Entry(path, data=data, **facts)  # type: ignore[arg-type]


def test_the_same_layers_make_no_difference(found: Found) -> None:
    layers = [[directory("a"), file("a/b")], [file("a/c"), whiteout("a/b")]]
    assert found(layers, layers) == {}


def test_names_that_one_tree_lacks_are_told_with_all_below_them(found: Found) -> None:
    left = [[directory("a"), directory("a/b"), file("a/b/c"), file("z")]]
    right = [[directory("a"), directory("n"), file("n/x"), file("z")]]
    assert {path: (each.left is None, each.right is None) for path, each in found(left, right).items()} == {
        "a/b": (False, True),
        "a/b/c": (False, True),
        "n": (True, False),
        "n/x": (True, False),
        "z": (False, False),
    }
    assert list(found(left, right)) == ["a/b", "a/b/c", "n", "n/x", "z"]


@pytest.mark.parametrize(
    ("left", "right", "facets"),
    [
        (file("f", mode=0o600), file("f", mode=0o4755), ("mode",)),
        (file("f", uid=1), file("f", gid=2), ("owner",)),
        (file("f", b"long"), file("f", b"longer"), ("size",)),
        (symlink("f", "here"), symlink("f", "there"), ("link",)),
        (
            Entry("f", kind="character", device=(1, 3)),
            Entry("f", kind="character", device=(1, 5)),
            ("device",),
        ),
        (file("f", xattrs=(("user.a", b"1"),)), file("f", xattrs=(("user.a", b"2"),)), ("xattr",)),
        (file("f", xattrs=(("user.a", b"1"),)), file("f"), ("xattr",)),
        (file("f", mode=0o644), symlink("f", "x"), ("kind", "mode")),
        (file("f", b"", uid=3, mode=0o600), file("f", b"x"), ("mode", "owner", "size")),
    ],
    ids=["mode", "owner", "size", "link", "device", "xattr", "no xattr", "kind", "several"],
)
def test_each_facet_is_told(found: Found, left: Entry, right: Entry, facets: tuple[str, ...]) -> None:
    assert found([[left]], [[right]])["f"].facets == facets


def test_times_and_the_number_of_names_do_not_count(found: Found) -> None:
    left = [[file("f", b"", mtime_ns=5), directory("d", mtime_ns=7)]]
    right = [[file("f", b""), directory("d")], [hardlink("d/f", "f")]]
    assert list(found(left, right)) == ["d/f"]


def test_content_of_one_size_is_open_unless_it_is_in_one_place(found: Found) -> None:
    base = [file("same", b"12345"), file("other", b"12345")]
    differs = found([base], [base, [file("other", b"54321")]])
    assert {path: (each.facets, each.is_open) for path, each in differs.items()} == {"other": ((), True)}


def test_a_directory_in_the_place_of_a_file_has_all_that_is_in_it(found: Found) -> None:
    differs = found([[file("f")]], [[file("f")], [whiteout("f")], [directory("f"), file("f/g")]])
    assert (differs["f"].facets[0], differs["f/g"].left) == ("kind", None)


def test_whiteouts_and_opaque_directories_are_applied_before(found: Found) -> None:
    base = [directory("d"), file("d/a"), file("d/b"), file("e")]
    assert list(found([base], [base, [opaque("d"), whiteout("e")]])) == ["d/a", "d/b", "e"]


def test_a_walk_that_is_stopped_ends(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with merged(tmp_path / "left", [[file("a")]]) as one, merged(tmp_path / "right", [[file("b")]]) as two:
        assert list(differences(one, two, stop)) == []


# -- content --


def hashed(entries: Sequence[Entry], names: Sequence[str], tmp_path: Path, size: int) -> list[bytes]:
    """The hashes of files, out of a tar that comes in pieces."""
    data = b"".join(tar(entries))
    with merged(tmp_path / "image", [entries]) as reader:
        wanted = {n: places(reader, resolve(reader, name.encode())[1]) for n, name in enumerate(names)}
    sink = ContentHashes("layer", wanted)
    for buffer in buffers(data, size):
        sink.feed(buffer)
    sink.finish()
    return [sink.digests[number] for number in range(len(names))]


@pytest.mark.parametrize("size", [100, 511, 512, 70_000])
def test_files_are_hashed_while_their_tar_passes_by(tmp_path: Path, size: int) -> None:
    contents = {"a": b"first", "b": bytes(range(256)) * 40, "c": b"x", "d": b"last" * 300}
    entries = [file(name, data) for name, data in contents.items()]
    assert hashed(entries, ["b", "d", "a"], tmp_path, size) == [
        hashlib.sha256(contents[name]).digest() for name in ("b", "d", "a")
    ]


def test_holes_are_hashed_as_the_zeros_that_they_read_as() -> None:
    files = {0: [(0, 3_000_000, "", 0), (3_000_000, 4, "x", TAR_OFFSET), (3_000_004, 10, "", 0)], 1: [(0, 8, "", 0)]}
    sink = ContentHashes("layer", files)
    for buffer in buffers(b"datamore"):
        sink.feed(buffer)
    sink.finish()
    assert sink.digests == {
        0: hashlib.sha256(bytes(3_000_000) + b"data" + bytes(10)).digest(),
        1: hashlib.sha256(bytes(8)).digest(),
    }


def test_places_that_no_tar_has_are_damage() -> None:
    with pytest.raises(FormatError, match="not in their order"):
        ContentHashes("layer", {0: [(0, 4, "x", TAR_OFFSET + 100), (4, 4, "x", TAR_OFFSET)]})
    sink = ContentHashes("layer", {0: [(0, 6, "x", TAR_OFFSET)], 1: [(0, 6, "x", TAR_OFFSET + 3)]})
    with pytest.raises(FormatError, match="in one place"):
        for buffer in buffers(b"0123456789"):
            sink.feed(buffer)
    short = ContentHashes("layer", {0: [(0, 6, "x", TAR_OFFSET)]})
    with pytest.raises(FormatError, match="inside of a file"):
        short.finish()


def test_a_hole_that_is_hashed_can_be_stopped() -> None:
    sink = ContentHashes("layer", {0: [(0, 1 << 60, "", 0)]})
    sink.stop()
    with pytest.raises(UnpackError, match="stopped"):
        sink.finish()


# -- entries --


def test_all_entries_of_a_tar_are_counted() -> None:
    entries = [directory("d"), file("d/a" * 60), hardlink("d/b", "a"), whiteout("c"), opaque("d"), symlink("e", "f")]
    sink = EntryCount("layer")
    for buffer in buffers(b"".join(tar(entries)), 700):
        sink.feed(buffer)
    sink.finish()
    assert sink.entries == len(entries)


@pytest.mark.parametrize("data", [b"no tar at all" * 100, b"".join(tar([file("a", b"x" * 5000)]))[:2000]])
def test_what_is_no_tar_is_not_counted(data: bytes) -> None:
    sink = EntryCount("layer")
    with pytest.raises(FormatError, match="layer layer: "):
        for buffer in buffers(data):
            sink.feed(buffer)
        sink.finish()


def test_a_count_can_be_stopped() -> None:
    sink = EntryCount("layer")
    sink.stop()
    with pytest.raises(UnpackError, match="stopped"):
        sink.finish()
