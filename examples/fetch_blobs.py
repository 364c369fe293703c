"""Fetch blobs into a store, for a puller that has descriptors and a source of its own.

python examples/fetch_blobs.py STORE DIRECTORY
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from fastoci import Buffer, BufferSource, Descriptor, Digest, Engine
from fastoci.errors import BlobNotFoundError, SizeMismatchError


class Directory:
    """A ``fastoci.BlobSource``: files named by their SHA-256 in hex.

    It passes ``fastoci.testing.suites.blob_source``; tests/test_examples.py shows how that is run.
    """

    def __init__(self, directory: Path) -> None:
        self.name = str(directory)  # for messages
        self.directory = directory

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes from ``offset`` on; the engine verifies them and gives the buffers back."""
        path = self.directory / blob.digest.hex
        if not path.is_file():
            raise BlobNotFoundError(f"no file {path}", path=str(path))
        if (size := path.stat().st_size) != blob.size:
            raise SizeMismatchError(f"{path} has another size", subject=str(blob), expected=blob.size, actual=size)
        with path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(1 << 20):
                (buffer := await buffers.take()).append(piece)  # waits for the memory budget
                yield buffer


async def main(store: str, directory: str) -> None:
    blobs = [Descriptor("", Digest("sha256", each.name), each.stat().st_size) for each in Path(directory).iterdir()]
    async with Engine(store) as engine:
        await engine.fetch(blobs, Directory(Path(directory)))
    print(f"{len(blobs)} blobs are in {store}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
