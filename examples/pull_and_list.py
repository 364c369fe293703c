"""Pull an image into a store, and list what the store holds.

python examples/pull_and_list.py STORE REFERENCE
"""

import asyncio
import sys

import fastoci


async def main(store: str, reference: str) -> None:
    async with fastoci.Engine(store) as engine:
        image = await engine.pull(reference)
        print(f"{image.reference} has {len(image.manifest.layers)} layers, {image.size} bytes")
        listings, broken = await engine.upkeep.listing()
        for listing in listings:
            print(listing.name, listing.digest, ", ".join(listing.platforms), listing.size)
        for error in broken:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except fastoci.errors.FastociError as error:  # the root of the error tree
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
