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
        for stored in await engine.images():
            print(stored.name, stored.descriptor.digest, ", ".join(stored.images), stored.size)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except fastoci.errors.FastociError as error:  # the root of the error tree
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
