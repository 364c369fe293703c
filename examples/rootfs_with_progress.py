"""Pull an image into a rootfs while an observer prints what happens.

python examples/rootfs_with_progress.py STORE REFERENCE ROOTFS
"""

import asyncio
import sys

import fastoci
from fastoci import events


def show(event: events.Event) -> None:
    """Called on the event loop, so it must be quick."""
    match event:
        case events.ImagePlanned():
            count, size = len(event.missing), sum(event.missing.values())
            print(f"{event.image}: {count} of {event.blobs} blobs to fetch, {size} bytes")
        case events.BlobDone():
            print(f"{event.blob}: verified, {event.size} bytes")
        case events.UnpackDone():
            print(f"{event.root}: {event.entries} entries")
        case events.Warned():
            print(event.message, file=sys.stderr)


async def main(store: str, reference: str, rootfs: str) -> None:
    limits = fastoci.Limits(unpacked_entries=1_000_000)  # what an image may ask of this disk
    async with fastoci.Engine(store, limits=limits, observer=show) as engine:
        await engine.pull(reference, rootfs=rootfs)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
