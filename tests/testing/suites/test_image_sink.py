"""The suite of ``ImageSink`` over the OCI layout, as an engine makes one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fastoci import _core
from fastoci.errors import IntegrityError
from fastoci.image import index
from fastoci.image.descriptor import Descriptor
from fastoci.image.layout import REF_NAME
from fastoci.image.mediatype import OCI_INDEX
from fastoci.interfaces import ImageSink
from fastoci.jobs.rehash import find_corrupt
from fastoci.layouts.oci_layout import FindCorrupt, OciLayout
from fastoci.testing.suites.image_sink import ImageSinkSuite


async def run_hashing(work: Callable[[FindCorrupt, Callable[[], None]], None]) -> None:
    """On a thread, with a buffer."""

    def find(files: Sequence[tuple[Descriptor, int]]) -> list[IntegrityError]:
        buffer = _core.Pool(1 << 20).take()
        assert buffer is not None
        try:
            return find_corrupt(files, [buffer], threading.Event())
        finally:
            buffer.release()

    await asyncio.to_thread(work, find, lambda: None)


class TestOciLayout(ImageSinkSuite):
    def open(self, directory: Path) -> ImageSink:
        return OciLayout(directory, run_hashing)

    def names(self, directory: Path) -> Mapping[str, Descriptor]:
        entries = index.parse((directory / "index.json").read_bytes(), OCI_INDEX).manifests
        return {entry.annotations[REF_NAME]: entry for entry in entries}

    def read(self, directory: Path, blob: Descriptor) -> bytes | None:
        hidden = [name for name in os.listdir(directory / "blobs" / "sha256") if name.startswith(".")]
        assert not hidden, f"unfinished files are left: {hidden}"
        with suppress(FileNotFoundError):
            return (directory / "blobs" / blob.digest.algorithm / blob.digest.hex).read_bytes()
        return None
