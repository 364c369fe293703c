"""Keep the images that were used last: print what goes and why, then delete it.

python examples/gc_with_retention.py STORE COUNT
"""

import asyncio
import sys

import fastoci


async def main(store: str, count: str) -> None:
    async with fastoci.Engine(store) as engine:
        plan = await engine.plan_gc(fastoci.Retention(max_count=int(count)))
        print(plan)  # nothing is deleted yet
        deleted = await engine.gc(plan)  # safe beside running pulls, however old the plan is
        print(f"deleted {len(deleted)} items, {sum(item.size for item in deleted)} bytes")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
