"""The layer builder, held against the standard library's tar and decompressors."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
import zstandard

from fastoci.testing.layers import (
    TIME_NS,
    Compression,
    Entry,
    Layer,
    Seeded,
    directory,
    from_directory,
    from_seed,
    hardlink,
    opaque,
    symlink,
    tar,
    whiteout,
)

ENTRIES = [
    directory("etc", mode=0o2750),
    Entry("etc/motd", data=b"hello\n", mode=0o4755, uid=1000, gid=3_000_000_000, mtime_ns=TIME_NS + 123_456_789),
    Entry("etc/caps", data=b"x" * 513, xattrs=(("user.note", b"a\0b"), ("security.capability", b"\x01\xff\x80"))),
    symlink("etc/link", "/etc/motd"),
    hardlink("etc/again", "etc/motd"),
    Entry("dev/null", "character", device=(1, 3), mode=0o666),
    Entry("dev/pipe", "fifo"),
    Entry("n" * 180 + "/" + "m" * 180, data=b"long"),
    Entry("latin-\udce9", data=b"not UTF-8"),
]


def members(content: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content), encoding="utf-8", errors="surrogateescape") as archive:
        return {member.name: member for member in archive}


def test_the_standard_library_reads_what_was_asked_for() -> None:
    found = members(b"".join(tar(ENTRIES)))
    assert list(found) == [entry.path for entry in ENTRIES]
    motd = found["etc/motd"]
    assert (motd.mode, motd.uid, motd.gid, motd.size) == (0o4755, 1000, 3_000_000_000, 6)
    assert motd.pax_headers["mtime"] == "1700000000.123456789"
    assert found["etc/link"].linkname == "/etc/motd"
    assert found["etc/again"].islnk() and found["etc/again"].linkname == "etc/motd"
    assert (found["dev/null"].devmajor, found["dev/null"].devminor) == (1, 3)
    assert found["etc/caps"].pax_headers["SCHILY.xattr.user.note"] == "a\0b"


@pytest.mark.parametrize(
    ("mtime_ns", "written"),
    [(-250_000_000, "-0.250000000"), (-1_750_000_000, "-1.750000000"), (-1_000_000_000, "-1"), (1, "0.000000001")],
)
def test_times_before_the_epoch_and_fractions_are_written_as_decimals(mtime_ns: int, written: str) -> None:
    found = members(b"".join(tar([Entry("f", mtime_ns=mtime_ns)])))
    assert found["f"].pax_headers["mtime"] == written


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_digest_and_diff_id_are_those_of_the_bytes(compression: Compression) -> None:
    layer = Layer.build(ENTRIES, compression)
    assert isinstance(layer.content, bytes)
    assert str(layer.descriptor.digest) == f"sha256:{hashlib.sha256(layer.content).hexdigest()}"
    assert layer.descriptor.size == len(layer.content)
    plain = layer.content
    if compression == "gzip":
        plain = gzip.decompress(layer.content)
    elif compression == "zstd":
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(layer.content)
    assert str(layer.diff_id) == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert plain == b"".join(tar(ENTRIES))


def test_the_same_seed_gives_the_same_layer_in_memory_and_in_a_file(tmp_path: Path) -> None:
    entries = list(from_seed(7, files=250, size=3000))
    memory, file = Layer.build(entries), Layer.build(from_seed(7, files=250, size=3000), into=tmp_path)
    assert memory.descriptor == file.descriptor
    assert isinstance(file.content, Path)
    assert file.content.read_bytes() == memory.content
    assert os.listdir(tmp_path) == [file.descriptor.digest.hex]
    assert Layer.build(from_seed(8, files=250, size=3000)).descriptor != memory.descriptor
    assert sum(entry.kind == "file" for entry in entries) == 250


def test_a_builder_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Layer.build([Entry("gone", data=tmp_path / "gone")], into=tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, (1 << 20) + 7])
def test_seeded_content_has_the_size_asked_for(size: int) -> None:
    content = b"".join(Seeded(3, size).chunks())
    assert len(content) == size
    assert content == b"".join(Seeded(3, size).chunks())


def test_compressibility_shows_in_the_compressed_size() -> None:
    sizes = [
        len(gzip.compress(b"".join(Seeded(1, 1 << 20, share).chunks()), 1)) / (1 << 20) for share in (0.0, 0.5, 1.0)
    ]
    assert sizes[0] > 0.99
    assert 0.45 < sizes[1] < 0.6
    assert sizes[2] < 0.1


def test_whiteouts_stand_beside_what_they_delete() -> None:
    assert whiteout("a/b").path == "a/.wh.b"
    assert whiteout("b").path == ".wh.b"
    assert opaque("a/b").path == "a/b/.wh..wh..opq"


def test_a_directory_of_the_machine_becomes_entries(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir(mode=0o750)
    (tmp_path / "sub" / "file").write_bytes(b"data")
    os.link(tmp_path / "sub" / "file", tmp_path / "sub" / "zz")
    os.symlink("file", tmp_path / "sub" / "link")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "skipped").mkdir()
    entries = {entry.path: entry for entry in from_directory(tmp_path, at="opt/x", skip={"skipped"})}
    assert list(entries) == ["opt/x", "opt/x/pipe", "opt/x/sub"] + [f"opt/x/sub/{n}" for n in ("file", "link", "zz")]
    assert entries["opt/x/sub"].mode == 0o750
    assert entries["opt/x/sub/file"].mtime_ns == (tmp_path / "sub" / "file").stat().st_mtime_ns
    assert entries["opt/x/sub/zz"] == hardlink("opt/x/sub/zz", "opt/x/sub/file")
    assert entries["opt/x/sub/link"].link == "file"
    assert entries["opt/x/pipe"].kind == "fifo"


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"1")
    pieces = tar([Entry("log", data=path)])
    next(pieces)
    path.write_bytes(b"123")
    with pytest.raises(ValueError, match="log: its length"):
        list(pieces)
