"""``index.json``: the references as other tools see them; and what those tools write there becomes references.

A copy, never the truth: it can be made again from the references. Synchronous, for threads.
Spec: docs/store-format.md 7; image-spec v1.1 image-layout.md, "index.json file".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from fastoci import files, locks
from fastoci.errors import BlobNotFoundError, FastociError, FormatError, StoreError, UnsupportedError
from fastoci.image import config as config_document
from fastoci.image import index
from fastoci.image import manifest as manifest_document
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.layout import REF_NAME, encode_index
from fastoci.image.links import Link
from fastoci.image.mediatype import INDEXES, MANIFESTS, OCI_INDEX
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.store.layout import INDEX, LOCK, StoreLayout
from fastoci.store.refs import Refs

# An entry is ours when this annotation repeats its name, the reference's and its digest: tools carry annotations along
# to entries that they change or copy.
OURS: Final = "io.fastoci.ref"
_REFS: Final = 1000  # from here on, reading them all for every job costs more than the file is worth
_SIZE: Final = 64 << 20  # bytes of an index.json that is read
_DOCUMENT: Final = 4 << 20  # bytes of a manifest or config that is read

Entry = dict[str, object]


def update_index(paths: StoreLayout, refs: Refs) -> bool:
    """Adopt what other tools wrote into ``index.json``, then bring it up to date, under a lock; whether it changed.

    With many references only what was adopted is listed, under the names that the other tools gave it.

    Raises:
        StoreError: the disk refused, or an ``index.json`` is there that does not parse: it is left as it is.
    """
    with files.translated("update", paths.top.at(INDEX)):
        adopt(paths, refs)  # before the lock, because references have locks that come first
        held = locks.acquire(paths.top, LOCK, wait=True)
        assert held is not None
        try:
            document = _read(paths)
            before = _entries(document)
            listed = {} if refs.more_than(_REFS - 1) else {ref.name: ref for ref in refs.list()[0]}
            kept = [entry for entry in (_kept(entry, paths, refs) for entry in before) if entry is not None]
            taken = {name for entry in kept for name in (_annotations(entry).get(REF_NAME), _mark_of(entry))}
            manifests = kept + [_entry(ref) for ref in listed.values() if ref.name not in taken]
            if manifests == before:
                return False
            data = json.dumps({**document, "manifests": manifests}, indent=1).encode() + b"\n"
            files.replace(paths.top, INDEX, data, temporary=f".{INDEX}.new")
        finally:
            os.close(held)
    return True


def adopt(paths: StoreLayout, refs: Refs) -> tuple[str, ...]:
    """Make references of the entries that other tools wrote; the names of the new or changed ones.

    An entry under a name that a reference has moves the name, unless it was pulled since ``index.json`` was written:
    then the entry becomes a reference by its digest. So do all but the first of several entries under one name.
    Entries without a name, or with one that is not a reference, and those whose manifest is not here, stay entries.

    Raises:
        StoreError: the disk refused, or ``index.json`` does not parse.
    """
    foreign = [entry for entry in _entries(_read(paths)) if not _mark_of(entry)]
    if not foreign:
        return ()
    with suppress(FileNotFoundError):
        written = datetime.fromtimestamp(paths.top.stat(INDEX).st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        taken: set[str] = set()
        return tuple(name for entry in foreign if (name := _adopt(entry, paths, refs, written, taken)))
    return ()


def foreign(paths: StoreLayout) -> list[Link]:
    """What other tools have listed and is not a reference: roots of gc, too.

    Raises:
        StoreError: the file does not parse, or the disk refused.
    """
    entries = [entry for entry in _entries(_read(paths)) if not _mark_of(entry)]
    return list(map(Link.of, _parsed(entries)))


def _parsed(entries: Sequence[Entry]) -> tuple[Descriptor, ...]:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return index.parse(json.dumps(document).encode(), OCI_INDEX).manifests


def _adopt(entry: Entry, paths: StoreLayout, refs: Refs, written: str, taken: set[str]) -> str:
    """The name under which an entry became a reference; empty when it did not, or was one.

    Args:
        taken: the names of the entries before it, to which its own is added.
    """
    name = _annotations(entry).get(REF_NAME, "")
    try:
        reference = Reference.parse(name)
        [blob] = _parsed([entry])
        images = _images(blob, paths)
    except FastociError:
        return ""
    before = _find(str(reference), refs)
    is_taken = str(reference) in taken
    taken.add(str(reference))
    if _is_of(before, str(blob.digest)):
        return ""
    if is_taken or (before is not None and before.pulled_at > written):
        reference = Reference(reference.domain, reference.path, None, blob.digest)
    annotations = {key: text for key, text in blob.annotations.items() if key not in (REF_NAME, OURS)}
    top = Descriptor(blob.media_type, blob.digest, blob.size, annotations=annotations)
    refs.set(StoredImage(str(reference), top, images, written))
    return str(reference)


def _images(blob: Descriptor, paths: StoreLayout) -> Mapping[str, Descriptor]:
    """The manifests that are here, by platform.

    Raises:
        BlobNotFoundError: none is.
        FormatError, UnsupportedError: no manifest or index.
    """
    data = _document(blob, paths)
    if blob.media_type in INDEXES:
        held = {}
        for child in index.parse(data, blob.media_type, choosing=True).manifests:
            if child.media_type in MANIFESTS and paths.holds(child.digest):
                held[str(child.platform or "unknown")] = child
        if not held:
            text = f"no manifest of {blob.digest} is here"
            raise BlobNotFoundError(text, path=paths.blob(blob.digest), subject=str(blob.digest))
        return held
    manifest = manifest_document.parse(data, blob.media_type)
    platform = blob.platform
    if platform is None:
        with suppress(FastociError):
            config = config_document.parse(_document(manifest.config, paths))
            platform = config.platform if config.os else None
    image = Descriptor(blob.media_type, blob.digest, blob.size, platform=platform)
    return {str(platform) if platform else "unknown": image}


def _document(blob: Descriptor, paths: StoreLayout) -> bytes:
    path = paths.blob(blob.digest)
    data = None
    with files.translated("read", path), suppress(FileNotFoundError):
        data = files.read(paths.blobs(blob.digest.algorithm), blob.digest.hex, _DOCUMENT)
    if data is None or Digest.of(data, blob.digest.algorithm) != blob.digest:
        text = f"the store has no {blob.digest}, or a damaged one ({path})"
        raise BlobNotFoundError(text, path=path, subject=str(blob.digest))
    return data


def _kept(entry: Entry, paths: StoreLayout, refs: Refs) -> Entry | None:
    """An entry of another tool, marked when it became a reference; None for one that is made again, or is over."""
    mark = _mark_of(entry)
    annotations = _annotations(entry)
    name, digest = annotations.get(REF_NAME, ""), str(entry["digest"])
    if mark:
        return None if mark == name or not _is_of(_find(mark, refs), digest) else entry
    try:
        reference = str(Reference.parse(name))
    except FastociError:
        return entry
    ref = _find(reference, refs)
    if _is_of(ref, digest):
        marked = {**annotations, OURS: _mark(name, reference, digest)}
        return None if reference == name else {**entry, "annotations": marked}
    if _is_by_digest(entry, refs):
        return None
    [blob] = _parsed([entry])
    # Under a name of ours, and of an image that is not here: ours is of more use.
    return entry if ref is None or reference != name or paths.holds(blob.digest) else None


def _find(name: str, refs: Refs) -> StoredImage | None:
    with suppress(StoreError):
        return refs.get(name)
    return None


def _is_by_digest(entry: Entry, refs: Refs) -> bool:
    """Whether the entry lost its name to a pull, and became a reference by its digest."""
    with suppress(FastociError):
        named = Reference.parse(_annotations(entry).get(REF_NAME, ""))
        [blob] = _parsed([entry])
        refs.get(str(Reference(named.domain, named.path, None, blob.digest)))
        return True
    return False


def _is_of(ref: StoredImage | None, digest: str) -> bool:
    if ref is None:
        return False
    return digest in {str(ref.descriptor.digest), *(str(image.digest) for image in ref.images.values())}


def _read(paths: StoreLayout) -> dict[str, object]:
    data = files.read(paths.top, INDEX, _SIZE)
    if data is None:
        data = encode_index(())
    try:
        index.parse(data, OCI_INDEX)
    except (FormatError, UnsupportedError) as error:
        path = paths.top.at(INDEX)
        raise StoreError(f"{path} is not an index of an OCI layout: {error}", path=path) from error
    # Plain values from here on: entries of others may have fields that are unknown here, and must keep them.
    document = json.loads(data)
    assert isinstance(document, dict)
    return document


def _entries(document: dict[str, object]) -> list[Entry]:
    entries = document["manifests"] or []
    assert isinstance(entries, list)
    return entries


def _mark_of(entry: Entry) -> str:
    """The reference that an entry stands for; empty when it is another tool's."""
    annotations = _annotations(entry)
    name, digest = annotations.get(REF_NAME, ""), str(entry["digest"])
    mark = annotations.get(OURS, "")
    if mark == _mark(name, name, digest):
        return name
    reference = mark.removeprefix(f"{name} ").removesuffix(f" {digest}")
    return reference if mark == _mark(name, reference, digest) else ""


def _mark(name: str, reference: str, digest: str) -> str:
    return f"{name} {digest}" if name == reference else f"{name} {reference} {digest}"


def _annotations(entry: Entry) -> dict[str, str]:
    annotations = entry.get("annotations")
    return annotations if isinstance(annotations, dict) else {}


def _entry(ref: StoredImage) -> Entry:
    """One platform: its manifest, which every tool can read; several, or none: what the name led to."""
    descriptor = next(iter(ref.images.values())) if len(ref.images) == 1 else ref.descriptor
    entry = encode(descriptor)
    mark = _mark(ref.name, ref.name, str(descriptor.digest))
    annotations = {**descriptor.annotations, REF_NAME: ref.name, OURS: mark}
    return {**entry, "annotations": dict(sorted(annotations.items()))}
