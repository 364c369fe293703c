"""What is unpacked in a store at one moment, what of it images reach, and what is in use: for gc, df and verify.

By names, sizes and records; no file is read. Synchronous, for threads. Spec: docs/store-format.md 8 and 9.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Final, Literal

import msgspec

from fastoci import files
from fastoci.boot import boot_id
from fastoci.directory import Directory
from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import document
from fastoci.image.config import chain_id
from fastoci.image.digest import HEX_DIGITS, Digest
from fastoci.image.layer_file import LayerInfo, MergedInfo
from fastoci.image.links import Link, diff_ids, links
from fastoci.image.stored_image import StoredImage
from fastoci.limits import DOCUMENT
from fastoci.store.graph import Read, reader
from fastoci.store.layers import places, records
from fastoci.store.layout import StoreLayout
from fastoci.threads import Check, go_on

Kind = Literal["layer", "merged", "directory", "rootfs"]

_ALGORITHMS: Final = {digits: algorithm for algorithm, digits in HEX_DIGITS.items()}
_FILE: Final = re.compile(r"([0-9a-f]{64}(?:[0-9a-f]{64})?)(?:\.json|\.erofs|\.erofs\.dmverity)")
_TREE: Final = re.compile(r"([0-9a-f]{64}(?:[0-9a-f]{64})?)")
_ROOT: Final = re.compile(r"([0-9a-f]{64}(?:[0-9a-f]{64})?)(?:\.json)?")
_FORMS: Final = {places.TREES: _TREE, places.ROOTS: _ROOT}  # of names; elsewhere those of files
_ABSENT: Final = "not whole, or of another boot and not synced"
_KINDS: Final[tuple[Kind, Kind]] = ("layer", "directory")  # by diff_id
_MARKS: Final[dict[Kind, bytes]] = {"layer": b"l", "merged": b"m", "directory": b"d", "rootfs": b"r"}


class Item(msgspec.Struct, frozen=True):
    """A layer file, merged metadata, a layer directory, or the tree of an image.

    Args:
        digest: the diff_id, the ChainID of a layer directory, or the manifest's.
        size: bytes, of content; ``allocated`` are those of disk that its deletion frees.
        why: it counts as absent; empty when it is there.
        info: of layer files and merged metadata that are there.
    """

    kind: Kind
    digest: Digest
    place: str  # the name of its directory in the store
    size: int
    allocated: int
    why: str
    info: LayerInfo | MergedInfo | None = None

    @property
    def key(self) -> bytes:
        """What it is known by among digests: it may have the digest of a blob."""
        return key(self.kind, bytes.fromhex(self.digest.hex))


def key(kind: Kind, digest: bytes) -> bytes:
    """The key of what may be unpacked of a digest."""
    return digest + _MARKS[kind]


class Unpacked:
    """All of it, as listed when this was made.

    Args:
        additional: stores that may have a config.
        limit: bytes of one document.
        check: called now and then; what it raises ends the work.
    Raises:
        StoreError: the disk refused.
    """

    def __init__(
        self, paths: StoreLayout, additional: Sequence[StoreLayout] = (), *, limit: int = DOCUMENT, check: Check = go_on
    ) -> None:
        self.items = tuple(_listed(paths, check))
        self._read: Read = reader((paths, *additional), limit=limit, check=check)
        self._sizes = {item.key: item.size for item in self.items if not item.why}
        self._durable = {
            str(item.digest)
            for item in self.items
            if isinstance(item.info, LayerInfo) and item.info.synced and item.info.form == "tar"
        }

    @property
    def keys(self) -> Collection[bytes]:
        """The keys of what is there."""
        return self._sizes.keys()

    def __bool__(self) -> bool:
        return bool(self.items)

    def reached(self, manifest: bytes, found: Sequence[Link]) -> Iterator[tuple[bytes, int]]:
        """What a manifest reaches, as keys and sizes: ``UnpackedLayers.reached``."""
        keys = [key("merged", manifest), key("rootfs", manifest)]
        chain: list[Digest] = []
        for diff_id in _digests(self._diff_ids(found)):
            chain = [chain_id([*chain, diff_id])]
            keys += [key(kind, bytes.fromhex(diff_id.hex)) for kind in _KINDS]
            keys.append(key("directory", bytes.fromhex(chain[0].hex)))
        for each in keys:
            if each in self._sizes:
                yield each, self._sizes[each]

    def needed(self, found: Sequence[Link]) -> tuple[Link, ...]:
        """What a manifest needs beside layer files that are there: ``UnpackedLayers.needed``."""
        spare = {link.digest for link, _ in self.substitutes(found)}
        return tuple(link for link in found if link.digest not in spare)

    def substitutes(self, found: Sequence[Link]) -> list[tuple[Link, str]]:
        """The layers of a manifest whose tar is in a layer file that a power cut leaves, with their diff_ids."""
        layers, ids = found[1:], self._diff_ids(found)
        if len(layers) != len(ids):
            return []
        return [(link, text) for link, text in zip(layers, ids, strict=True) if text in self._durable]

    def spared(self, image: StoredImage) -> dict[str, str]:
        """The blobs that an image does without because their tars are in layer files, with the diff_ids of these."""
        found: dict[str, str] = {}
        if image.layers_only and self._durable:
            for manifest in map(Link.of, image.images.values()):
                data = self._read(manifest)
                with suppress(FormatError):
                    named = () if data is None else links(data, manifest.media_type)
                    found |= {link.digest: text for link, text in self.substitutes(named)}
        return found

    def is_whole(self, manifest: Link) -> bool:
        """Whether the layer files of all layers of an image are there."""
        data = self._read(manifest)
        with suppress(FormatError):
            named = () if data is None else links(data, manifest.media_type)
            keys = [key("layer", bytes.fromhex(digest.hex)) for digest in _digests(self._diff_ids(named))]
            return bool(keys) and all(each in self._sizes for each in keys)
        return False

    def made_of(self, image: StoredImage) -> Iterator[tuple[Kind, str]]:
        """What may be there of an image, there or not: kinds, and the digests that they go by."""
        for manifest in map(Link.of, image.images.values()):
            yield "merged", manifest.digest
            data = self._read(manifest)
            with suppress(FormatError):
                named = () if data is None else links(data, manifest.media_type)
                yield from (("layer", text) for text in self._diff_ids(named))

    def _diff_ids(self, found: Sequence[Link]) -> tuple[str, ...]:
        config = self._read(found[0]) if found else None
        return () if config is None else diff_ids(config)


def open_item(paths: StoreLayout, item: Item) -> int:
    """The file of one, for reading; the caller closes it.

    Raises:
        OSError: it cannot be opened.
    """
    with entered(paths, item.place) as directory:
        return directory.open(f"{item.digest.hex}.erofs", files.READ)


def _digests(texts: Sequence[str]) -> list[Digest]:
    """The diff_ids of an image; none when one of them is none."""
    try:
        return [document.digest(text, what="diff_id") for text in texts]
    except (FormatError, UnsupportedError):
        return []


def _listed(paths: StoreLayout, check: Check) -> Iterator[Item]:
    boot = boot_id()
    for place in _places(paths):
        listing = files.translated("list", f"{paths.root}/{place}")
        with listing, suppress(FileNotFoundError), entered(paths, place) as directory:
            yield from _items(place, directory, boot, check)


def _places(paths: StoreLayout) -> Iterator[str]:
    """The names of all directories that hold something, there or not."""
    yield from (places.IMAGES, places.ROOTS, places.MERGE, places.TREES)
    for algorithm in HEX_DIGITS:
        name = f"{places.LAYERS}/{algorithm}"
        with files.translated("list", f"{paths.root}/{name}"), suppress(FileNotFoundError):
            yield from (f"{name}/{each}" for each in sorted(paths.directory(name).names()) if len(each) == 2)


def entered(paths: StoreLayout, place: str) -> Directory:
    """One of them; the caller closes it."""
    above, _, name = place.rpartition("/")
    return paths.enter(paths.directory(above) if above else paths.top, name)


def _items(place: str, directory: Directory, boot: str, check: Check) -> Iterator[Item]:
    names = set(directory.names())
    found = _FORMS.get(place, _FILE).fullmatch
    for digits in sorted({match[1] for name in names if (match := found(name)) is not None}):
        check()
        digest = Digest(_ALGORITHMS[len(digits)], digits)
        with suppress(FileNotFoundError):  # deleted meanwhile
            if place == places.ROOTS:
                yield _root(place, directory, digest, is_there=digits in names)
            elif place == places.TREES:
                yield from _tree(place, directory, digest, boot)
            else:
                yield _file(place, directory, digest, boot)


def _file(place: str, directory: Directory, digest: Digest, boot: str) -> Item:
    size = allocated = 0
    with suppress(FileNotFoundError):
        state = directory.stat(f"{digest.hex}.erofs")
        if stat.S_ISREG(state.st_mode):
            size, allocated = state.st_size, state.st_blocks * 512
    if place == places.IMAGES:
        merged = records.merged(directory, digest, boot)
        return Item("merged", digest, place, size, allocated, "" if merged is not None else _ABSENT, merged)
    info = records.layer(directory, digest, boot)
    return Item("layer", digest, place, size, allocated, "" if info is not None else _ABSENT, info)


def _root(place: str, directory: Directory, digest: Digest, *, is_there: bool) -> Item:
    """The tree of an image; without one, a record that it left."""
    size = (records.root_size(directory, digest) or 0) if is_there else 0
    return Item("rootfs", digest, place, size, size, "" if is_there else _ABSENT)


def _tree(place: str, directory: Directory, digest: Digest, boot: str) -> Iterator[Item]:
    """A layer directory; what shows one to containers/storage is none."""
    with directory.enter(digest.hex) as own:
        found = records.tree(own, digest, boot)
        if found is None and own.has(places.SHOWN) and not own.has("done"):
            return
    size = 0 if found is None else found.size
    yield Item("directory", digest, place, size, size, "" if found is not None else _ABSENT)
