"""A process that puts one blob into a store, and can be killed before any of its file operations.

Arguments: STORE SIZE KILL_AT UID. The blob is SIZE bytes of a known seed, checkpointed half-way. KILL_AT counts the
operations from the begin of the ingest on, 0 for none; UID is the user to become, 0 for none. Prints the offset at
which it began, or the class of the error.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path

from fastoci import _core
from fastoci.errors import StoreBusyError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.store.store import Store
from fastoci.stream.verify import Verifier, hash_buffers

OPERATIONS = ("open", "os.mkdir", "os.chmod", "os.truncate", "os.rename", "os.remove", "os.rmdir", "fcntl.fcntl")


def content(size: int) -> bytes:
    return random.Random(99).randbytes(size)


def kill_before(count: int) -> None:
    """Kill this process before its next file operation of this number."""
    seen = 0

    def hook(event: str, arguments: object) -> None:
        nonlocal seen
        if event in OPERATIONS:
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


async def _put(path: Path, data: bytes, kill_at: int) -> None:
    blob = Descriptor("a/b", Digest.of(data), len(data))
    store = Store.at(path)
    pool = _core.Pool(1 << 20)
    try:
        if kill_at:
            kill_before(kill_at)
        ingest = None
        while ingest is None:
            with suppress(StoreBusyError):
                ingest = await store.blobs.begin(blob)
                break
            if await store.blobs.wait(blob, lambda offset: None):
                break
        print("there" if ingest is None else ingest.offset)
        if ingest is None:
            return
        verifier = Verifier(blob.digest, blob.size, offset=ingest.offset, state=ingest.hash_state)
        for end in (len(data) // 2, len(data)):
            while verifier.offset < end:
                buffer = pool.take()
                assert buffer is not None
                buffer.append(data[verifier.offset : end])
                position = verifier.offset
                hash_buffers([(verifier, buffer)])
                ingest.sink.feed(buffer)
                buffer.release()
                assert verifier.offset > position
            ingest.checkpoint(verifier.offset, verifier.state())
        await ingest.commit(verifier.proof())
    except StoreError as error:
        print(type(error).__name__, error)
    finally:
        store.close()


def main() -> None:
    path, size, kill_at, uid = sys.argv[1], *map(int, sys.argv[2:])
    if uid:
        os.setgid(uid)
        os.setuid(uid)
    asyncio.run(_put(Path(path), content(size), kill_at))


if __name__ == "__main__":
    main()
