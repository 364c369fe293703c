"""A source whose blob is a file."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

from fastoci._core import Buffer
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BufferSource


class InFile:
    """A ``FileSource`` of one blob."""

    name = "a file"

    def __init__(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self.path = path

    def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        raise AssertionError("whoever hashes it reads it")

    async def open_file(self, blob: Descriptor) -> int:
        return os.open(self.path, os.O_RDONLY)
