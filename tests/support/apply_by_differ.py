"""Apply layer files onto a directory by a differ, as containerd would ask it.

FORM is ``bind``, or ``overlay`` for the form of overlayfs, in ROOT itself. The exit code is 0, or gRPC's status.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from fastoci.containerd.messages import Mount
from fastoci.errors import ContainerdError
from fastoci.limits import Limits
from support.differ_scene import scene
from support.scratch import scratch


async def apply(form: str, limits: Limits, root: Path, layers: list[Path]) -> int:
    """Apply them in order, up to the first that is refused."""
    mount = Mount("bind", str(root), "", ("rw", "rbind"))
    if form == "overlay":
        mount = Mount("overlay", "overlay", "", ("rw", f"upperdir={root}"))
    with scratch("hostile") as home:
        async with scene(home, limits) as running:
            for layer in layers:
                blob = running.containerd.add(layer.read_bytes(), "application/octet-stream")
                try:
                    await running.apply(blob, [mount])
                except ContainerdError as error:
                    print(error, file=sys.stderr)
                    return error.code
    return 0


def main() -> int:
    """Apply what the arguments name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("form", choices=("bind", "overlay"))
    parser.add_argument("--max-unpacked", type=int, help="0 is the default")
    parser.add_argument("--max-entries", type=int, help="0 is the default")
    parser.add_argument("root", type=Path)
    parser.add_argument("layers", type=Path, nargs="+")
    asked = parser.parse_args()
    bounds = {"unpacked_size": asked.max_unpacked, "unpacked_entries": asked.max_entries}
    limits = Limits(**{name: value for name, value in bounds.items() if value})
    return asyncio.run(apply(asked.form, limits, asked.root, asked.layers))


if __name__ == "__main__":
    sys.exit(main())
