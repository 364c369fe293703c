"""A layer that is staged and adopted gives what the same layer gives when it is fed: tree, facts, or failure.

Covers: _extract.pyx, unpack/layer.py.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import struct
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastoci import _core, _extract
from fastoci.errors import FormatError, StoreFullError, UnsafePathError
from fastoci.testing.layers import Entry, Kind, directory, hardlink, opaque, symlink, tar, whiteout
from fastoci.testing.trees import Node, listing
from fastoci.unpack.layer import LayerStager, LayerWriter
from support.scratch import opened

ROOT_USER = os.geteuid() == 0
LIMITS = {"max_entries": 100_000, "max_bytes": 1 << 30}
DIRECTORIES = 100_000

Facts = tuple[object, ...]


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory in memory where there is one; what is made in it may be deeper than any path."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    work = Path(tempfile.mkdtemp(dir=memory))
    try:
        yield work
    finally:
        with opened(work.parent) as parent:
            assert _extract.remove_tree(parent, os.fsencode(work.name)) == 0


@dataclass(frozen=True, slots=True)
class Way:
    """How layers are applied: with whose rights, in windows of how many bytes, in chunks of how many entries."""

    owners: bool = ROOT_USER
    window: int = 1 << 20
    count: int = 2
    base: bool = False
    thread: bool = False  # feed in a thread that is not the first, stage in the first; else the other way round

    def feed(self, into: _extract.Extractor | _extract.Stager, layer: bytes) -> int:
        for start in range(0, len(layer), self.window):
            if code := into.feed(layer[start : start + self.window]):
                return code
        return into.finish()

    def fed(self, extractor: _extract.Extractor, layer: bytes, work: Path) -> None:
        self.feed(extractor, layer)

    def staged(self, extractor: _extract.Extractor, layer: bytes, work: Path) -> None:
        place = Path(tempfile.mkdtemp(dir=work))
        if ROOT_USER:  # what a directory hands down to what is made in it must not show in the tree
            os.chown(place, 0, 7)
            os.chmod(place, 0o2700)
        with opened(place) as fd:
            stager = _extract.Stager(fd, owners=self.owners, privileged=self.owners, **LIMITS)
            self.feed(stager, layer)
            while (more := extractor.adopt(stager, self.count)) > 0:
                pass
            if not more:
                extractor.finish()
            stager.close()

    def apply(self, root: Path, layers: Sequence[bytes], one: Callable[..., None]) -> list[Facts]:
        """Facts of each layer, up to the first that fails."""
        found: list[Facts] = []
        with opened(root) as fd:
            for number, layer in enumerate(layers):
                extractor = _extract.Extractor(
                    fd,
                    owners=self.owners,
                    privileged=self.owners,
                    base=self.base or number > 0,
                    max_directories=DIRECTORIES,
                    **LIMITS,
                )
                one(extractor, layer, root.parent)
                extractor.close()
                found.append(facts(extractor))
                if extractor.code:
                    break
        return found

    def _apply(self, thread: bool, root: Path, layers: Sequence[bytes], one: Callable[..., None]) -> list[Facts]:
        if not thread:
            return self.apply(root, layers, one)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.apply, root, layers, one).result()

    def compare(self, layers: Sequence[bytes]) -> list[Facts]:
        """Apply both ways and demand the same; the facts."""
        with scratch() as work:
            start = time.time_ns() - 1_000_000_000
            one, other = work / "one", work / "other"
            one.mkdir()
            other.mkdir()
            expected = self._apply(self.thread, one, layers, self.fed)
            assert self._apply(not self.thread, other, layers, self.staged) == expected
            if not expected[-1][0]:
                assert tree(other, start) == tree(one, start)
        return expected


def facts(native: _extract.Extractor) -> Facts:
    return native.code, native.path, native.offset, native.value, native.entries, native.bytes, native.skipped


def tree(root: Path, start: int) -> list[tuple[Node, int]]:
    """Nodes, with the times that nobody gave left out, and the blocks they take."""
    found = []
    for node in listing(root):
        status = os.lstat(root / node.path) if len(node.path) < 4000 else None
        new = node.mtime_ns is not None and node.mtime_ns >= start
        found.append((replace(node, mtime_ns=None) if new else node, status.st_blocks if status else 0))
    return found


def sparse(path: str, size: int, at: int, data: bytes) -> bytes:
    """A file of holes but for ``data``, as GNU tar writes it in pax form 0.1."""
    info = tarfile.TarInfo(path)
    info.size = len(data)
    info.mtime = 1_700_000_000
    info.pax_headers = {
        "GNU.sparse.map": f"{at},{len(data)}",
        "GNU.sparse.numblocks": "1",
        "GNU.sparse.size": str(size),
    }
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


DEFAULT_ACL = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 7, 0xFFFFFFFF, 2, 5, 7, 4, 5, 0xFFFFFFFF, 16, 7, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF
)

# Few names, so that entries meet each other.
_names = st.sampled_from(["a", "b", "l"])
_paths = st.lists(_names, min_size=1, max_size=3).map("/".join)
_targets = st.one_of(_paths, st.sampled_from([".", "..", "/", "/a", "../b", "../../..", "l", "missing/x"]))
_modes = st.sampled_from([0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o500, 0o000])
_numbers = st.sampled_from([0, 0, 0, 7, 65534])
_kinds: st.SearchStrategy[Kind] = st.sampled_from(
    ["file", "file", "file", "directory", "directory", "symlink", "hardlink", "fifo", "character"]
)
_xattrs = st.sampled_from(
    [
        (),
        (),
        (("user.k", b"v"),),
        (("security.capability", b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), ("user.overlay.opaque", b"y")),
        (("system.posix_acl_default", DEFAULT_ACL),),
    ]
)
_entries = st.builds(
    Entry,
    path=_paths,
    kind=_kinds,
    data=st.sampled_from([b"", b"x", b"content" * 100]),
    link=_targets,
    mode=_modes,
    uid=_numbers,
    gid=_numbers,
    mtime_ns=st.sampled_from([0, 1_600_000_000_000_000_001, -1_500_000_000]),
    xattrs=_xattrs,
    device=st.just((1, 3)),
)
_refused = st.sampled_from(
    [
        Entry("../x"),
        Entry("a/../b"),
        Entry("a/.wh.b/x"),
        Entry(".wh."),
        Entry("n" * 256),
        Entry(".", "symlink", link="a"),
        Entry("a", uid=2**32 - 1),
        Entry("a/b", "character", device=(0, 0)),
        Entry("b", "hardlink", link="../../etc/passwd"),
        Entry("b", "hardlink", link="missing"),
        Entry("b", "symlink", link=""),
    ]
)
_whiteouts = st.one_of(_paths.map(whiteout), _paths.map(opaque), st.just(Entry(".wh..wh..opq")))
_pieces = st.one_of(
    *[_entries.map(lambda entry: (entry,))] * 8,
    *[_whiteouts.map(lambda entry: (entry,))] * 2,
    st.builds(lambda path: sparse(path, 300_000, 100_000, b"data" * 50), _paths),
    st.sampled_from([(Entry(".wh..wh.plnk/1"),), (directory(".", mode=0o2711),)]),
)
_layers = st.lists(_pieces, min_size=1, max_size=12)


def archive(pieces: Sequence[bytes | tuple[Entry, ...]]) -> bytes:
    written = b"".join(piece if isinstance(piece, bytes) else b"".join(tar(piece))[:-1024] for piece in pieces)
    return written + bytes(1024)


@given(
    layers=st.lists(_layers, min_size=1, max_size=3),
    refused=st.one_of(st.none(), st.none(), st.none(), _refused),
    cut=st.one_of(st.just(500), st.just(500), st.integers(0, 499)),  # 500ths of the last layer that arrive
    way=st.builds(
        Way,
        owners=st.booleans() if ROOT_USER else st.just(False),
        window=st.sampled_from([511, 4096, 1 << 20]),
        count=st.integers(1, 5),
        base=st.booleans(),
        thread=st.booleans(),
    ),
)
@example(  # the remembered way to a directory leads through a link that a file replaces
    layers=[
        [(directory("a"), symlink("a/l", "../a"), Entry("a/l/b"), Entry("a/l/l"), Entry("a/l/b"))],
    ],
    refused=None,
    cut=500,
    way=Way(),
)
@settings(max_examples=250, deadline=None)
def test_staged_and_fed_layers_give_the_same(
    layers: list[list[bytes | tuple[Entry, ...]]], refused: Entry | None, cut: int, way: Way
) -> None:
    archives = [archive(layer) for layer in layers]
    if refused:
        archives[-1] = archive([*layers[-1], (refused,)])
    archives[-1] = archives[-1][: len(archives[-1]) * cut // 500]
    way.compare(archives)


def test_a_file_moves_into_the_place_of_whatever_is_there() -> None:
    base = [directory("d"), Entry("d/f/deep/x"), Entry("f"), symlink("l", "d"), Entry("g"), hardlink("h", "g")]
    upper = [Entry("d/f", data=b"1"), Entry("f", data=b"2"), Entry("l", data=b"3"), Entry("h", data=b"4")]
    again = [Entry("d", data=b"5"), directory("f"), Entry("f/x", data=b"6"), Entry("f/x", data=b"7"), whiteout("g")]
    (*_, last) = Way().compare([archive([tuple(entries)]) for entries in (base, upper, again)])
    assert last[4:6] == (5, 3)


def test_an_inherited_acl_is_no_part_of_the_image() -> None:
    if not ROOT_USER:
        pytest.skip("needs root")
    acl = (("system.posix_acl_default", DEFAULT_ACL),)
    layers = [
        [Entry("d", "directory", mode=0o755, xattrs=acl), Entry("d/f"), Entry("d/implied/g"), Entry("d/p", "fifo")],
        [Entry("d/h"), directory("d/e")],
    ]
    with scratch() as work:
        for one in (Way().fed, Way().staged):
            root = Path(tempfile.mkdtemp(dir=work))
            Way().apply(root, [archive([tuple(entries)]) for entries in layers], one)
            found = {node.path: node.xattrs for node in listing(root)}
            if not found.pop("d"):
                pytest.skip("no ACLs on this file system")
            assert set(found.values()) == {()}
            assert {node.mode for node in listing(root) if node.kind == "file"} == {0o644}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to read what no mode lets others")
def test_modes_are_the_layers_whatever_the_umask_and_the_umask_stays() -> None:
    modes = [0o644, 0o755, 0o666, 0o777, 0o000, 0o400, 0o4711, 0o2775, 0o1777]
    files = [Entry(f"{mode:o}", mode=mode) for mode in modes]
    directories = [Entry(f"d{mode:o}/sub", "directory", mode=mode) for mode in modes]
    again = [Entry("d644", "directory", mode=0o700), Entry("d666", "directory"), Entry("d666", "directory", mode=0o755)]
    layer = archive([tuple(files), tuple(directories), tuple(again)])

    def apply(root: Path, one: Callable[..., None]) -> int:
        Way().apply(root, [layer], one)
        return os.umask(0o077)  # this thread's, or, in the first one, everybody's

    mask = os.umask(0o077)
    try:
        for one in (Way().fed, Way().staged):
            for pool in (None, ThreadPoolExecutor(1)):
                with scratch() as work:
                    root = work / "root"
                    root.mkdir()
                    assert (pool.submit(apply, root, one).result() if pool else apply(root, one)) == 0o077
                    found = {node.path: node.mode for node in listing(root)}
                    for mode in modes:
                        assert found[f"{mode:o}"] == found[f"d{mode:o}/sub"] == mode
                    assert (found["d644"], found["d666"], found["d755"]) == (0o700, 0o755, 0o755)
                if pool:
                    pool.shutdown()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(mask)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to read what no mode lets others")
def test_every_hostile_layer_is_judged_alike(shared: Path) -> None:
    decoders: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.decompress,
        ".bz2": bz2.decompress,
        ".zst": lambda data: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(),
    }
    judged = refused = 0
    folder = shared / "corpora" / "hostile"
    for case in json.loads((folder / "expected.json").read_text())["cases"]:
        paths = [folder / name for name in (*case.get("base", ()), case["file"])]
        if case["case"].startswith("Z") or max(path.stat().st_size for path in paths) > 4 << 20:
            continue  # bombs and damaged compression
        layers = [decoders.get(path.suffix, bytes)(path.read_bytes()) for path in paths]
        for way in (Way(), Way(owners=False, window=513, count=1, thread=True)):
            refused += bool(way.compare(layers)[-1][0])
            judged += 1
    assert judged > 400
    assert 100 < refused < judged


class _Disk:
    """Layers through the sinks, with the errors that callers see."""

    def __init__(self, work: Path) -> None:
        self.root, self.place = work / "root", work / "place"
        self.root.mkdir()
        self.place.mkdir(mode=0o700)
        self.pool = _core.Pool(4 * _core.BUFFER_SIZE)

    def buffer(self, data: bytes) -> _core.Buffer:
        buffer = self.pool.take()
        assert buffer is not None
        assert buffer.append(data) == len(data)
        return buffer


def test_a_stager_says_what_is_wrong_before_the_tree_is_touched(tmp_path: Path) -> None:
    disk = _Disk(tmp_path)
    with opened(disk.place) as place:
        for entry, error in ((Entry("../x"), UnsafePathError), (b"nonsense" * 64, FormatError)):
            stager = LayerStager(place, name="one", owners=ROOT_USER, **LIMITS)
            data = archive([(Entry("a"),), (entry,) if isinstance(entry, Entry) else entry])
            with disk_buffer(disk, data) as buffer, pytest.raises(error, match="layer one"):
                stager.feed(buffer)
            stager.abort()
            stager.abort()
            (disk.place / "0").unlink()
        assert os.listdir(disk.place) == []


@contextmanager
def disk_buffer(disk: _Disk, data: bytes) -> Iterator[_core.Buffer]:
    buffer = disk.buffer(data)
    try:
        yield buffer
    finally:
        buffer.release()


def test_sinks_stage_and_adopt_in_pieces(tmp_path: Path) -> None:
    disk = _Disk(tmp_path)
    data = archive([(directory("d"), Entry("d/f", data=b"text"), Entry("d/g"), hardlink("h", "d/f"))])
    with opened(disk.root) as root, opened(disk.place) as place:
        stager = LayerStager(place, name="one", owners=ROOT_USER, **LIMITS)
        with disk_buffer(disk, data) as buffer:
            stager.feed(buffer)
        stager.finish()
        assert (stager.entries, stager.bytes, sorted(os.listdir(place))) == (4, 4, ["0", "1"])
        writer = LayerWriter(root, name="one", base=True, max_directories=DIRECTORIES, owners=ROOT_USER, **LIMITS)
        assert writer.adopt(stager, 2)
        assert sorted(os.listdir(root)) == ["d"]
        assert os.listdir(place) == ["1"]
        while writer.adopt(stager, 2):
            pass
        writer.finish()
        stager.abort()
        assert (writer.entries, writer.bytes, os.listdir(place)) == (4, 4, [])
        assert (disk.root / "h").read_text() == "text"


def test_a_layer_that_is_adopted_only_in_part_is_not_finished(tmp_path: Path) -> None:
    disk = _Disk(tmp_path)
    with opened(disk.root) as root, opened(disk.place) as place:
        stager = LayerStager(place, name="one", owners=ROOT_USER, **LIMITS)
        writer = LayerWriter(root, name="one", base=True, max_directories=DIRECTORIES, owners=ROOT_USER, **LIMITS)
        with disk_buffer(disk, archive([(Entry("a"), Entry("b"))])) as buffer:
            stager.feed(buffer)
        stager.finish()
        assert writer.adopt(stager, 1)
        with pytest.raises(FormatError, match="ends inside"):
            writer.finish()
        stager.abort()
        writer.abort()


def test_a_stager_that_is_closed_or_not_finished_cannot_be_adopted(tmp_path: Path) -> None:
    with opened(tmp_path) as place:
        for close in (False, True):
            stager = _extract.Stager(place, owners=False, privileged=False, **LIMITS)
            if close:
                stager.finish()
                stager.close()
            extractor = _extract.Extractor(
                place, owners=False, privileged=False, base=False, max_directories=DIRECTORIES, **LIMITS
            )
            assert -extractor.adopt(stager, 1) == extractor.code != 0
            extractor.close()
            stager.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_log_that_finds_no_space_is_told(tmp_path: Path, small_disk: Path) -> None:
    disk = _Disk(tmp_path)
    layer = archive([tuple(symlink(f"l{number}", "t" * 4000) for number in range(100))])
    with opened(small_disk) as place:
        stager = LayerStager(place, name="one", owners=ROOT_USER, **LIMITS)
        with disk_buffer(disk, layer) as buffer, pytest.raises(StoreFullError, match="entry 'l"):
            stager.feed(buffer)
        stager.abort()
