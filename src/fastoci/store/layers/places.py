"""Where layer files, merged metadata and layer directories are in a store, and how one of them is deleted.

Spec: docs/store-format.md 9.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from fastoci import _extract, files
from fastoci.directory import Directory
from fastoci.errors import StoreError
from fastoci.image.digest import Digest
from fastoci.store.ingest.ingest import Held
from fastoci.store.layout import StoreLayout

LAYERS: Final = "layers"
MERGE: Final = "layers/merge"  # layer files that are not standalone: containerd looks elsewhere
TREES: Final = "layers/overlay"
SHOWN: Final = "diff"  # a link in ``TREES``: what containers/storage is shown of a layer directory
IMAGES: Final = "images"
ROOTS: Final = "images/rootfs"  # trees of whole images
OPEN: Final = 0o755  # others may mount, and read what they may read as blobs
PRIVATE: Final = 0o700  # a tree has the set-user-ID programs of its image: nobody else may come near them


@contextmanager
def at(paths: StoreLayout, diff_id: Digest, *, standalone: bool) -> Iterator[Directory]:
    """The directory where the layer file of a diff_id belongs.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: it is not safe to trust.
    """
    if standalone:
        above = paths.directory(f"{LAYERS}/{diff_id.algorithm}")
        with paths.enter(above, diff_id.hex[:2]) as directory:
            yield directory
    else:
        yield paths.directory(MERGE)


def make(paths: StoreLayout, diff_id: Digest, *, standalone: bool) -> None:
    """Make that directory, durable, when it is absent."""
    paths.make(LAYERS, OPEN)
    if not standalone:
        paths.make(MERGE, OPEN)
        return
    above = paths.make(f"{LAYERS}/{diff_id.algorithm}", OPEN)
    if not files.make_directory(above, diff_id.hex[:2], OPEN):
        above.sync()  # who made it may have been killed before its name was synced


def delete_file(directory: Directory, name: str, freed: ExitStack | None = None) -> bool:
    """Delete a file with what is beside it, the record first: from then on it is absent. Whether it was there.

    Args:
        freed: the file's blocks are freed when this ends.
    """
    found = False
    for suffix in (".json", ".erofs", ".erofs.dmverity"):
        with suppress(FileNotFoundError):
            if freed is not None and suffix == ".erofs":
                freed.callback(files.close, directory.open(name + suffix, files.READ))
            directory.unlink(name + suffix)
            found = True
    return found


def delete_tree(directory: Directory, name: str) -> None:
    """Delete a directory with all below it, however deep.

    Raises:
        OSError: not all of it went.
    """
    code = _extract.remove_tree(directory.fd, os.fsencode(name))
    if code:
        raise OSError(-code, os.strerror(-code), directory.at(name))


def empty(held: Held) -> None:
    """Delete all that an ingest holds."""
    for name in held.directory.names():
        if name != "lock":
            delete_tree(held.directory, name)


def clear(held: Held) -> None:
    """Delete an ingest with all that it holds."""
    empty(held)
    held.remove()


def expect_nothing(directory: Directory, name: str) -> None:
    """Refuse a directory in the place of a file, which nobody here made.

    Raises:
        StoreError: there is one.
    """
    with suppress(FileNotFoundError, NotADirectoryError), directory.enter(name):
        path = directory.at(name)
        raise StoreError(f"{path} is a directory where a file belongs: remove it", path=path)
