"""The trees that images of the folder beside the repository must give, as its listings say."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

from fastoci.testing.trees import Node

EXPECTED = Path(__file__).resolve().parents[2].parent / "shared" / "images" / "expected"
# No listing of their own, but the same diff_ids as the image named here, so the same tree.
SAME_TREE = {"gzip-header-crc": "gzip-header-fields"}
KINDS = {"f": "file", "d": "directory", "l": "symlink", "p": "fifo", "c": "character", "b": "block", "s": "socket"}


def node(row: dict[str, object]) -> Node:
    """A line of a listing as a value."""
    xattrs, device = row.get("x", {}), row.get("dev", (0, 0))
    mtime_ns, size = row["mt"], row.get("s", 0)
    assert isinstance(xattrs, dict) and isinstance(device, (list, tuple)) and isinstance(size, int)
    assert mtime_ns is None or isinstance(mtime_ns, int)
    return Node(
        path=str(row["p"]),
        kind=KINDS[str(row["t"])],
        mode=int(str(row["m"]), 8),
        uid=int(str(row["u"])),
        gid=int(str(row["g"])),
        mtime_ns=mtime_ns,
        size=size,
        sha256=str(row.get("h", "")),
        link=str(row.get("l", "")),
        xattrs=tuple(sorted((name, bytes.fromhex(value)) for name, value in xattrs.items())),
        device=(int(device[0]), int(device[1])),
        hard_link=str(row.get("hl", "")),
    )


def expected_tree(tag: str, scratch: Path) -> list[Node]:
    """The listing that the image of this tag must give on the file system of ``scratch``."""
    with gzip.open(EXPECTED / f"{SAME_TREE.get(tag, tag)}.jsonl.gz", "rt", encoding="utf-8") as file:
        nodes = [node(json.loads(line)) for line in file]
    if tag == "times-extreme":
        # What the layer says, as far as this file system can keep it: the listing has what Go's 64-bit nanoseconds
        # make of the year 2500, which is 1915.
        said = {"before1970": -86400, "y1900": -2208988800, "y2500": 16725225600}
        nodes = [replace(each, mtime_ns=kept_time(scratch, said[each.path])) for each in nodes]
    return nodes


def kept_time(scratch: Path, seconds: int) -> int:
    probe = scratch / "probe"
    probe.touch()
    os.utime(probe, ns=(0, seconds * 1_000_000_000))
    return probe.stat().st_mtime_ns
