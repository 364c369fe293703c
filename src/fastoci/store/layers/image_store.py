"""``layers`` as an additional image store of containers/storage: podman and CRI-O run images from layer directories.

Numbered rules:
1. What a record names is there before the record, and durable: directories, documents, then ``layers.json``, then
   ``images.json``. It goes the other way. So a reader finds whole images only, and a kill leaves what nothing names.
2. The files of records are replaced whole, below the locks that readers of containers/storage hold while they read;
   these read again when the content of a lock or the time of a file is another.
3. A layer directory is shown by links. One inside ``overlay`` is for the kernel, so that it also holds where that
   directory is mounted with other ids. An absolute one is for containers/storage, which takes no other.

Synchronous, for threads. Spec: docs/podman.md; docs/store-format.md 9; containers/storage ``pkg/lockfile``.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Final

from fastoci import _extract, files, locks, mountinfo
from fastoci.directory import Directory
from fastoci.errors import StoreBusyError, StoreError
from fastoci.image.containers_storage import (
    Record,
    StorageLayer,
    data_name,
    layer_record,
    lists_of,
    merged_images,
    merged_layers,
    names_of,
    needed_layers,
    parse_records,
    with_lists,
)
from fastoci.layer_interfaces import Split
from fastoci.store.layers import places
from fastoci.store.layout import StoreLayout

LAYERS: Final = "layers/overlay-layers"
IMAGES: Final = "layers/overlay-images"
LINKS: Final = "layers/overlay/l"
LOCK: Final = ".lock"  # in ``overlay-layers``
NEW: Final = ".new"  # a replacement under way, below one of the locks
SPLIT: Final = ".tar-split.gz"
_RECORDS: Final = {LAYERS: "layers.json", IMAGES: "images.json"}
_LOCKS: Final = {LAYERS: "layers.lock", IMAGES: "images.lock"}
_SIZE: Final = 256 << 20  # bytes of one file of records
_WRITER: Final = 64  # bytes by which a lock tells who wrote last
# Of a layer, beside what it shows: what overlayfs mounts when nothing is below, and where older podman mounts.
_EMPTY: Final = ("empty", "merged", "work")
_OWN: Final = ("link", "lower", places.SHOWN)

Documents = Mapping[str, bytes]


class ImageStore:
    """The image store in a store's ``layers``. ``path`` is what ``additionalimagestores`` names."""

    def __init__(self, paths: StoreLayout) -> None:
        self._paths = paths
        self.path = f"{paths.root}/{places.LAYERS}"

    def images(self) -> list[Record]:
        """The records of all images; none where there is no image store."""
        return self._read(IMAGES)

    def known_layers(self) -> set[str]:
        """The ids of layers of which it is known how their tars are made again."""
        return {each["id"] for each in self._read(LAYERS) if "uidset" in each}

    def new_split(self) -> int:
        """An empty file without a name, for a ``Split``."""
        with files.translated("write to", self._paths.ingests.path):
            return files.nameless_at(self._paths.ingests.fd)

    def add(
        self,
        layers: Sequence[StorageLayer],
        splits: Mapping[str, Split],
        image: Record,
        kept: Documents,
        list_name: str = "",
    ) -> None:
        """Let an image be found; the layer directories that its layers show are there and durable.

        Args:
            splits: by the ids of layers; of a layer that has none, nothing but its id is said.
            kept: what is kept beside the image, by name.
            list_name: of the list that wants its name.
        Raises:
            StoreError: the disk refused; the records are broken.
        """
        now = datetime.now(UTC)
        with files.translated("write", self.path), self._held():
            for layer in layers:
                self._show(layer)
            for name, split in splits.items():
                self._put_split(f"{name}{SPLIT}", split.fd)
            self._keep(image["id"], kept)
            self._sync()
            tars = {name: split.tar for name, split in splits.items()}
            records = [layer_record(layer, tars.get(layer.id), now) for layer in layers]
            images = merged_images(self._read(IMAGES), image, list_name)
            self._replace(merged_layers(self._read(LAYERS), records), images)

    def withdraw(self, name: str) -> bool:
        """Let a name go, or an image by its id, and an image that has no other name; whether there was one.

        Raises:
            StoreError: the disk refused.
            StoreBusyError: a container has the image mounted, as far as this process sees it.
        """
        with files.translated("write", self.path), self._held():
            images, layers = self._read(IMAGES), self._read(LAYERS)
            kept = list(_without(images, name))
            if kept == images:
                return False
            gone = {each["id"] for each in images} - {each["id"] for each in kept}
            needed = needed_layers(kept, layers)
            self._demand_unmounted({each["id"] for each in layers} - needed, name)
            self._replace([each for each in layers if each["id"] in needed], kept, images_first=True)
            for image in gone:
                places.delete_tree(self._paths.directory(IMAGES), image)
            self._sweep(needed)
        return True

    def leave(self, list_name: str, wanted: Collection[str]) -> list[str]:
        """Take a list away from the names that it does not want any more; which of them nothing wants from then on.

        Raises:
            StoreError: the disk refused.
        """
        free: list[str] = []
        with files.translated("write", self.path), self._held():
            images = before = self._read(IMAGES)
            for name, image in names_of(before):
                lists = lists_of(image, name)
                if list_name in lists and name not in wanted:
                    if lists == [list_name]:
                        free.append(name)  # keeps its list until it is withdrawn: the next job tries again
                    else:
                        left = [each for each in lists if each != list_name]
                        images = [with_lists(each, name, left) if name in each["names"] else each for each in images]
            if images != before:
                self._replace(self._read(LAYERS), images)
        return free

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep other writers out: the lock is this program's own, and no reader waits for it."""
        self._paths.make(places.LAYERS, places.OPEN)
        for place in (places.TREES, LINKS, LAYERS, IMAGES):
            self._paths.make(place, places.PRIVATE)
        fd = locks.acquire(self._paths.directory(LAYERS), LOCK, wait=True)
        assert fd is not None
        try:
            yield
        finally:
            files.close(fd)

    def _sync(self) -> None:
        """Have all that was made on the disk, by one call: before a record names it."""
        fd = self._paths.directory(places.TREES).open(".", files.DIRECTORY)
        try:
            _extract.sync_filesystem(fd)
        finally:
            files.close(fd)

    def _replace(self, layers: Sequence[Record], images: Sequence[Record], *, images_first: bool = False) -> None:
        """Replace both files of records; readers that hold a lock have read both before, or read both after."""
        order = {LAYERS: layers, IMAGES: images}
        held: list[int] = []
        try:
            for place in order:  # in which containers/storage takes them, too
                fd = locks.acquire(self._paths.directory(place), _LOCKS[place], wait=True)
                assert fd is not None
                held.append(fd)
                os.pwrite(fd, secrets.token_bytes(_WRITER), 0)
            for place in reversed(order) if images_first else order:
                data = json.dumps(order[place], separators=(",", ":")).encode()
                files.replace(self._paths.directory(place), _RECORDS[place], data, temporary=NEW, mode=0o600)
        finally:
            for fd in held:
                files.close(fd)

    def _read(self, place: str) -> list[Record]:
        with suppress(FileNotFoundError):
            directory, name = self._paths.directory(place), _RECORDS[place]
            return parse_records(files.read(directory, name, _SIZE) or b"", directory.at(name))
        return []

    def _show(self, layer: StorageLayer) -> None:
        """Have the directory of a layer for overlayfs; what is there already is left, or put right."""
        trees = self._paths.directory(places.TREES)
        _make(trees, layer.id)
        with self._paths.enter(trees, layer.id) as own:
            for name in _EMPTY:
                _make(own, name)
            _link(own, places.SHOWN, f"{trees.path}/{layer.shows}")
            _put(own, "link", layer.link.encode())
            if lowers := [link for link in layer.lowers if link != layer.link]:
                _put(own, "lower", ":".join(f"l/{link}" for link in lowers).encode())
        _link(self._paths.directory(LINKS), layer.link, f"../{layer.shows}")

    def _sweep(self, needed: Collection[str]) -> None:
        """Delete what ``_show`` made for all but these layers, also what a killed process left; no layer directory."""
        trees, links = self._paths.directory(places.TREES), set[str]()
        for layer in trees.names():
            with suppress(FileNotFoundError, StoreError), self._paths.enter(trees, layer) as own:
                if layer in needed:
                    links.add((files.read(own, "link", _WRITER) or b"").decode())
                elif own.has(places.SHOWN):
                    self._hide(trees, own, layer)
        for link in set(self._paths.directory(LINKS).names()) - links:
            self._paths.directory(LINKS).unlink(link)

    def _hide(self, trees: Directory, own: Directory, layer: str) -> None:
        with suppress(FileNotFoundError):
            self._paths.directory(LAYERS).unlink(f"{layer}{SPLIT}")
        for name in _EMPTY:
            places.delete_tree(own, name)
        for name in _OWN:
            with suppress(FileNotFoundError):
                own.unlink(name)
        with suppress(OSError):  # it is a layer directory, too
            trees.rmdir(layer)

    def _keep(self, image: str, kept: Documents) -> None:
        images = self._paths.directory(IMAGES)
        _make(images, image)
        with self._paths.enter(images, image) as own:
            for key, data in kept.items():
                _put(own, data_name(key), data)

    def _put_split(self, name: str, fd: int) -> None:
        directory = self._paths.directory(LAYERS)
        with _new(directory, name) as new:
            os.lseek(fd, 0, os.SEEK_SET)
            while os.sendfile(new, fd, None, _SIZE):
                pass

    def _demand_unmounted(self, layers: Collection[str], name: str) -> None:
        """Refuse when a mount shows one of these layers."""
        text = "\n".join(f"{mount.root} {mount.options}" for mount in mountinfo.mounts_everywhere())
        for layer in layers:
            with suppress(FileNotFoundError), self._paths.enter(self._paths.directory(places.TREES), layer) as own:
                link = (files.read(own, "link", _WRITER) or b"").decode()
                if link and f"l/{link}" in text:
                    raise StoreBusyError(f"a container runs from {name}: remove it first", path=self.path)


def _make(directory: Directory, name: str) -> None:
    with suppress(FileExistsError):
        directory.mkdir(name, places.PRIVATE)


def _put(directory: Directory, name: str, data: bytes) -> None:
    """Have a small file of this content."""
    with suppress(FileNotFoundError):
        if directory.stat(name).st_size == len(data) and files.read(directory, name, len(data)) == data:
            return
    with _new(directory, name) as fd:
        files.write_all(fd, data)


@contextmanager
def _new(directory: Directory, name: str) -> Iterator[int]:
    """A file that gets its name at the end, not synced; by the holder of the lock."""
    with suppress(FileNotFoundError):
        directory.unlink(NEW)
    fd = directory.open(NEW, files.CREATE)
    try:
        yield fd
    finally:
        os.close(fd)
    directory.rename(NEW, directory, name)


def _link(directory: Directory, name: str, target: str) -> None:
    """Have a symbolic link that leads to ``target``."""
    with suppress(OSError):
        if os.readlink(name, dir_fd=directory.fd) == target:
            return
    with suppress(FileNotFoundError):
        directory.unlink(NEW)
    os.symlink(target, NEW, dir_fd=directory.fd)
    directory.rename(NEW, directory, name)


def _without(images: Sequence[Record], name: str) -> Iterator[Record]:
    """All images but for a name, or for one image by its id."""
    for image in images:
        names = image.get("names") or []
        left = [each for each in names if each != name]
        if image["id"] != name and (left or not names):
            yield {**with_lists(image, name, []), "names": left} if left != names else image
