"""A process that pulls images at once into a store: STORE REFERENCE... Begins when it reads a line."""

from __future__ import annotations

import asyncio
import sys

from fastoci import Engine, RegistryOptions


async def pull(store: str, references: list[str]) -> None:
    async with Engine(store, registry=RegistryOptions(tls_verify=False)) as engine:
        sys.stdin.readline()
        await asyncio.gather(*(engine.pull(reference) for reference in references))


if __name__ == "__main__":
    asyncio.run(pull(sys.argv[1], sys.argv[2:]))
