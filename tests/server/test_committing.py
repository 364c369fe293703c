"""What was made here becomes a blob of a containerd, or an error.

Covers: containerd/ingest.py.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fastoci.containerd.rpc import Connection
from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.server.committing import Committing
from fastoci.testing.containerd import FakeContainerd
from fastoci.transfer.workers import WorkerPool
from support.scratch import scratch


async def test_a_file_that_is_shorter_than_its_descriptor_ends_the_commit(tmp_path: Path) -> None:
    blob = Descriptor.of(bytes(1000), "application/octet-stream")
    path = tmp_path / "blob"
    path.write_bytes(bytes(999))
    workers = WorkerPool(1)
    try:
        with scratch("committing") as directory:
            async with (
                FakeContainerd(tmp_path).serving(directory / "s"),
                await Connection.open(str(directory / "s")) as to,
            ):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    committing = Committing(to, workers, {"containerd-namespace": "test"})
                    with pytest.raises(StoreError, match="ends after 999 of 1000 bytes"):
                        async with asyncio.timeout(20):
                            await committing.commit(blob, fd, "", {})
                finally:
                    os.close(fd)
    finally:
        workers.close()
