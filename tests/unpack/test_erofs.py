"""Layer files and merged metadata, by the reader of this project.

Covers: _erofs.pyx.

How the kernel and other programs see them is in the exams beside this file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from fastoci import _core, _erofs, _extract
from fastoci.errors import FormatError, UnpackError, UnsafePathError
from fastoci.image.digest import Digest
from fastoci.testing.layers import Entry, directory, hardlink, opaque, symlink, tar, whiteout
from fastoci.testing.trees import Node
from fastoci.unpack.erofs import LayerFileWriter, MergedWriter
from fastoci.unpack.erofs_reader import ErofsReader
from support.disks import mounted
from support.erofs_listing import erofs_listing
from support.scratch import scratch

HEAD = 4096
BOUNDS = {"max_entries": 1_000_000, "max_bytes": 1 << 40, "max_memory": 1 << 28}
Form = Literal["tar", "4k"]
FORMS: tuple[Form, ...] = ("tar", "4k")


@pytest.fixture
def work() -> Iterator[Path]:
    with scratch("erofs") as place:
        yield place


@contextmanager
def opened_new(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def digest_of(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def write(path: Path, layer: bytes, form: Form = "tar", window: int = 1 << 20, **bounds: int) -> _erofs.LayerFile:
    """Write a layer file; the native writer with its facts, closed."""
    with opened_new(path) as fd:
        native = _erofs.LayerFile(fd, form=form, uuid=bytes(range(16)), **{**BOUNDS, **bounds})
        for start in range(0, len(layer), window):
            if native.feed(layer[start : start + window]):
                break
        native.finish()
        native.close()
    return native


def merge(path: Path, layers: Sequence[bytes], *, read: bool) -> _erofs.MergedMetadata:
    """Merge layers; the native writer with its facts, closed."""
    with opened_new(path) as fd:
        native = _erofs.MergedMetadata(fd, uuid=bytes(range(16)), **BOUNDS)
        for layer in layers:
            native.begin(hashlib.sha256(layer).hexdigest().encode())
            if read:
                with tempfile.TemporaryFile(dir=path.parent) as file:
                    os.pwrite(file.fileno(), layer, 77)
                    native.read(file.fileno(), 77, len(layer))
            else:
                native.feed(layer)
            native.end()
        native.finish()
        native.close()
    return native


def listed(path: Path, devices: Sequence[Path] = ()) -> dict[str, Node]:
    """What an EROFS file holds, by path."""
    fds = [os.open(each, os.O_RDONLY) for each in (path, *devices)]
    try:
        return {node.path: node for node in erofs_listing(fds[0], fds[1:])}
    finally:
        for fd in fds:
            os.close(fd)


def image(work: Path, *layers: Sequence[Entry]) -> dict[str, Node]:
    """What the merged metadata of layers hold, with their content out of layer files."""
    tars = [b"".join(tar(layer)) for layer in layers]
    for number, data in enumerate(tars):
        assert write(work / f"{number}.erofs", data).code == 0
    merged = work / "image.erofs"
    assert merge(merged, tars, read=True).code == 0
    return listed(merged, [work / f"{number}.erofs" for number in range(len(tars))])


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_file_holds_what_the_layer_says(work: Path, form: Form) -> None:
    xattrs = (("user.key", b"value"), ("trusted.overlay.opaque", b"y"), ("trusted.mine", b"\0"))
    entries = [
        directory("./", mode=0o750),
        directory("a", mode=0o700, mtime_ns=-1_500_000_000),
        replace(Entry("a/file", data=b"x" * 5000), uid=4_000_000_000, gid=7, mode=0o4755, xattrs=xattrs),
        Entry("a/empty", mtime_ns=4_102_444_800_123_456_789),
        symlink("a/link", "file"),
        symlink("a/long", "x" * 4095),
        hardlink("second", "a/file"),
        Entry("a/fifo", "fifo"),
        Entry("a/disk", "block", device=(300, 70_000)),
        Entry("implied/deep/file", data=b"content"),
        *[Entry(f"flat/!{number}", data=b"%d" % number) for number in range(500)],
    ]
    native = write(work / "layer", b"".join(tar(entries)), form)
    found = listed(work / "layer")
    assert native.code == 0 and native.entries == len(entries) and native.file_size == (work / "layer").stat().st_size
    file = found["a/file"]
    assert (file.size, file.sha256) == (5000, hashlib.sha256(b"x" * 5000).hexdigest())
    assert (file.mode, file.uid, file.gid, file.hard_link) == (0o4755, 4_000_000_000, 7, "a/file")
    assert file.xattrs == (("trusted.mine", b"\0"), ("user.key", b"value"))
    assert found["second"].hard_link == "a/file"
    assert (found["a"].mode, found["a"].mtime_ns) == (0o700, -1_500_000_000)
    assert found["a/empty"].mtime_ns == 4_102_444_800_123_456_789
    assert (found["a/link"].link, found["a/link"].mode) == ("file", 0o777)
    assert found["a/long"].link == "x" * 4095
    assert found["a/disk"].device == (300, 70_000)
    assert (found["implied/deep"].mode, found["implied/deep"].uid) == (0o755, 0)
    assert found["flat/!499"].size == 3
    assert len(found) == len(entries) - 1 + 3  # the root is not listed; three directories are implied


def test_the_tar_is_in_the_file_byte_for_byte(work: Path) -> None:
    layer = b"".join(tar([Entry(f"{number}", data=bytes([number]) * number * 37) for number in range(99)]))
    layer += bytes(10_240) + b"what is behind the end"
    native = write(work / "layer", layer)
    data = (work / "layer").read_bytes()
    assert native.tar_size == len(layer)
    assert hashlib.sha256(data[HEAD : HEAD + native.tar_size]).digest() == hashlib.sha256(layer).digest()
    assert native.metadata_offset % HEAD == 0 and len(data) % HEAD == 0


@pytest.mark.parametrize("form", FORMS)
def test_the_same_file_comes_out_however_the_bytes_are_cut(work: Path, form: Form) -> None:
    layer = b"".join(tar([Entry(f"d/{number}", data=b"y" * 700) for number in range(60)]))
    for number, window in enumerate((1 << 20, 777, 7)):
        write(work / f"{number}", layer, form, window)
    assert (work / "0").read_bytes() == (work / "1").read_bytes() == (work / "2").read_bytes()


def test_content_that_garbage_follows_in_the_tar_is_copied_behind_it(work: Path) -> None:
    layer = bytearray(b"".join(tar([Entry("a", data=b"a" * 700), Entry("b", data=b"b" * 700)])))
    clean = bytes(layer)
    layer[512 + 700 : 512 + 1024] = b"G" * 324
    for name, data in (("clean", clean), ("dirty", bytes(layer))):
        write(work / name, data)
        found = listed(work / name)
        assert found["a"].sha256 == hashlib.sha256(b"a" * 700).hexdigest()
    with (work / "dirty").open("rb") as file:
        reader = ErofsReader(file.fileno(), "dirty")
        pieces = {name: [*reader.pieces(inode)] for name, inode in reader.children(reader.root)}
    assert pieces[b"b"][0].position == HEAD + clean.index(b"bb")
    at = pieces[b"a"][0].position
    assert at >= HEAD + len(layer)
    assert (work / "dirty").read_bytes()[at : at + 1024] == b"a" * 700 + bytes(324)


@pytest.mark.parametrize(
    ("entries", "reasons"),
    [
        ([directory("a"), Entry("a/x"), whiteout("a/y"), hardlink("z", "a/x"), whiteout("gone")], ()),
        ([directory("a"), opaque("a"), Entry("a/b/c")], ()),  # below an opaque directory nothing is hidden
        ([Entry("a", data=b"x"), directory("a"), Entry("a/b/c")], ()),
        ([whiteout("a"), Entry("a/b/c")], ()),
        ([Entry("a/x")], ("implied-parent",)),
        ([Entry("a/x"), directory("a")], ("implied-parent",)),  # a lower link may have led it elsewhere
        ([symlink("l", "d"), Entry("l/x")], ("implied-parent",)),
        ([hardlink("a", "lower")], ("hard-link",)),
        ([directory("d"), hardlink("a", "d/lower")], ("hard-link",)),
        ([whiteout("a/b")], ("implied-parent", "whiteout")),
        ([opaque("a")], ("implied-parent", "whiteout")),
        ([Entry(".wh..wh..opq")], ("opaque-root",)),
        ([Entry("f"), Entry("f/.wh.x")], ()),  # nothing can be there
    ],
)
def test_a_layer_says_why_it_is_not_exact_by_itself(work: Path, entries: list[Entry], reasons: tuple[str, ...]) -> None:
    native = write(work / "layer", b"".join(tar(entries)))
    assert (native.code, native.reasons) == (0, reasons)


def test_a_layer_by_itself_says_what_it_hides_as_overlayfs_reads_it(work: Path) -> None:
    layer = [
        directory("d"),
        whiteout("d/gone"),
        Entry("d/own"),
        whiteout("d/own"),
        directory("o"),
        Entry("o/x"),
        whiteout("o"),
        directory("p"),
        whiteout("p/idle"),
        opaque("p"),
    ]
    write(work / "layer", b"".join(tar(layer)))
    found = listed(work / "layer")
    assert (found["d/gone"].kind, found["d/gone"].device, found["d/gone"].mode) == ("character", (0, 0), 0)
    assert found["d"].xattrs == (("trusted.overlay.origin", b""),)
    assert found["d/own"].kind == "file"
    assert found["o"].xattrs == (("trusted.overlay.opaque", b"y"),)
    assert found["p"].xattrs == (("trusted.overlay.opaque", b"y"),)
    assert sorted(found) == ["d", "d/gone", "d/own", "o", "o/x", "p"]


def test_merged_metadata_hold_what_the_layers_give_together(work: Path) -> None:
    lower = [
        directory("d", mode=0o700),
        Entry("d/low", data=b"low" * 999),
        Entry("d/both", data=b"low"),
        directory("gone"),
        Entry("gone/x"),
        symlink("l", "d"),
        Entry("o/low"),
    ]
    upper = [
        Entry("l/new", data=b"new"),
        hardlink("second", "d/low"),
        Entry("d/both", data=b"upper"),
        whiteout("d/both"),
        whiteout("gone"),
        opaque("o"),
        Entry("o/up", data=b"up"),
    ]
    found = image(work, lower, upper)
    assert sorted(found) == ["d", "d/both", "d/low", "d/new", "l", "o", "o/up", "second"]
    assert found["d"].mode == 0o700
    assert found["d/low"].hard_link == found["second"].hard_link == "d/low"
    assert found["d/low"].sha256 == hashlib.sha256(b"low" * 999).hexdigest()
    assert found["d/both"].sha256 == hashlib.sha256(b"upper").hexdigest()
    assert found["d/new"].size == 3 and found["o/up"].size == 2
    assert all(not node.xattrs for node in found.values())


def test_reading_a_tar_gives_what_feeding_it_gives(work: Path) -> None:
    layers = [
        bytearray(b"".join(tar([Entry("a", data=b"a" * 300_000), Entry("b", data=b"b" * 1000), Entry("c", data=b"c")])))
        for _ in range(2)
    ]
    layers[1][512 + 300_000 + 5] = 1  # in the padding
    layers[1] += bytes(300_000)
    made = [bytes(layer) for layer in layers]
    assert merge(work / "read", made, read=True).code == merge(work / "fed", made, read=False).code == 0
    assert (work / "read").read_bytes() == (work / "fed").read_bytes()


def test_copies_behind_the_tar_are_found_again_by_merged_metadata(work: Path) -> None:
    layer = bytearray(b"".join(tar([Entry("a", data=b"a" * 700), Entry("b", data=b"b" * 70)])))
    layer[512 + 700] = layer[512 + 1024 + 512 + 70] = 1
    write(work / "layer", bytes(layer))
    merge(work / "image", [bytes(layer)], read=True)
    with (work / "image").open("rb") as file:
        reader = ErofsReader(file.fileno(), "image")
        pieces = [piece for _, inode in reader.children(reader.root) for piece in reader.pieces(inode)]
    assert all(piece.device and piece.position >= HEAD + len(layer) for piece in pieces)
    found = listed(work / "image", [work / "layer"])
    assert found["a"].sha256 == hashlib.sha256(b"a" * 700).hexdigest()
    assert found["b"].sha256 == hashlib.sha256(b"b" * 70).hexdigest()


def test_before_it_is_finished_a_file_has_no_superblock(work: Path) -> None:
    layer = b"".join(tar([Entry("a", data=b"x" * 9000)]))
    with opened_new(work / "layer") as fd:
        native = _erofs.LayerFile(fd, form="tar", uuid=bytes(16), **BOUNDS)
        assert native.feed(layer) == 0
        assert os.pread(fd, HEAD, 0) == bytes(HEAD)
        assert native.finish() == 0
        assert os.pread(fd, 4, 1024) == bytes.fromhex("e2e1f5e0")


def test_memory_is_counted_and_bounded(work: Path) -> None:
    layer = b"".join(tar(Entry(f"{number:08}") for number in range(20_000)))
    native = write(work / "layer", layer)
    assert native.memory <= 20_000 * (128 + 8) + (1 << 17)
    partly = write(work / "partly", layer, max_memory=1 << 20)  # the rest is in the file while it is written
    assert partly.code == 0 and partly.memory <= 1 << 20
    assert (work / "partly").read_bytes() == (work / "layer").read_bytes()
    refused = write(work / "refused", layer, max_memory=1 << 16)
    kind, sentence = _code(refused)
    assert kind == "limit" and sentence.startswith("the names of the layer need more memory than the limit")
    assert refused.value == 1 << 16


def test_a_disk_that_has_no_space_for_memory_is_an_error(tmp_path: Path) -> None:
    layer = b"".join(tar(Entry(f"{number:0200}") for number in range(20_000)))
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        refused = write(tmp_path / "layer", layer, form="4k", max_memory=1 << 20)
        assert _code(refused)[0] == "io"
        assert refused.value == errno.ENOSPC


def _code(native: _erofs.LayerFile | _erofs.MergedMetadata) -> tuple[str, str]:
    return _extract.TAR_CODES[native.code]


def test_entries_are_refused_as_the_extractor_refuses_them(work: Path) -> None:
    for number, (layer, kind) in enumerate(
        [
            ([Entry("../x")], "unsafe"),
            ([Entry("a"), Entry("a/b")], "unsafe"),
            ([Entry("d", "character")], "unsafe"),
            ([directory("a"), Entry("a/b"), hardlink("a", "a/b")], "unsafe"),
            ([symlink("l", "l"), Entry("l/x")], "unsafe"),
            ([directory("d"), hardlink("h", "d")], "unsafe"),
            ([Entry(".wh.")], "unsafe"),
        ]
    ):
        native = write(work / f"{number}", b"".join(tar(layer)))
        assert _code(native)[0] == kind, layer
        assert native.path == os.fsencode(layer[-1].path)


def test_a_layer_that_needs_lower_ones_is_judged_together_with_them(work: Path) -> None:
    lower = b"".join(tar([directory("d"), Entry("a"), symlink("l", "d")]))
    for number, layer in enumerate(
        (
            [hardlink("a", "a"), whiteout("a"), hardlink("b", "a")],  # the whiteout is of what is the layer's own
            [Entry("l/x"), hardlink("l", "l/x")],  # which is not below what it replaces
        )
    ):
        upper = b"".join(tar(layer))
        native = write(work / f"{number}", upper)
        assert native.code == 0 and native.reasons
        assert merge(work / f"{number}.erofs", [lower, upper], read=False).code == 0
        assert _code(merge(work / f"{number}.alone", [upper], read=False))[0] == "unsafe"


def test_a_sink_raises_the_errors_of_its_codes(work: Path) -> None:
    layer = b"".join(tar([Entry("a/b")]))
    diff_id = digest_of(layer)
    with opened_new(work / "layer") as fd:
        sink = LayerFileWriter(fd, layer=diff_id, form="tar", **BOUNDS)
        sink.feed(buffer_of(layer))
        sink.finish()
        facts = sink.facts
    assert (facts.form, facts.tar_size, facts.entries, facts.standalone) == ("tar", len(layer), 1, False)
    assert (work / "layer").read_bytes()[1024 + 48 : 1024 + 64] == uuid.uuid5(
        uuid.NAMESPACE_URL, f"erofs:blobs/{diff_id}"
    ).bytes
    with opened_new(work / "bad") as fd:
        sink = LayerFileWriter(fd, layer=diff_id, form="tar", **BOUNDS)
        with pytest.raises(FormatError, match=diff_id.hex):
            sink.feed(buffer_of(b"x" * 512))
        sink.abort()
    with opened_new(work / "merged") as fd:
        merged = MergedWriter(fd, manifest=digest_of(b""), **BOUNDS)
        merged.begin(diff_id)
        merged.feed(buffer_of(layer))
        merged.end()
        merged.begin(diff_id)
        with pytest.raises(UnsafePathError, match="the target of a hard link is missing"):
            merged.feed(buffer_of(b"".join(tar([hardlink("x", "y")]))))
    with opened_new(work / "full") as fd, pytest.raises(UnpackError, match="Invalid argument"):
        os.write(fd, b"x")
        LayerFileWriter(fd, layer=diff_id, form="tar", **BOUNDS).feed(buffer_of(layer))


def buffer_of(data: bytes) -> _core.Buffer:
    buffer = _core.Pool(_core.BUFFER_SIZE).take()
    assert buffer is not None and buffer.append(data) == len(data)
    return buffer


def sparse_layer(size: int, pieces: Sequence[tuple[int, bytes]], *, padding: int = 0) -> bytes:
    """A tar with one sparse file, in the form that pax calls 0.1; ``padding`` is each byte behind its data."""
    body = b"".join(data for _, data in pieces)
    member = tarfile.TarInfo("sparse")
    member.size = len(body)
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(size),
        "GNU.sparse.numblocks": str(len(pieces)),
        "GNU.sparse.map": ",".join(f"{offset},{len(data)}" for offset, data in pieces),
    }
    header = member.tobuf(tarfile.PAX_FORMAT)
    return header + body + bytes([padding]) * (-len(body) % 512) + bytes(1024)


SPARSE = {
    "aligned": (1 << 20, [(4096, b"a" * 8192), (65_536, b"b" * 4096)]),
    "to the end": (9000, [(4096, b"a" * 512), (8192, b"c" * 808)]),
    "of blocks": (5000, [(512, b"a" * 512), (2048, b"b" * 1024)]),
    "unaligned": (100_000, [(5, b"a" * 600), (700, b"b" * 9), (70_000, b"c" * 3000)]),
    "touching": (3000, [(0, b"a" * 100), (100, b"b" * 412), (1024, b"")]),
    "empty": (1 << 30, []),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("padding", [0, 7], ids=["clean", "dirty"])
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_files_have_their_holes_and_their_content(work: Path, name: str, padding: int, form: Form) -> None:
    size, pieces = SPARSE[name]
    layer = sparse_layer(size, pieces, padding=padding)
    assert write(work / "layer", layer, form).code == 0
    with (work / "layer").open("rb") as file:
        reader = ErofsReader(file.fileno(), "layer")
        ((_, inode),) = reader.children(reader.root)
        assert inode.size == size
        at = 0
        for piece in reader.pieces(inode):
            data = b"" if piece.device is None else os.pread(file.fileno(), piece.size, piece.position)
            expected = bytearray(len(data))
            for offset, content in pieces:
                for index in range(max(offset, at), min(offset + len(content), at + len(data))):
                    expected[index - at] = content[index - offset]
            assert data == bytes(expected)
            assert piece.device is not None or all(not (at <= offset < at + piece.size) for offset, _ in pieces if _)
            at += piece.size
        assert at == size
    assert (work / "layer").stat().st_blocks * 512 < 20 << 20


def test_a_large_sparse_file_has_larger_chunks_and_a_bounded_table(work: Path) -> None:
    size = (1 << 29) + 1
    assert write(work / "layer", sparse_layer(size, [(1, b"x"), (size - 1, b"y")])).code == 0
    with (work / "layer").open("rb") as file:
        reader = ErofsReader(file.fileno(), "layer")
        ((_, inode),) = reader.children(reader.root)
        pieces = [(piece.size, piece.position) for piece in reader.pieces(inode) if piece.device is not None]
        assert [size for size, _ in pieces] == [1 << 14, 1]
        assert [os.pread(file.fileno(), 2, position) for _, position in pieces] == [b"\0x", b"y\0"]
    assert (work / "layer").stat().st_blocks * 512 < 1 << 20  # a table of 2^15 numbers


def test_a_sparse_file_without_end_is_refused(work: Path) -> None:
    layer = sparse_layer(1 << 62, [(1, b"x"), (1 << 61, b"y")])
    native = write(work / "layer", layer, max_bytes=1 << 63)
    assert _code(native) == ("limit", "a sparse file is too large for an EROFS file")
    assert (work / "layer").stat().st_size == 0


def test_merged_metadata_find_the_copies_of_sparse_files(work: Path) -> None:
    size, pieces = SPARSE["unaligned"]
    layer = sparse_layer(size, pieces)
    assert write(work / "layer", layer).code == merge(work / "image", [layer], read=True).code == 0
    content = bytearray(size)
    for offset, data in pieces:
        content[offset : offset + len(data)] = data
    for found in (listed(work / "layer"), listed(work / "image", [work / "layer"])):
        assert found["sparse"].sha256 == hashlib.sha256(content).hexdigest()
