"""Every module has tests that say so: a test file of its name in the room of its name, or a docstring that names it.

A test file that covers more than the module of its name says in its docstring which, by their ways below
``src/fastoci``: ``Covers: store/gc/stale.py, store/graph.py.``
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.scheduling import TOGETHER, group
from support.scratch import TESTS

PACKAGE = TESTS.parent / "src" / "fastoci"
FILES = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]
MODULES = sorted(path.relative_to(PACKAGE) for path in FILES if path.name != "__init__.py")
_COVERS = re.compile(r"^Covers: (?P<modules>[^:]*?)\.$", re.MULTILINE)


def covered(docstring: str) -> list[str]:
    """What the line ``Covers:`` of a docstring names; it may go on over several lines."""
    match = _COVERS.search(docstring)
    return match["modules"].replace("\n", " ").split(", ") if match else []


def named() -> dict[Path, set[str]]:
    """Modules by the test files whose docstrings name them."""
    found: dict[Path, set[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for module in covered(ast.get_docstring(ast.parse(file.read_text())) or ""):
            found.setdefault(Path(module), set()).add(str(file.relative_to(TESTS)))
    return found


NAMED = named()


def test_a_module_has_a_test_file_of_its_name_or_a_docstring_that_names_it() -> None:
    own = {module: TESTS / module.parent / f"test_{module.stem.strip('_')}.py" for module in MODULES}
    assert [
        f"{module}: no {file.relative_to(TESTS)}"
        for module, file in own.items()
        if not (file.is_file() or module in NAMED)
    ] == []


def test_only_modules_that_are_there_are_named() -> None:
    assert {module: by for module, by in NAMED.items() if module not in MODULES} == {}


def test_a_test_file_does_not_repeat_its_folder() -> None:
    files = [file.relative_to(TESTS) for file in TESTS.rglob("test_*.py")]
    assert [str(file) for file in files if file.stem.startswith(f"test_{file.parent.name}_")] == []


def test_helpers_are_in_the_folder_support() -> None:
    files = [file.relative_to(TESTS) for file in TESTS.rglob("*.py") if not file.name.startswith("test_")]
    assert {str(file) for file in files if file.parts[0] != "support" and file.name != "conftest.py"} == set()


def test_tests_that_share_what_is_dear_to_set_up_have_one_worker() -> None:
    assert [file for file in TOGETHER if not (TESTS.parent / file).is_file()] == []
    assert {group(f"{file}::test_{number}[a::b]") for file in TOGETHER for number in range(3)} == set(TOGETHER)
    assert group("tests/test_layout.py::test_x") != group("tests/test_layout.py::test_y")


@pytest.mark.parametrize(
    ("docstring", "modules"),
    [
        ("A line.", []),
        ("A line.\n\nCovers: a/b.py.", ["a/b.py"]),
        ("A line.\n\nCovers: a/b.py, c.py,\nd/e.py.\n\nMore: x.", ["a/b.py", "c.py", "d/e.py"]),
    ],
)
def test_a_docstring_names_modules_in_a_line_of_its_own(docstring: str, modules: list[str]) -> None:
    assert covered(docstring) == modules
