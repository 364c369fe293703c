"""The files of one image of the store, for the commands that look into it; and bytes on their way to stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

from fastoci.cli import options
from fastoci.cli.standard_streams import BestEffortFile

if TYPE_CHECKING:
    from fastoci import Image, ImageFiles

_PIECE: Final = 1 << 20  # bytes that are copied at a time

T = TypeVar("T")


def opened(
    get: Callable[[Image], Coroutine[object, object, T]],
    reference: str,
    platform: str | None,
    store: Path | None,
    additional: Sequence[Path],
) -> T:
    """What an image of the store opens, which outlives the engine."""
    from fastoci.cli import run

    async def work() -> T:
        async with options.existing(store, additional) as engine:
            return await get(await engine.image(reference, platform=platform))

    return run.run(work())


def files_of(reference: str, platform: str | None, store: Path | None, additional: Sequence[Path]) -> ImageFiles:
    """The names and metadata of an image's files."""
    return opened(lambda image: image.files(), reference, platform, store, additional)


def copy_to_stdout(source: BinaryIO) -> None:
    """Write all of a file to stdout, as long as somebody takes it."""
    out = sys.stdout.buffer
    while data := source.read(_PIECE):
        out.write(data)
        raw = getattr(out, "raw", None)
        if isinstance(raw, BestEffortFile) and raw.failed is not None:
            return
