"""With several workers, each imports another share of the tests first: pytest rewrites and compiles a file but once.

All workers import all files; who comes to one that another has imported finds it compiled. Without that each of them
spends ten seconds on all. Where Python writes no bytecode, there is nothing to find.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from _pytest.pathlib import ImportMode, import_path


def import_from(config: pytest.Config, root: Path) -> None:
    """Import all tests below ``root``, from this worker's share on; an error is for the collection to tell."""
    worker: dict[str, object] | None = getattr(config, "workerinput", None)
    if worker is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS or sys.dont_write_bytecode:
        return
    files = sorted(root.rglob("test_*.py"))
    first = len(files) * int(str(worker["workerid"]).removeprefix("gw")) // int(str(worker["workercount"]))
    for file in files[first:] + files[:first]:
        try:
            import_path(file, mode=ImportMode.importlib, root=config.rootpath, consider_namespace_packages=False)
        except BaseException:
            return
