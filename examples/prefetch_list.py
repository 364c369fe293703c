"""Prefetch the images of a list, and report those that failed, with their lines.

python examples/prefetch_list.py STORE LIST
"""

import asyncio
import sys
from pathlib import Path

import fastoci


async def main(store: str, path: str) -> int:
    """Returns: how many images failed."""
    wanted = fastoci.parse_list(Path(path).read_bytes(), path)  # plain, or YAML of Kubernetes, compose or skopeo
    registry = fastoci.RegistryOptions(access=wanted.access)  # credentials that the list has
    async with fastoci.Engine(store, registry=registry) as engine:
        plan = await engine.plan_prefetch(wanted.entries)  # asks registries, fetches no blob
        print(f"{len(plan.missing)} blobs to fetch, {plan.missing_size} bytes")
        result = await engine.prefetch(wanted.entries)  # raises only when the job as a whole cannot be
    for image in result.images:
        if image.error is None:
            print(f"{image.request.reference}@{image.digest} {image.outcome}, {image.fetched} bytes fetched")
        else:
            print(f"{image.request.subject}: {image.error}", file=sys.stderr)
    return len(result.failed)


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main(*sys.argv[1:])) else 0)
