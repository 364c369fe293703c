"""A process that makes all forms of unpacked layers, and can be killed before any of its file operations.

Arguments: STORE KILL_AT. KILL_AT counts the operations from the first begin on, 0 for none.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.store.store import Store
from support.ingest_process import kill_before
from support.layer_files import put, put_merged, put_tree, tar_of

ALONE, OTHER, TREE = (tar_of(seed) for seed in range(3))
MANIFEST = Digest.of(b"manifest")


async def make(path: Path, kill_at: int = 0) -> None:
    """Make what is not there yet."""
    store = Store.at(path, limits=Limits(durability="batch"))
    layers = store.layers
    try:
        store.blobs.probe()
        if kill_at:
            kill_before(kill_at)
        if layers.find(Digest.of(ALONE)) is None:
            await put(layers, ALONE)
        if layers.find(Digest.of(OTHER)) is None:
            await put(layers, OTHER, reasons=["opaque root"])
        if layers.find_merged(MANIFEST) is None:
            await put_merged(layers, MANIFEST, [Digest.of(ALONE), Digest.of(OTHER)])
        if layers.find_directory(Digest.of(TREE), owners=True) is None:
            await put_tree(layers, TREE)
    finally:
        store.close()


def main() -> None:
    asyncio.run(make(Path(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
