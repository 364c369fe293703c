"""Hash every blob of a store again, and fetch anew what is damaged.

python examples/verify_store.py STORE
"""

import asyncio
import sys

import fastoci


async def main(store: str) -> int:
    async with fastoci.Engine(store) as engine:
        found = await engine.verify()
        print(f"hashed {found.blobs} blobs, {found.size} bytes; {len(found.bad)} are bad")
        if not found.bad:
            return 0
        repair = await engine.repair()
        print(f"fetched {len(repair.repaired)} blobs again")
        for reference, error in repair.failed:
            print(f"{reference}: {error}", file=sys.stderr)
        return max((error.exit_code for _, error in repair.failed), default=0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
