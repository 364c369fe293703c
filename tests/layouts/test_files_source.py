"""Images in files of the user's, while others want something else."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from fastoci import _core
from fastoci.image.descriptor import Descriptor
from fastoci.layouts.files_source import FilesSource
from fastoci.limits import Limits
from fastoci.testing.suites.filling import blob_of, collect
from fastoci.threads import Threads
from fastoci.transfer.buffers import Buffers


class SlowToOpen(FilesSource):
    """Opens its one file when the test lets it."""

    gate: threading.Event
    asked: threading.Event

    def open_named(self, blob: Descriptor) -> int:
        self.asked.set()
        assert self.gate.wait(20)
        return os.open(self.path_of(blob), os.O_RDONLY)

    def path_of(self, blob: Descriptor) -> Path:
        return Path(self.name, "blob")


@pytest.mark.parametrize("way", ["fetch", "open_file"])
async def test_a_task_that_is_cancelled_while_a_blob_is_opened_is_cancelled(way: str, tmp_path: Path) -> None:
    blob, data = blob_of(1000)
    (tmp_path / "blob").write_bytes(data)
    with closing(Threads()) as threads:
        source = SlowToOpen(tmp_path, -1, threads, Limits())
        source.gate, source.asked = threading.Event(), threading.Event()
        before = os.listdir("/proc/self/fd")
        fetched = source.fetch(blob, 0, Buffers(_core.Pool(1 << 20)))
        task = asyncio.create_task(collect(fetched) if way == "fetch" else source.open_file(blob))
        await asyncio.to_thread(source.asked.wait, 20)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, source.gate.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(os.listdir("/proc/self/fd")) == len(before)
