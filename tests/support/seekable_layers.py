"""Layers in the two forms of which a reader may take one file alone, as other tools write them.

eStargz: a gzip member for each entry, a table of contents as the last entry, an empty member that says where it is.
zstd:chunked: a zstd frame for each entry, then frames that decoders skip: the table, and where it is.
Spec: stargz-snapshotter docs/estargz.md; containers/storage docs/containers-storage-zstd-chunked.md.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence

import zstandard
from msgspec.structs import replace

from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.testing.layers import Entry, Layer, tar

TABLE = "stargz.index.json"  # of contents, an entry of the tar
_END = 1024  # bytes, of a tar
_SKIPPED = 0x184D2A50


def estargz(entries: Sequence[Entry]) -> tuple[Layer, Entry]:
    """The layer, and its last entry."""
    blob, table = b"", []
    for entry, piece in _pieces(entries):
        table.append({"name": entry.path, "type": "reg" if entry.kind == "file" else "dir", "offset": len(blob)})
        blob += gzip.compress(piece, mtime=0)
    contents = Entry(TABLE, data=json.dumps({"version": 1, "entries": table}).encode())
    last = b"".join(tar([contents]))
    where = len(blob)
    blob += gzip.compress(last, mtime=0) + _footer(where)
    whole = b"".join(tar([*entries, contents]))
    digest = hashlib.sha256(contents.data if isinstance(contents.data, bytes) else b"").hexdigest()
    told = {"containerd.io/snapshot/stargz/toc.digest": f"sha256:{digest}"}
    layer = replace(Descriptor.of(blob, mediatype.OCI_LAYER_GZIP), annotations=told)
    return Layer(layer, Digest.of(whole), blob), contents


def zstd_chunked(entries: Sequence[Entry]) -> Layer:
    """The layer."""
    compress = zstandard.ZstdCompressor().compress
    blob, table = b"", []
    for entry, piece in _pieces(entries):
        table.append({"name": entry.path, "type": "reg" if entry.kind == "file" else "dir", "offset": len(blob)})
        blob += compress(piece)
    blob += compress(bytes(_END))
    plain = json.dumps({"version": 1, "entries": table}).encode()
    packed = compress(plain)
    place = (len(blob) + 8, len(packed), len(plain), 1)
    blob += _skipped(packed) + _skipped(struct.pack("<7Q", *place, 0, 0, 0) + b"GNUlInUx")
    told = {"io.github.containers.zstd-chunked.manifest-position": ":".join(map(str, place))}
    layer = replace(Descriptor.of(blob, mediatype.OCI_LAYER_ZSTD), annotations=told)
    return Layer(layer, Digest.of(b"".join(tar(entries))), blob)


def _pieces(entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Each entry with its part of the tar."""
    for entry in entries:
        yield entry, b"".join(tar([entry]))[:-_END]


def _skipped(data: bytes) -> bytes:
    return struct.pack("<II", _SKIPPED, len(data)) + data


def _footer(where: int) -> bytes:
    """A gzip member of nothing, whose extra field says where the table begins."""
    field = f"{where:016x}STARGZ".encode()
    extra = b"SG" + struct.pack("<H", len(field)) + field
    header = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + struct.pack("<H", len(extra)) + extra
    deflate = zlib.compressobj(0, zlib.DEFLATED, -15)
    return header + deflate.compress(b"") + deflate.flush() + bytes(8)
