"""The files of one image of the store, for the commands that look into it; and bytes on their way to stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

from fastoci.cli import options
from fastoci.cli.standard_streams import BestEffortFile

if TYPE_CHECKING:
    from fastoci import Image, Limits

LIMITS: Final = ("unpacked_size", "unpacked_entries", "memory")  # of metadata that are made for the moment
_PIECE: Final = 1 << 20  # bytes that are copied at a time

T = TypeVar("T")


class Asked(options.Given):
    """Which image is looked into, and within which limits."""

    reference: str
    platform: str | None
    store: Path | None
    additional: tuple[Path, ...]
    limits: Limits


class AskedPath(Asked):
    """And at which path."""

    path: str


def opened(get: Callable[[Image], Coroutine[object, object, T]], asked: Asked) -> T:
    """What an image of the store opens, which outlives the engine."""
    from fastoci.cli import run

    async def work() -> T:
        async with options.existing(asked.store, asked.additional, limits=asked.limits) as engine:
            return await get(await engine.image(asked.reference, platform=asked.platform))

    return run.run(work())


def copy_to_stdout(source: BinaryIO) -> None:
    """Write all of a file to stdout, as long as somebody takes it."""
    out = sys.stdout.buffer
    while data := source.read(_PIECE):
        out.write(data)
        raw = getattr(out, "raw", None)
        if isinstance(raw, BestEffortFile) and raw.failed is not None:
            return
