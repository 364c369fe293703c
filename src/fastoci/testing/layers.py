"""Layers made to order: entries, the tar they become, and its compression. The same entries give the same bytes.

Knows nothing of manifests or registries, and takes any entry, also those that a puller must refuse.
Spec: image-spec v1.1 layer.md; POSIX pax.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import stat
import tarfile
import tempfile
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import zstandard
from isal import isal_zlib

from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest

Kind = Literal["file", "directory", "symlink", "hardlink", "fifo", "character", "block"]
Compression = Literal["gzip", "zstd", "none"]

TIME_NS: Final = 1_700_000_000_000_000_000
_CHUNK: Final = 1 << 20
_BLOCK: Final = 4096
_TYPES: Final[dict[Kind, bytes]] = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}
_SUFFIXES: Final[dict[Compression, str]] = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}


@dataclass(frozen=True, slots=True)
class Seeded:
    """``size`` bytes that follow from ``seed``; ``compressibility`` 0.0 is noise, 1.0 is words, over and over."""

    seed: int
    size: int
    compressibility: float = 0.6

    def chunks(self) -> Iterator[bytes]:
        """The bytes, in pieces of at most 1 MiB."""
        rng = random.Random(self.seed)
        noise = max(16, round(_BLOCK * (1.0 - self.compressibility)))
        words = _words()
        start = rng.randrange(len(words) - _BLOCK)
        filler = words[start : start + _BLOCK - noise]
        for start in range(0, self.size, _CHUNK):
            length = min(_CHUNK, self.size - start)
            drawn = rng.randbytes(noise * -(-length // _BLOCK))
            yield b"".join(drawn[i : i + noise] + filler for i in range(0, len(drawn), noise))[:length]


@functools.cache
def _words() -> bytes:
    rng = random.Random("words")
    vocabulary = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(400)]
    return b" ".join(rng.choices(vocabulary, k=12_000))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a layer. ``path`` and ``link`` may hold surrogate escapes; ``link`` is a link's target."""

    path: str
    kind: Kind = "file"
    data: bytes | Path | Seeded = b""
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = TIME_NS
    xattrs: tuple[tuple[str, bytes], ...] = ()
    device: tuple[int, int] = (0, 0)  # major, minor

    @property
    def size(self) -> int:
        """The length of a file's content."""
        if self.kind != "file":
            return 0
        if isinstance(self.data, bytes):
            return len(self.data)
        return self.data.size if isinstance(self.data, Seeded) else self.data.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        """The content of a file, in pieces."""
        if isinstance(self.data, bytes):
            yield self.data
        elif isinstance(self.data, Seeded):
            yield from self.data.chunks()
        else:
            with self.data.open("rb") as file:
                while piece := file.read(_CHUNK):
                    yield piece


def directory(path: str, *, mode: int = 0o755, mtime_ns: int = TIME_NS) -> Entry:
    """A directory."""
    return Entry(path, "directory", mode=mode, mtime_ns=mtime_ns)


def symlink(path: str, target: str, *, mtime_ns: int = TIME_NS) -> Entry:
    """A symbolic link with ``target`` as it is given."""
    return Entry(path, "symlink", link=target, mode=0o777, mtime_ns=mtime_ns)


def hardlink(path: str, target: str) -> Entry:
    """A second name of the file that the image has at ``target``."""
    return Entry(path, "hardlink", link=target)


def whiteout(path: str) -> Entry:
    """The deletion of what lower layers have at ``path``."""
    parent, _, name = path.rpartition("/")
    return Entry(f"{parent}/.wh.{name}".lstrip("/"))


def opaque(path: str) -> Entry:
    """The deletion of everything that lower layers have below the directory ``path``."""
    return Entry(f"{path}/.wh..wh..opq")


def from_seed(seed: int, *, files: int, size: int, compressibility: float = 0.6, at: str = "data") -> Iterator[Entry]:
    """``ref_files`` files of ``size`` bytes on average, a hundred to a directory below ``at``."""
    rng = random.Random(seed)
    yield directory(at)
    for number in range(files):
        if number % 100 == 0:
            yield directory(f"{at}/{number // 100:04d}")
        length = rng.randint(size // 2, size + size // 2) if files > 1 else size
        data = Seeded(rng.getrandbits(48), length, compressibility)
        path = f"{at}/{number // 100:04d}/{number:06d}"
        mode = 0o755 if number % 16 == 0 else 0o644
        yield Entry(path, data=data, mode=mode, mtime_ns=TIME_NS + number * 1_000_001)


def from_directory(root: Path, *, at: str = "", skip: Container[str] = ()) -> Iterator[Entry]:
    """What ``root`` holds, below ``at``, by name; leaves out names in ``skip``, sockets, the unreadable."""
    links: dict[tuple[int, int], str] = {}
    todo = [(root, at)]
    while todo:
        path, name = todo.pop()
        facts = path.lstat()
        if name:
            entry = _entry_of(path, name, facts, links)
            if entry is None:
                continue
            yield entry
        if stat.S_ISDIR(facts.st_mode) and os.access(path, os.R_OK | os.X_OK):
            below = sorted(set(os.listdir(path)), reverse=True)
            todo += [(path / item, f"{name}/{item}" if name else item) for item in below if item not in skip]


def _entry_of(path: Path, name: str, facts: os.stat_result, links: dict[tuple[int, int], str]) -> Entry | None:
    kinds: dict[int, Kind] = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symlink",
        stat.S_IFIFO: "fifo",
        stat.S_IFCHR: "character",
        stat.S_IFBLK: "block",
    }
    kind = kinds.get(stat.S_IFMT(facts.st_mode))
    if kind is None or (kind == "file" and not os.access(path, os.R_OK)):
        return None
    if kind != "directory" and facts.st_nlink > 1:
        first = links.setdefault((facts.st_dev, facts.st_ino), name)
        if first != name:
            return hardlink(name, first)
    return Entry(
        name,
        kind,
        data=path if kind == "file" else b"",
        link=os.readlink(path) if kind == "symlink" else "",
        mode=stat.S_IMODE(facts.st_mode),
        uid=facts.st_uid,
        gid=facts.st_gid,
        mtime_ns=facts.st_mtime_ns,
        xattrs=_xattrs(path) if kind in ("file", "directory") else (),
        device=(os.major(facts.st_rdev), os.minor(facts.st_rdev)) if kind in ("character", "block") else (0, 0),
    )


def _xattrs(path: Path) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, os.getxattr(path, name)) for name in sorted(os.listxattr(path)))


def tar(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The uncompressed layer, in pieces.

    Raises:
        ValueError: a file of the machine changed its length meanwhile.
    """
    for entry in entries:
        length = rest = entry.size
        yield _header(entry, length)
        for piece in entry.chunks() if entry.kind == "file" else ():
            rest -= len(piece)
            yield piece
        if rest:
            raise ValueError(f"{entry.path}: its length is not what it was")
        yield bytes(-length % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(entry: Entry, size: int) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.linkname = entry.link
    info.size = size
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.devmajor, info.devminor = entry.device
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    info.mtime = seconds
    headers = {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs}
    if nanoseconds:
        # A negative time with a fraction counts down from zero: -0.25 s is "-0.25", not "-1.75".
        sign, total = ("-", -entry.mtime_ns) if entry.mtime_ns < 0 else ("", entry.mtime_ns)
        headers["mtime"] = f"{sign}{total // 1_000_000_000}.{total % 1_000_000_000:09d}"
    info.pax_headers = headers
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes:
        """Take bytes, give those that are ready."""

    def flush(self) -> bytes:
        """Give the rest."""


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        """Give the bytes as they are."""
        return data

    def flush(self) -> bytes:
        """Nothing is left."""
        return b""


def _compressor(compression: Compression) -> _Compressor:
    if compression == "gzip":
        gzip: _Compressor = isal_zlib.compressobj(isal_zlib.ISAL_DEFAULT_COMPRESSION, wbits=31)
        return gzip
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=3).compressobj()
    return _Plain()


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as a registry holds it. ``content`` is the compressed tar, or the file that has it."""

    descriptor: Descriptor
    diff_id: Digest
    content: bytes | Path

    @classmethod
    def build(
        cls,
        entries: Iterable[Entry],
        compression: Compression = "gzip",
        *,
        docker: bool = False,
        into: Path | None = None,
    ) -> Layer:
        """Write the entries as a layer, in memory, or as a file named by its digest in the directory ``into``."""
        media_type = f"application/vnd.oci.image.layer.v1.tar{_SUFFIXES[compression]}"
        if docker:
            media_type = "application/vnd.docker.image.rootfs.diff.tar" + (".gzip" if compression == "gzip" else "")
        inner = _Counted(tar(entries))
        outer = _Counted(_compressed(inner, _compressor(compression)))
        content = b"".join(outer) if into is None else _file(outer, into)
        return cls(Descriptor(media_type, outer.digest, outer.size), inner.digest, content)


class _Counted:
    """Passes pieces on, and knows their digest and size in the end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.size = 0
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self._hash.update(piece)
            self.size += len(piece)
            yield piece

    @property
    def digest(self) -> Digest:
        """Of the pieces so far."""
        return Digest.parse(f"sha256:{self._hash.hexdigest()}")


def _compressed(pieces: Iterable[bytes], compressor: _Compressor) -> Iterator[bytes]:
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _file(pieces: _Counted, directory: Path) -> Path:
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".layer-") as file:
        file.writelines(pieces)
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # other users' servers read it too
        path = directory / pieces.digest.hex
        path.unlink(missing_ok=True)
        os.link(file.name, path)
    return path
