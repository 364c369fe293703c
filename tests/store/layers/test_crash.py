"""What a process leaves that is killed at each step of a layer's way in."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.image.digest import Digest
from fastoci.store.store import Store
from support import layer_process
from support.layer_files import file_of, put
from support.layer_process import ALONE, MANIFEST, OTHER, TREE
from support.warm_program import WarmProgram

POINTS = int(os.environ.get("FASTOCI_KILL_POINTS", "16"))  # 0: all
SEED = int(os.environ.get("FASTOCI_SEED", "0")) or random.randrange(1, 1 << 32)
STEP = 160 // POINTS if POINTS else 1


@pytest.fixture
def place() -> Iterator[Path]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="fastoci-layers-", dir=memory))
    yield path
    shutil.rmtree(path)


def _file(store: Path, tar: bytes, *, merge: bool) -> Path:
    digits = Digest.of(tar).hex
    return store / "layers" / ("merge" if merge else f"sha256/{digits[:2]}") / f"{digits}.erofs"


async def _left_by_a_power_cut(path: Path) -> None:
    """A store whose layer that is not standalone, of another boot, has lost its bytes."""
    store = Store.at(path)
    try:
        await put(store.layers, OTHER, reasons=["opaque root"])
    finally:
        store.close()
    file = _file(path, OTHER, merge=True)
    record = file.with_suffix(".json")
    fields = json.loads(record.read_bytes())
    record.write_text(json.dumps(fields | {"boot_id": "another", "synced": False}))
    file.chmod(0o644)
    file.write_bytes(bytes(file.stat().st_size))


def _demand_whole(path: Path) -> None:
    """What has a final name where nobody asks for records is whole; what is there for us is, too."""
    alone, other = _file(path, ALONE, merge=False), _file(path, OTHER, merge=True)
    assert not alone.exists() or alone.read_bytes() == file_of(ALONE)
    store = Store.at(path)
    try:
        if store.layers.find(Digest.of(ALONE)) is not None:
            assert alone.exists()
        if store.layers.find(Digest.of(OTHER)) is not None:
            assert other.read_bytes() == file_of(OTHER)
        tree = store.layers.find_directory(Digest.of(TREE), owners=True)
        assert tree is None or sorted(os.listdir(tree.path)) == ["app", "etc"]
        merged = store.layers.find_merged(MANIFEST)
        assert merged is None or Path(merged.path).read_bytes() == b"merged metadata"
    finally:
        store.close()


async def test_a_kill_before_a_file_operation_leaves_nothing_that_is_not_whole(
    warm_program: WarmProgram, place: Path
) -> None:
    """And the next process makes what is missing."""
    before = place / "before"
    await _left_by_a_power_cut(before)
    for kill_at in range(1 + SEED % STEP, 300, STEP):
        path = place / str(kill_at)
        shutil.copytree(before, path)
        code = warm_program.run(str(path), str(kill_at), program=layer_process.__name__).returncode
        assert code in (0, -signal.SIGKILL)
        _demand_whole(path)
        if code == 0:
            break
        await layer_process.make(path)
        _demand_whole(path)
        shutil.rmtree(path)
    assert kill_at > 60
