"""Program: in a user namespace, make ``N.tar`` of a directory into layer directories, mount them, and list what shows.

``python -m support.user_namespace_layers DIRECTORY COUNT``
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastoci import _core
from fastoci.testing.trees import listing
from fastoci.unpack.layer_directory import LayerDirectoryWriter
from support.overlays import LIMITS, mounted
from support.scratch import opened


def main(work: Path, count: int) -> None:
    pool = _core.Pool(4 * _core.BUFFER_SIZE)
    for number in range(count):
        (work / f"{number}").mkdir()
        buffer = pool.take()
        assert buffer is not None
        buffer.append((work / f"{number}.tar").read_bytes())
        with opened(work / f"{number}") as fd:
            writer = LayerDirectoryWriter(fd, name=f"{number}", owners=True, **LIMITS)
            writer.feed(buffer)
            writer.finish()
        buffer.release()
        assert writer.facts.user_xattrs
        assert writer.facts.reasons == ()
    trees = [work / f"{number}/tree" for number in range(count)]
    with mounted(trees, work / "at", user_xattrs=True) as at:
        for node in listing(at):
            print(node.path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
