"""What ``pull --dry-run`` prints: the blobs of each image, and how many bytes of them would be fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from fastoci.cli.formatting import plain, size, table
from fastoci.errors import BlobNotFoundError

if TYPE_CHECKING:
    from fastoci import Digest, Engine, Into, IntoPodman, Resolved


_NO_NAMESPACE: Final = 5  # gRPC's NOT_FOUND


class Row(NamedTuple):
    """One image, for one platform."""

    name: str
    platform: str
    blobs: dict[Digest, int]  # with their sizes
    missing: dict[Digest, int]  # those that the store lacks
    unpacked: int  # bytes of files, about


async def row_of(engine: Engine, resolved: Resolved, into: Into | IntoPodman | None) -> Row:
    """What an image has, and what of it would be fetched.

    Raises:
        StoreError: the disk refused. ContainerdError: nobody answers where it is to go.
    """
    blobs = {blob.digest: blob.size for blob in resolved.blobs}
    there = set() if into is None else await _held(resolved, into)
    missing = {
        digest: count for digest, count in blobs.items() if digest not in there and not await _is_here(engine, digest)
    }
    name = f"{resolved.reference.name}@{resolved.top.digest}"
    return Row(name, str(resolved.platform or "-"), blobs, missing, resolved.unpacked_estimate)


def lines(rows: Sequence[Row]) -> list[str]:
    """A table; blobs that several images share count once in the total."""
    if not rows:
        return []
    found = [("IMAGE", "PLATFORM", "BLOBS", "SIZE", "TO FETCH", "UNPACKED")]
    found += [(plain(row.name), plain(row.platform), *_amounts(row)) for row in rows]
    if len(rows) > 1:
        blobs = {digest: count for row in rows for digest, count in row.blobs.items()}
        missing = {digest: count for row in rows for digest, count in row.missing.items()}
        found.append(("total", "", *_amounts(Row("", "", blobs, missing, sum(row.unpacked for row in rows)))))
    return table(found)


def _amounts(row: Row) -> tuple[str, str, str, str]:
    fetched = size(sum(row.missing.values())) if row.missing else "nothing"
    return str(len(row.blobs)), size(sum(row.blobs.values())), fetched, f"about {size(row.unpacked)}"


async def _held(resolved: Resolved, into: Into | IntoPodman) -> set[Digest]:
    """Layers that containerd has: of a namespace that there is."""
    from fastoci import Containerd, IntoPodman
    from fastoci.errors import ContainerdError

    if isinstance(into, IntoPodman):
        return set()
    try:
        async with Containerd(into) as there:
            return {blob.digest for blob in await there.held(resolved.manifest.layers)}
    except ContainerdError as error:
        if error.code != _NO_NAMESPACE:
            raise
        return set()


async def _is_here(engine: Engine, digest: Digest) -> bool:
    try:
        await engine.path(digest)
    except BlobNotFoundError:
        return False
    return True
