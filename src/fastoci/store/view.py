"""``index.json``: the references as other tools see them, beside what those tools wrote there themselves.

A view, never the truth: it can be made again from the references. Synchronous, for threads.
Spec: docs/store-format.md 7; image-spec v1.1 image-layout.md, "index.json file".
"""

from __future__ import annotations

import json
import os
from typing import Final

from fastoci.errors import FormatError, StoreError, UnsupportedError
from fastoci.image import index
from fastoci.image.descriptor import encode
from fastoci.image.layout import REF_NAME, encode_index
from fastoci.image.links import Link
from fastoci.image.mediatype import OCI_INDEX
from fastoci.store import disk, lock
from fastoci.store.paths import Paths
from fastoci.store.refs import Ref, Refs

# An entry is ours when this annotation repeats its name and digest: tools carry annotations along to changed copies.
OURS: Final = "io.fastoci.ref"
_REFS: Final = 1000  # from here on, reading them all for every job costs more than the view is worth
_SIZE: Final = 64 << 20  # bytes of an index.json that is read

Entry = dict[str, object]


def update_index(paths: Paths, refs: Refs) -> bool:
    """Bring ``index.json`` up to date, under the store's lock; whether it changed.

    With many references none is listed. Entries of other tools stay as they are.

    Raises:
        StoreError: the disk refused, or an ``index.json`` is there that does not parse: it is left as it is.
    """
    with disk.translated("update", f"{paths.root}/index.json"):
        held = lock.acquire(paths.lock, wait=True)
        assert held is not None
        try:
            document = _read(f"{paths.root}/index.json")
            before = document["manifests"] or []
            assert isinstance(before, list)
            foreign = [entry for entry in before if not _is_ours(entry)]
            taken = {_annotations(entry).get(REF_NAME) for entry in foreign}
            listed = () if refs.more_than(_REFS - 1) else refs.list()[0]
            manifests = foreign + [_entry(ref) for ref in listed if ref.name not in taken]
            if manifests == before:
                return False
            data = json.dumps({**document, "manifests": manifests}, indent=1).encode() + b"\n"
            disk.replace(paths.root, "index.json", data, temporary=".index.json.new")
        finally:
            os.close(held)
    return True


def foreign(paths: Paths) -> list[Link]:
    """What other tools have listed: roots of gc beside the references.

    Raises:
        StoreError: the file does not parse, or the disk refused.
    """
    entries = _read(f"{paths.root}/index.json")["manifests"] or []
    assert isinstance(entries, list)
    return [Link(entry["mediaType"], entry["digest"], entry["size"]) for entry in entries if not _is_ours(entry)]


def _read(path: str) -> dict[str, object]:
    data = disk.read(path, _SIZE)
    if data is None:
        data = encode_index(())
    try:
        index.parse(data, OCI_INDEX)
    except (FormatError, UnsupportedError) as error:
        raise StoreError(f"{path} is no index of an OCI layout: {error}", path=path) from error
    # Plain values from here on: entries of others may have fields that are unknown here, and must keep them.
    document = json.loads(data)
    assert isinstance(document, dict)
    return document


def _is_ours(entry: Entry) -> bool:
    annotations = _annotations(entry)
    return annotations.get(OURS) == _mark(annotations.get(REF_NAME, ""), str(entry["digest"]))


def _mark(name: str, digest: str) -> str:
    return f"{name} {digest}"


def _annotations(entry: Entry) -> dict[str, str]:
    annotations = entry.get("annotations")
    return annotations if isinstance(annotations, dict) else {}


def _entry(ref: Ref) -> Entry:
    """One platform: its manifest, which every tool can read; several, or none: what the name led to."""
    descriptor = next(iter(ref.images.values())) if len(ref.images) == 1 else ref.descriptor
    entry = encode(descriptor)
    annotations = {**descriptor.annotations, REF_NAME: ref.name, OURS: _mark(ref.name, str(descriptor.digest))}
    return {**entry, "annotations": dict(sorted(annotations.items()))}
