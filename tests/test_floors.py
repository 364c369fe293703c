"""Who may import whom, as data: an upward or sideways import fails. docs/architecture.md draws it."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "fastoci"
NATIVE = {"_core", "_inflate", "_extract", "_erofs", "_mount"}
PURE = {"arguments", "errors", "events", "limits", "durations", "release", "_core", "image"}  # no I/O, no clock
DISK = {"boot", "directory", "files", "mountinfo", "path_walk", "locks", "verity", "whole_process"}
CONTRACTS = {"interfaces", "image_interfaces", "layer_interfaces"}
MIDDLE = PURE | DISK | CONTRACTS | {"aio", "discreet", "slots", "threads", "stream", "lists"}
MEDIA = MIDDLE | {"registry", "store", "unpack", "pack", "layouts", "mount", "containerd", "configure"}
ENGINE = {"engine_parts", "engine_maintenance", "ends", "engine"}
PUBLIC = MEDIA | ENGINE | {"transfer", "trust", "jobs", "shortcuts", "versions"}

# unit: (units of ours it may import, third-party packages)
FLOORS: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "events": ({"arguments"}, {"msgspec"}),
    "_core": (set(), set()),
    "_inflate": ({"_core"}, set()),
    "_extract": ({"_core"}, set()),
    "_erofs": (set(), set()),
    "_mount": (set(), set()),
    "arguments": (set(), set()),
    "limits": ({"arguments"}, {"msgspec"}),
    "discreet": (set(), {"msgspec"}),
    "durations": (set(), set()),
    "release": (set(), set()),
    "boot": (set(), set()),
    "whole_process": (set(), set()),
    "directory": (set(), set()),
    "mountinfo": (set(), {"msgspec"}),
    "files": ({"errors", "directory"}, set()),
    "path_walk": ({"errors", "files"}, set()),
    "verity": ({"_core", "errors", "files", "directory"}, {"msgspec"}),
    "aio": ({"errors"}, set()),
    "threads": ({"aio"}, set()),
    "slots": (set(), set()),
    "locks": ({"errors", "directory", "files", "threads"}, set()),
    "image": ({"arguments", "errors", "_core"}, {"msgspec"}),
    "lists": ({"arguments", "errors", "image"}, {"msgspec", "yaml"}),
    "stream": (PURE | {"_inflate"}, {"isal", "msgspec", "zstandard"}),
    "interfaces": (PURE | {"stream"}, {"msgspec"}),
    "image_interfaces": (PURE | {"interfaces"}, {"msgspec"}),
    "layer_interfaces": (PURE | {"stream"}, set()),
    "registry": (MIDDLE, {"aiohttp", "msgspec", "yaml", "yarl"}),
    "store": (MIDDLE | {"_extract"}, {"msgspec"}),
    "unpack": (MIDDLE | {"_extract", "_erofs"}, {"msgspec"}),
    "pack": (MIDDLE, {"msgspec"}),
    "layouts": (MIDDLE | {"_extract"}, {"msgspec"}),
    "mount": (MIDDLE | {"_mount"}, {"msgspec"}),
    "containerd": (MIDDLE, {"h2", "msgspec"}),
    "configure": (MIDDLE, {"msgspec"}),
    "transfer": (MEDIA | {"_inflate", "_extract"}, {"msgspec"}),
    "trust": (MIDDLE | {"registry"}, {"cryptography", "msgspec"}),
    "jobs": (MEDIA | {"transfer", "trust"}, {"msgspec"}),
    "versions": ({"_core", "release", "mount", "registry", "stream"}, set()),
    "engine_parts": (MEDIA | {"transfer", "trust", "jobs"}, set()),
    "engine_maintenance": (MEDIA | {"transfer", "trust", "jobs", "engine_parts", "ends"}, set()),
    "ends": (MEDIA | {"transfer", "trust", "jobs", "engine_parts"}, {"msgspec"}),
    "engine": (PUBLIC, set()),
    "fetch_process": (PUBLIC, {"uvloop"}),
    "shortcuts": (PUBLIC, set()),
    "__init__": (PUBLIC, set()),
    "server": (PUBLIC | {"__init__"}, {"msgspec"}),
    "testing": (PUBLIC | {"__init__", "server"}, {"isal", "msgspec", "trustme", "zstandard"}),
    "cli": (
        {"__init__", "errors", "events", "limits", "durations", "release", "server", "testing", "files", "path_walk"},
        {"click", "msgspec", "prometheus_client", "rich", "uvloop"},
    ),
    "__main__": ({"cli", "whole_process"}, set()),
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


def modules() -> dict[str, Path]:
    names = {path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


@cache
def graph() -> dict[str, set[str]]:
    """Which modules of ours each one imports: at any time, also for types alone."""
    found = modules()
    edges: dict[str, set[str]] = {f"fastoci.{name}": set() for name in NATIVE}
    for module, path in found.items():
        edges[module] = set()
        for name in imports(path):
            while name and name not in found and name not in edges:
                name = name.rpartition(".")[0]
            edges[module] |= {name} - {module, ""}
    return edges


def circle(edges: dict[str, set[str]]) -> list[str]:
    """What is left when all that lead nowhere and all that nobody leads to are taken away: nothing without a circle."""
    left = {node: set(targets) for node, targets in edges.items()}
    while True:
        led_to = set().union(*left.values())
        gone = {node for node, targets in left.items() if not targets or node not in led_to}
        if not gone:
            return sorted(left)
        left = {node: targets - gone for node, targets in left.items() if node not in gone}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(graph()) == []


@pytest.mark.parametrize("package", sorted(name for name, path in modules().items() if path.name == "__init__.py"))
def test_no_parts_of_a_package_import_each_other_in_a_circle(package: str) -> None:
    """The modules and folders of one package, each folder as one."""
    depth = package.count(".") + 2

    def part(module: str) -> str:
        return ".".join(module.split(".")[:depth]) if module.startswith(f"{package}.") else ""

    edges: dict[str, set[str]] = defaultdict(set)
    for module, targets in graph().items():
        edges[part(module)] |= {part(target) for target in targets} - {part(module), ""}
    edges.pop("", None)
    assert circle(edges) == []


def test_a_circle_is_found_and_what_leads_to_it_is_not_blamed() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("package", "folders"),
    [("aiohttp", {"registry/http"}), ("yaml", {"registry/auth", "lists"}), ("h2", {"containerd/rpc"})],
    ids=["aiohttp", "yaml", "h2"],
)
def test_a_package_of_others_is_used_in_few_folders(package: str, folders: set[str]) -> None:
    users = [path for path in SOURCE.rglob("*.py") if any(name.partition(".")[0] == package for name in imports(path))]
    assert {str(path.parent.relative_to(SOURCE)) for path in users} == folders


@pytest.mark.parametrize("unit", ["jobs", "transfer"])
def test_jobs_take_protocols_and_not_the_store_itself(unit: str) -> None:
    """But for the upkeep of the store's own files: docs/decisions/0010-jobs-take-protocols.md."""
    upkeep = {"jobs/maintenance.py", "jobs/verify.py", "jobs/repair_unpacked.py"}
    found = {
        str(path.relative_to(SOURCE))
        for path in (SOURCE / unit).rglob("*.py")
        if any(name.startswith("fastoci.store.store") for name in imports(path))
    }
    assert found <= upkeep


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_value_is_no_dataclass(path: Path) -> None:
    """A struct is made in a fiftieth of the time: docs/decisions/0013-values-are-structs.md."""
    if unit_of(path) not in {"server", "testing"}:
        assert not [name for name in imports(path) if name.partition(".")[0] == "dataclasses"]


def test_every_unit_has_a_floor() -> None:
    units = {unit_of(path) for path in SOURCE.rglob("*.py")} | NATIVE
    assert units <= FLOORS.keys(), "a new folder is a decision record"
