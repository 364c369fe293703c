"""Thirty-two pullers beside four collectors on one store, all killed at random: nothing that is needed is deleted.

``make gc-storm`` runs 100,000 operations; the short form is part of ``make test``. The seed is printed on failure; set
``FASTOCI_SEED`` to draw the same operations again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from fastoci.store.gc.retention import Retention
from support import gc_storm
from support.sanitizers import SANITIZED
from support.scratch import SOURCE, TESTS
from support.store_shelf import Shelf

OPERATIONS = int(os.environ.get("FASTOCI_GC_OPERATIONS", "1500"))
SEED = int(os.environ.get("FASTOCI_SEED", "0")) or random.randrange(1, 1 << 32)


@pytest.mark.timeout(3000)
async def test_no_blob_that_a_lease_or_a_reference_names_is_deleted_or_wrong(tmp_path: Path) -> None:
    path = tmp_path / str(SEED)
    print(f"seed {SEED}, {OPERATIONS} operations")
    counts = storm(path)
    print(counts)
    assert counts["killed"] > OPERATIONS / 300
    assert SANITIZED or counts["gc"] > 0  # where all is slow, the store may be busy whenever one is tried
    shelf = Shelf(path)
    try:
        needed = check_references(shelf)
        await shelf.store.gc(await shelf.store.plan_gc(Retention()))
    finally:
        shelf.store.close()
    blobs = {file.name: file for file in (path / "blobs" / "sha256").iterdir()}
    assert set(blobs) == needed, "what is left is what the references need"
    for name, file in blobs.items():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == name
    assert {file.name for file in (path / "leases").iterdir()} <= {".gate", ".probed"}, "leases of the dead"


def storm(path: Path) -> dict[str, int]:
    command = [sys.executable, gc_storm.__file__, str(path), str(OPERATIONS), str(SEED)]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def check_references(shelf: Shelf) -> set[str]:
    """All that the references need is there; its digests."""
    made = {image.manifest.digest: image for image in gc_storm.images(SEED)}
    refs, broken = shelf.store.refs.list()
    assert not broken
    needed = set()
    for ref in refs:
        for blob in made[ref.descriptor.digest].blobs:
            assert shelf.store.holds(blob), f"{ref.name} lacks {blob.digest}"
            needed.add(blob.digest.hex)
    return needed
