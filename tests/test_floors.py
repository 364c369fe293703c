"""Who may import whom, as data: an upward or sideways import fails. docs/architecture.md draws it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "fastoci"
ZERO = {
    "errors",
    "events",
    "limits",
    "directory",
    "files",
    "path_walk",
    "threads",
    "locks",
    "aio",
    "durations",
    "_core",
}
PURE = ZERO | {"image"}
MIDDLE = PURE | {"stream", "interfaces"}
MEDIA = MIDDLE | {"registry", "store", "unpack", "layouts"}
PUBLIC = MEDIA | {"transfer", "jobs", "engine", "info"}

# unit: (units of ours it may import, third-party packages)
FLOORS: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "events": (set(), set()),
    "limits": ({"_core"}, set()),
    "durations": (set(), set()),
    "aio": ({"errors"}, set()),
    "threads": ({"aio"}, set()),
    "directory": (set(), set()),
    "files": ({"errors", "directory"}, set()),
    "path_walk": ({"errors", "files"}, set()),
    "locks": ({"errors", "directory", "files", "threads"}, set()),
    "_core": (set(), set()),
    "image": ({"errors", "_core"}, {"msgspec"}),
    "stream": (PURE, {"isal", "zstandard"}),
    "interfaces": (PURE | {"stream"}, set()),
    "registry": (MIDDLE, {"aiohttp", "yaml", "yarl"}),
    "store": (MIDDLE, set()),
    "unpack": (MIDDLE, set()),
    "layouts": (MIDDLE, set()),
    "transfer": (MEDIA, set()),
    "jobs": (MEDIA | {"transfer"}, set()),
    "info": (MEDIA, set()),
    "engine": (PUBLIC, set()),
    "__init__": (PUBLIC, set()),
    "server": (PUBLIC | {"__init__"}, set()),
    "testing": (PUBLIC | {"__init__", "server"}, {"isal", "trustme", "zstandard"}),
    "cli": ({"__init__", "errors", "events", "limits", "durations", "testing"}, {"click", "rich", "uvloop"}),
    "__main__": ({"cli"}, set()),
}


def imports(path: Path) -> Iterator[str]:
    """The absolute names that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unit_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_from_below(path: Path) -> None:
    unit = unit_of(path)
    ours, packages = FLOORS[unit]
    for name in imports(path):
        first, _, rest = name.partition(".")
        if first == "fastoci":
            target = rest.split(".")[0]
            target = target if target in FLOORS else "__init__"
            assert target == unit or target in ours, f"{unit} may not import fastoci.{target}"
        elif first not in sys.stdlib_module_names:
            assert first in packages, f"{unit} may not import {first}"


def test_every_unit_has_a_floor() -> None:
    units = {unit_of(path) for path in SOURCE.rglob("*.py")} | {"_core"}
    assert units <= FLOORS.keys(), "a new folder is a decision record"
