"""Who may include whom in the C core, as data, and how long a file of C or Cython may be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "fastoci"
CSRC = SOURCE / "csrc"

# folder: the folders whose headers it may include
FLOORS: dict[str, set[str]] = {
    "io": set(),
    "sha256": set(),
    "inflate": set(),
    "mount": set(),
    "verity": {"io", "sha256"},
    "tar": set(),
    "layer": {"io", "tar"},
    "tarsplit": {"tar", "layer"},
    "extract": {"io", "tar", "layer"},
    "erofs": {"io", "tar", "layer"},
}
# of csrc/tests: helpers that tests share; each other folder has the name of what it tests
SHARED = {
    "support": {"io", "tar", "layer", "extract"},
    "fuzz": {"support", "io", "tar", "tarsplit", "layer", "extract", "erofs", "inflate"},
}

INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
DECLARED = re.compile(r"^(?!static |typedef )[a-z].*?\b([a-z]\w+)\((?:[^;{]|\n)*\);", re.MULTILINE)
CORE = sorted(path for path in CSRC.glob("*/*.[ch]") if path.parent.name != "tests")
HEADERS = [path for path in CORE if path.suffix == ".h"]
C_FILES = sorted(path for path in CSRC.rglob("*.[ch]") if "build" not in path.parts)
CYTHON = sorted([*SOURCE.glob("*.pyx"), *SOURCE.rglob("*.pxd")])


def short(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def includes(path: Path) -> list[str]:
    """The headers of ours that a file includes, from csrc or from its tests."""
    return INCLUDE.findall(path.read_text())


def unit(path: str) -> str:
    """A source and its header are one unit."""
    return path.rsplit(".", 1)[0]


def units(files: list[Path]) -> dict[str, set[str]]:
    """Each unit with those that it includes."""
    graph: dict[str, set[str]] = {}
    for path in files:
        name = unit(str(path.relative_to(CSRC)))
        graph.setdefault(name, set()).update(unit(header) for header in includes(path) if unit(header) != name)
    return graph


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """The first line of each function's definition, and how many lines it has."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if line == "{":
            first = at - 1
            while first and lines[first - 1] and not lines[first - 1].endswith(("*/", "}", ";")):
                first -= 1
            yield lines[first], lines.index("}", at) - first + 1


def cython_functions(text: str) -> Iterator[tuple[str, int]]:
    lines = text.splitlines()
    for at, line in enumerate(lines):
        begun = re.match(r"( *)(?:def|cp?def(?! class| extern| enum| struct)) .*\(", line)
        if begun:
            indent, last = len(begun[1]), at
            for below in range(at + 1, len(lines)):
                closes = lines[below].lstrip().startswith(")")
                if lines[below] and len(lines[below]) - len(lines[below].lstrip()) <= indent and not closes:
                    break
                last = below if lines[below] else last
            yield line.strip(), last - at + 1


@pytest.mark.parametrize("path", CORE, ids=short)
def test_a_file_of_c_includes_only_from_below(path: Path) -> None:
    folder = path.parent.name
    for header in includes(path):
        assert (CSRC / header).is_file(), f"{header}: headers are named from csrc on"
        below = header.split("/")[0]
        assert below == folder or below in FLOORS[folder], f"{folder} may not include {header}"


def test_every_folder_of_the_core_has_a_floor() -> None:
    assert {path.parent.name for path in CORE} == FLOORS.keys(), "a new folder is a decision record"


def test_sources_and_headers_include_each_other_in_no_circle() -> None:
    try:
        TopologicalSorter(units(CORE)).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("folder", sorted(FLOORS.keys() - {"io"}))
def test_the_file_of_the_folders_name_is_on_top_and_its_context_below_all_that_runs(folder: str) -> None:
    for path in CSRC.glob(f"{folder}/*.[ch]"):
        if path.stem != folder:
            assert f"{folder}/{folder}.h" not in includes(path), path.name
        if path.stem == "context":
            above = [header for header in includes(path) if f"{folder}/context.h" in includes(CSRC / header)]
            assert not above, f"{path.name} includes {above}"


@pytest.mark.parametrize("path", HEADERS, ids=short)
def test_a_header_declares_what_its_own_source_defines(path: Path) -> None:
    """Else an include would not say whose function it is, and circles could hide in the linker."""
    source = path.with_suffix(".c")
    defined = source.read_text() if source.is_file() else ""
    for name in DECLARED.findall(path.read_text()):
        assert re.search(rf"^[^\s].*\b{name}\((?:[^;{{]|\n)*\)\n{{", defined, re.MULTILINE), name


@pytest.mark.parametrize("path", [path for path in C_FILES if path not in CORE], ids=short)
def test_a_c_test_includes_what_its_folder_is_about(path: Path) -> None:
    folder = path.parent.name
    for header in includes(path):
        below = header.split("/")[0]
        assert (CSRC / header).is_file() or (CSRC / "tests" / header).is_file(), header
        if folder in SHARED:
            assert below == folder or below in SHARED[folder], f"{folder} may not include {header}"
        elif path.name.startswith("test_"):
            assert below in {folder, "support"} | FLOORS[folder] | {"sha256"}, f"{folder} may not include {header}"


@pytest.mark.parametrize("path", HEADERS, ids=short)
def test_an_extern_block_stands_beside_its_header_and_names_what_is_there(path: Path) -> None:
    mirror = path.with_suffix(".pxd")
    if not mirror.is_file():
        return
    block = mirror.read_text()
    assert f'cdef extern from "{path.relative_to(CSRC)}" nogil:' in block
    names = re.findall(r"\b(?:struct|enum:|enum) (\w+)|\b(\w+)(?: \"\w+\")?\(", block.split("cdef extern", 1)[1])
    for name in (a or b for a, b in names):
        assert re.search(rf"\b{name.removeprefix('c_')}\b", path.read_text()), name


def test_every_extern_block_has_a_header() -> None:
    assert [short(path) for path in CSRC.rglob("*.pxd") if not path.with_suffix(".h").is_file()] == []


@pytest.mark.parametrize("path", [*C_FILES, *SOURCE.glob("*.pyx")], ids=short)
def test_a_file_of_c_says_at_its_top_what_it_does(path: Path) -> None:
    text = path.read_text()
    if path.suffix == ".pyx":
        assert text.partition("\n")[2].startswith('"""')
    else:
        assert re.match(r"/\* [A-Za-z].{20,}", text), text.splitlines()[0]


@pytest.mark.parametrize("path", [*C_FILES, *CYTHON], ids=short)
def test_a_file_has_450_lines_at_most_and_a_function_45(path: Path) -> None:
    text = path.read_text()
    functions = c_functions(text) if path.suffix in (".c", ".h") else cython_functions(text)
    assert [(name, lines) for name, lines in functions if lines > 45] == []
    assert len(text.splitlines()) <= 450


@pytest.mark.parametrize("path", CYTHON, ids=short)
def test_cython_neither_includes_nor_defines_at_compile_time(path: Path) -> None:
    assert not re.search(r"^\s*(include\b|DEF\b|IF\b)", path.read_text(), re.MULTILINE)


def test_functions_are_measured_from_their_first_line_to_their_last() -> None:
    c = "/* Why. */\nstatic int two(int a,\n               int b)\n{\n    return a;\n}\n\nint one(void)\n{\n}\n"
    assert list(c_functions(c)) == [("static int two(int a,", 5), ("int one(void)", 3)]
    cython = (
        "cdef class A:\n    def f(\n        self\n    ):\n        pass\n\n    cdef g():\n\n        return 0\nx = 1\n"
    )
    assert list(cython_functions(cython)) == [("def f(", 4), ("cdef g():", 3)]
