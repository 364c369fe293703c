"""Layer directories that are synced are there after another boot; the others are not."""

from __future__ import annotations

import json
import os

from fastoci.image.config import chain_id
from fastoci.image.digest import Digest
from support.layer_files import put_tree, tar_of
from support.store_shelf import Shelf

DIFF_IDS = [Digest.of(tar_of())]


async def test_a_directory_that_was_synced_is_there_after_another_boot(shelf: Shelf) -> None:
    layers, chain = shelf.store.layers, chain_id(DIFF_IDS)
    await put_tree(layers, tar_of())
    done = shelf.path / "layers/overlay" / chain.hex / "done"
    before = json.loads(done.read_bytes())
    assert before["synced"] is False
    await layers.sync_directories([chain, Digest.of(b"absent")])
    assert json.loads(done.read_bytes()) == before | {"synced": True}
    inode = done.stat().st_ino
    await layers.sync_directories([chain])
    assert done.stat().st_ino == inode
    done.write_text(json.dumps(before | {"synced": True, "boot_id": "another"}))
    assert layers.find_directory(chain, owners=before["owners"]) is not None
    assert os.listdir(shelf.path / "ingest") == []
