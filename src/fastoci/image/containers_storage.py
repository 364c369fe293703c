"""An image as an image store of containers/storage has it, for podman, CRI-O, buildah and skopeo. Pure.

A layer's record names its parent. What overlayfs mounts is beside it: a short name of its directory, and those of the
directories below. ``docs/podman.md`` has the form, and why it is as it is.
Spec: containers/storage ``layers.go``, ``images.go`` and ``drivers/overlay/overlay.go``, 1.20 to 1.59.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layer_file import ROOT, TREE, LayerDirectory

Record = dict[str, Any]  # of a layer or an image, as JSON has it: of others' fields nothing is lost

_LISTS: Final = "fastoci.lists"  # a flag of an image: which of its names are shown for which lists
EMPTY_TAR: Final = Digest.of(bytes(1024))
_LINK: Final = 13  # characters of the name of a directory for overlayfs: options of a mount have 4095 bytes in all
_PLAIN: Final = re.compile(r"[a-z0-9.]*")
_GZIP: Final = 2  # what containers/storage calls the compression of a blob
_COMPRESSIONS: Final = {"gzip": _GZIP, "zstd": 4}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_NEVER: Final = "0001-01-01T00:00:00Z"  # Go's time of nothing


class TarFacts(msgspec.Struct, frozen=True):
    """What is known of a layer's tar: its size in bytes, and the largest owner and group of an entry."""

    size: int
    uid: int = 0
    gid: int = 0


class StorageLayer(msgspec.Struct, frozen=True):
    """One layer as containers/storage has it.

    ``shows`` is what overlayfs is to mount, below ``layers/overlay``. ``lowers`` are the links of the layers below, the
    topmost first. ``diff_id`` is None of a layer that is no layer of the image alone. ``size`` are bytes of files.
    """

    id: str
    parent: str
    shows: str
    lowers: tuple[str, ...]
    blob: Descriptor | None = None
    diff_id: Digest | None = None
    size: int = 0

    @property
    def link(self) -> str:
        """The name of its directory for overlayfs, in ``overlay/l``."""
        return base64.b32encode(hashlib.sha256(self.shows.encode()).digest()).decode()[:_LINK]


def storage_layers(
    layers: Sequence[tuple[Descriptor, Digest]], stack: Sequence[LayerDirectory], *, naming: LayerDirectory | None
) -> tuple[StorageLayer, ...]:
    """The layers of an image, the lowest first.

    Layers that are directories of their own have the ids that containers/image gives them, so that it shares them.
    Those that only count together are one layer, of which nothing is known but its files.

    Args:
        layers: of the image, with their diff_ids.
        stack: the layer directories that show it, the lowest first.
        naming: whose root has the metadata of the image's root, when that is another one than the topmost's.
    Raises:
        UnsupportedError: a diff_id is no SHA-256.
    """
    if odd := next((diff_id for _, diff_id in layers if diff_id.algorithm != "sha256"), None):
        raise UnsupportedError(f"containers/storage takes diff_ids of sha256 only, and not {odd}")
    merged = len(layers) - len(stack)  # beside the one that they are merged into
    made: list[StorageLayer] = []
    for directory, (blob, diff_id) in zip(stack, layers[merged:], strict=True):
        parent = made[-1].id if made else ""
        if merged and not made:
            own = _id("fastoci", directory.chain_id.hex)
            made.append(StorageLayer(own, "", f"{directory.chain_id.hex}/{TREE}", (), size=directory.size))
        else:
            own = _id(parent, diff_id.hex) if parent else diff_id.hex
            shows = f"{diff_id.hex}/{TREE}"
            made.append(StorageLayer(own, parent, shows, _below(made), blob, diff_id, directory.size))
    if naming is not None and made:
        own, shows = _id("fastoci root", made[-1].id), f"{naming.chain_id.hex}/{ROOT}"
        made.append(StorageLayer(own, made[-1].id, shows, _below(made), None, EMPTY_TAR))
    return tuple(made)


def _id(parent: str, own: str) -> str:
    return hashlib.sha256(f"{parent}+{own}".encode()).hexdigest()


def _below(made: Sequence[StorageLayer]) -> tuple[str, ...]:
    """The links of the layers so far, the topmost first.

    overlayfs takes a directory once. What is higher covers all of what the same directory shows below.
    """
    return tuple(dict.fromkeys((made[-1].link, *made[-1].lowers))) if made else ()


def layer_record(layer: StorageLayer, tar: TarFacts | None, now: datetime) -> Record:
    """What ``layers.json`` says of a layer.

    Without ``tar`` the layer's tar cannot be made again. A digest it must have all the same: one that is of no tar, so
    that nobody takes the layer for another, and who copies it fails.
    """
    record: Record = {"id": layer.id, "created": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    if layer.parent:
        record["parent"] = layer.parent
    if tar is None or layer.diff_id is None:
        return record | {"diff-digest": str(Digest.of(f"fastoci {layer.id}".encode())), "diff-size": layer.size}
    record |= {"diff-digest": str(layer.diff_id), "diff-size": tar.size}
    record |= {"uidset": sorted({0, tar.uid}), "gidset": sorted({0, tar.gid})}
    if layer.blob is not None:
        kind = layer.blob.media_type.rpartition("+")[2].rpartition(".")[2]
        record |= {"compressed-diff-digest": str(layer.blob.digest), "compressed-size": layer.blob.size}
        record["compression"] = _COMPRESSIONS.get(kind, 0)
    return record


def image_record(
    name: str, config: Descriptor, manifest: Descriptor, documents: Mapping[str, bytes], top: str, created: str
) -> Record:
    """What ``images.json`` says of an image.

    Args:
        documents: what is kept beside the image, by name.
        top: the id of its topmost layer.
        created: as its config says, perhaps RFC 3339.
    """
    return {
        "id": config.digest.hex,
        "digest": str(manifest.digest),
        "names": [name],
        "layer": top,
        "metadata": "{}",
        "big-data-names": list(documents),
        "big-data-sizes": {key: len(data) for key, data in documents.items()},
        "big-data-digests": {key: str(Digest.of(data)) for key, data in documents.items()},
        "created": _time(created),
    }


def _time(text: str) -> str:
    """A time that Go reads: one that it does not would make all of ``images.json`` unreadable."""
    if _TIME.fullmatch(text):
        try:
            datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            return _NEVER
        return text
    return _NEVER


def documents_of(config: tuple[Descriptor, bytes], chain: Sequence[tuple[Descriptor, bytes]]) -> dict[str, bytes]:
    """What is kept beside an image, by the names that containers/image gives it.

    Args:
        chain: index and manifest, the manifest last.
    """
    described, data = config
    found = {str(described.digest): data}
    found |= {f"manifest-{document.digest}": raw for document, raw in chain if raw}
    return found | {"manifest": chain[-1][1]}


def data_name(key: str) -> str:
    """The name of the file that a document is in."""
    return key if _PLAIN.fullmatch(key) else f"={base64.b64encode(key.encode()).decode()}"


def merged_images(old: Sequence[Record], new: Record, list_name: str = "") -> list[Record]:
    """All images with one more, or with one anew; a name leads to the image that got it last.

    An image without any name stays: containers may run from it.

    Args:
        list_name: of the list that wants the name; what was shown without one stays whatever lists say.
    """
    (name,) = new["names"]
    before = next((lists_of(each, name) for each in old if name in (each.get("names") or ())), None)
    lists = (sorted({*before, list_name}) if before else [list_name] if before is None else []) if list_name else []
    old = [with_lists(each, name, []) for each in old]
    others = [{**each, "names": [kept for kept in each.get("names") or () if kept != name]} for each in old]
    same = next((each for each in others if each["id"] == new["id"]), None)
    if same is not None:
        new = {**new, "names": [*same["names"], name], "big-data-names": [*new["big-data-names"]]}
        for field in ("big-data-sizes", "big-data-digests"):
            new[field] = {**(same.get(field) or {}), **new[field]}
        new["big-data-names"] = list(new["big-data-sizes"])
        new["flags"] = same.get("flags") or {}
    return [*(each for each in others if each["id"] != new["id"]), with_lists(new, name, lists)]


def lists_of(image: Record, name: str) -> list[str]:
    """The lists that a name of an image is shown for; none when it is shown for its own sake."""
    return list((image.get("flags") or {}).get(_LISTS, {}).get(name, ()))


def with_lists(image: Record, name: str, lists: Sequence[str]) -> Record:
    """An image with other lists that want a name of it."""
    flags = image.get("flags") or {}
    kept = {key: value for key, value in flags.get(_LISTS, {}).items() if key != name}
    if lists:
        kept[name] = list(lists)
    if kept == flags.get(_LISTS, {}):
        return image
    flags = {key: value for key, value in flags.items() if key != _LISTS} | ({_LISTS: kept} if kept else {})
    return {key: value for key, value in image.items() if key != "flags"} | ({"flags": flags} if flags else {})


def merged_layers(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """All layers with some more, parents before their children; what is known of a tar is not forgotten."""
    known = {each["id"]: each for each in old}
    for each in new:
        known[each["id"]] = known.get(each["id"], {}) | each if "uidset" in each else known.get(each["id"], each)
    return list(known.values())


def needed_layers(images: Sequence[Record], layers: Sequence[Record]) -> set[str]:
    """The ids of layers that images have."""
    parents = {each["id"]: each.get("parent", "") for each in layers}
    needed: set[str] = set()
    for image in images:
        layer = image.get("layer", "")
        while layer and layer not in needed:
            needed.add(layer)
            layer = parents.get(layer, "")
    return needed


def parse_records(data: bytes, path: str) -> list[Record]:
    """The records in a file.

    Raises:
        FormatError: it is none of containers/storage.
    """
    try:
        records = json.loads(data) if data.strip() else []
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from error
    if not isinstance(records, list) or not all(isinstance(each, dict) and each.get("id") for each in records):
        raise FormatError(f"{path}: is no list of records of containers/storage")
    return records


def names_of(images: Sequence[Record]) -> Iterator[tuple[str, Record]]:
    """The names of images, each with its image; an image without names goes by its id."""
    for image in images:
        for name in image.get("names") or (image["id"],):
            yield name, image
