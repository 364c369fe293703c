"""Layouts of documents that no copy may follow: each is written, and says with which error a copy of it must end.

A document names what it likes, under any digest, and is stored as the file that a puller would look for.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastoci.errors import BlobNotFoundError, FastociError, FormatError, IntegrityError, NotFoundError, UnsupportedError
from fastoci.image import mediatype
from fastoci.image.digest import Digest
from fastoci.image.layout import OCI_LAYOUT
from fastoci.limits import Limits
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry

IMAGE: Final = Image.build([Layer.build([Entry("file", "file", b"content")])])
Row = dict[str, Any]


class BadLayout:
    """A layout that is being written: its ``index.json`` names what ``top`` was given last."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._documents: dict[str, str] = {}  # media types
        self._top: Row = {}
        (directory / "blobs/sha256").mkdir(parents=True)
        (directory / "oci-layout").write_bytes(OCI_LAYOUT)
        for descriptor, content in [*IMAGE.documents(), *IMAGE.blobs()]:
            assert isinstance(content, bytes)
            self.put(content, descriptor.media_type)
        self.image: Row = {
            "mediaType": IMAGE.media_type,
            "digest": str(IMAGE.descriptor.digest),
            "size": len(IMAGE.manifest),
        }

    def put(self, data: bytes, media_type: str, *, digest: str = "") -> Row:
        """A blob, under its own digest or another one; what an index says of it."""
        named = Digest.parse(digest) if digest else Digest.of(data)
        (self.directory / "blobs" / named.algorithm / named.hex).write_bytes(data)
        if media_type in mediatype.MANIFESTS | mediatype.INDEXES:
            self._documents[str(named)] = media_type
        return {"mediaType": media_type, "digest": str(named), "size": len(data)}

    def index(self, *rows: Row, **fields: object) -> Row:
        form = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": list(rows), **fields}
        return self.put(json.dumps(form).encode(), mediatype.OCI_INDEX)

    def manifest(self, **fields: object) -> Row:
        form = json.loads(IMAGE.manifest) | fields
        return self.put(json.dumps(form).encode(), mediatype.OCI_MANIFEST)

    def top(self, row: Row) -> None:
        """What the layout is a layout of."""
        self._top = row
        form = {"schemaVersion": 2, "manifests": [row]}
        (self.directory / "index.json").write_text(json.dumps(form))

    def name_in_directory(self, digest: str) -> str:
        """What the file of a blob is called in a directory of skopeo's."""
        if digest == self._top["digest"]:
            return "manifest.json"
        return digest.partition(":")[2] + (".manifest.json" if digest in self._documents else "")

    def serve(self, registry: Registry) -> str:
        """Serve it, whatever it is, and its top as ``bad:1``."""
        for path in (self.directory / "blobs/sha256").iterdir():
            digest, data = f"sha256:{path.name}", path.read_bytes()
            registry.add_blob(digest, data)
            if digest in self._documents:
                registry.add_manifest("bad", digest, self._documents[digest], data)
            if digest == self._top["digest"]:
                registry.add_manifest("bad", "1", self._top["mediaType"], data, digest=digest)
        return f"{registry.address}/bad:1"


def both_at_once(layout: BadLayout) -> None:
    layout.top(layout.index(layout.image, layers=[], config=layout.image))


def manifest_with_manifests(layout: BadLayout) -> None:
    layout.top(layout.manifest(manifests=[layout.image]))


def index_called_manifest(layout: BadLayout) -> None:
    layout.top({**layout.index(layout.image), "mediaType": mediatype.OCI_MANIFEST})


def manifest_called_index(layout: BadLayout) -> None:
    layout.top({**layout.image, "mediaType": mediatype.OCI_INDEX})


def entry_of_another_kind(layout: BadLayout) -> None:
    layout.top(layout.index({**layout.index(layout.image), "mediaType": mediatype.OCI_MANIFEST}))


def path_as_digest(layout: BadLayout) -> None:
    (layout.directory / "secret").write_bytes(b"secret")
    layout.top(layout.manifest(config={"mediaType": "a/b", "digest": "sha256:../../secret", "size": 6}))


def path_as_digest_of_the_top(layout: BadLayout) -> None:
    layout.top({**layout.image, "digest": "sha256:../../oci-layout"})


def path_as_algorithm(layout: BadLayout) -> None:
    layout.top(layout.manifest(layers=[{"mediaType": "a/b", "digest": f"../blobs/sha256:{'0' * 64}", "size": 1}]))


def unknown_algorithm(layout: BadLayout) -> None:
    layout.top(layout.manifest(layers=[{"mediaType": "a/b", "digest": f"blake3:{'0' * 64}", "size": 1}]))


def unknown_algorithm_in_an_index(layout: BadLayout) -> None:
    layout.top(layout.index(layout.image, {**layout.image, "digest": f"blake3:{'0' * 64}"}))


def two_sizes(layout: BadLayout) -> None:
    layout.top(layout.index(layout.image, {**layout.image, "size": 1}))


def cycle(layout: BadLayout) -> None:
    """Two indexes that name each other: one of the digests must be a lie."""
    first, second = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    size = len(json.dumps({"schemaVersion": 2, "manifests": [{**layout.image, "digest": first, "size": 999}]}))
    for own, other in ((first, second), (second, first)):
        row = {"mediaType": mediatype.OCI_INDEX, "digest": other, "size": size}
        data = json.dumps({"schemaVersion": 2, "manifests": [row]}).encode()
        layout.put(data.ljust(size), mediatype.OCI_INDEX, digest=own)
    layout.top({"mediaType": mediatype.OCI_INDEX, "digest": first, "size": size})


def too_deep(layout: BadLayout) -> None:
    row = layout.image
    for _ in range(Limits().index_depth + 1):
        row = layout.index(row)
    layout.top(row)


def too_wide(layout: BadLayout) -> None:
    rows = [{**layout.image, "digest": f"sha256:{number:064x}"} for number in range(Limits().index_entries + 1)]
    layout.top(layout.index(*rows))


def too_many_documents(layout: BadLayout) -> None:
    layout.top(layout.index(*(layout.index(layout.image, n=number) for number in range(Limits().documents))))


def other_bytes_of_a_manifest(layout: BadLayout) -> None:
    data = IMAGE.manifest.replace(b"schemaVersion", b"schemaversion")
    layout.top(layout.put(data, IMAGE.media_type, digest=str(IMAGE.descriptor.digest)))


def other_bytes_of_a_layer(layout: BadLayout) -> None:
    layer = IMAGE.layers[0].descriptor
    layout.put(b"x" * layer.size, layer.media_type, digest=str(layer.digest))
    layout.top(layout.image)


def cut_layer(layout: BadLayout) -> None:
    layer = IMAGE.layers[0].descriptor
    layout.put(b"x", layer.media_type, digest=str(layer.digest))
    layout.top(layout.image)


def data_that_is_other(layout: BadLayout) -> None:
    layout.top({**layout.image, "data": "eHh4"})


def absent_layer(layout: BadLayout) -> None:
    (layout.directory / "blobs/sha256" / IMAGE.layers[0].descriptor.digest.hex).unlink()
    layout.top(layout.image)


def archive(layout: BadLayout, path: Path) -> None:
    """The same as one tar."""
    with tarfile.open(path, "w") as tar:
        tar.add(layout.directory, ".")


def directory(layout: BadLayout, path: Path) -> None:
    """The same as skopeo's form of one image: nothing there says what the document at the top is."""
    path.mkdir()
    for blob in (layout.directory / "blobs/sha256").iterdir():
        name = layout.name_in_directory(f"sha256:{blob.name}")
        (path / name).write_bytes(blob.read_bytes())


class Bad(NamedTuple):
    """What is written, and how a copy of all of it ends: out of a layout, and out of a registry."""

    write: Callable[[BadLayout], None]
    error: type[FastociError]
    served: type[FastociError] | None = None  # None: the same


# A registry names its documents by tags, without what a layout says of them.
_LAYOUT_ALONE: Final = FastociError

BAD: Final = {
    "a document that is manifest and index": Bad(both_at_once, FormatError),
    "a manifest with manifests": Bad(manifest_with_manifests, FormatError),
    "an index that is called a manifest": Bad(index_called_manifest, FormatError),
    "a manifest that is called an index": Bad(manifest_called_index, FormatError),
    "an entry of another kind": Bad(entry_of_another_kind, FormatError),
    "a path as a digest": Bad(path_as_digest, FormatError),
    "a path as the digest of the top": Bad(path_as_digest_of_the_top, FormatError, _LAYOUT_ALONE),
    "a path as an algorithm": Bad(path_as_algorithm, FormatError),
    "an unknown algorithm": Bad(unknown_algorithm, UnsupportedError),
    "an unknown algorithm in an index": Bad(unknown_algorithm_in_an_index, FormatError),
    "one digest with two sizes": Bad(two_sizes, FormatError),
    "a cycle of indexes": Bad(cycle, IntegrityError),
    "indexes too deep": Bad(too_deep, FormatError),
    "an index too wide": Bad(too_wide, FormatError),
    "too many documents": Bad(too_many_documents, FormatError),
    "other bytes of a manifest": Bad(other_bytes_of_a_manifest, IntegrityError),
    "other bytes of a layer": Bad(other_bytes_of_a_layer, IntegrityError),
    "a layer that is cut": Bad(cut_layer, IntegrityError),
    "data that is other": Bad(data_that_is_other, FormatError, _LAYOUT_ALONE),
    "an absent layer": Bad(absent_layer, BlobNotFoundError, NotFoundError),
}
