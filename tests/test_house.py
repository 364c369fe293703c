"""What the code base holds itself to: sizes, signatures, docstrings, and nothing written twice."""

from __future__ import annotations

import ast
import keyword
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "fastoci"
FILE_LINES = 450
FUNCTION_LINES = 45
PARAMETERS = 7
DOCUMENTED = 0.98
CLONE_LINES = 8

PYTHON = sorted(SOURCE.rglob("*.py"))
ROOT = SOURCE.parent.parent
ALL_PYTHON = [
    *PYTHON,
    *(path for name in ("tests", "benchmarks", "examples") for path in sorted((ROOT / name).rglob("*.py"))),
]
CYTHON = sorted(SOURCE.rglob("*.p[yx][xd]"))
C = sorted(path for path in SOURCE.rglob("*.[ch]") if not path.with_suffix(".pyx").exists())  # that one is generated

Function = ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> str:
    return str(path.relative_to(SOURCE if path.is_relative_to(SOURCE) else ROOT))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function))


def parameters(function: Function) -> list[str]:
    """All that a caller may pass; ``self`` is not passed."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [each.arg for each in (given.vararg, given.kwarg) if each]
    return [name for name in names if name not in ("self", "cls")]


def test_no_file_is_too_long() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in (*PYTHON, *CYTHON, *C)}
    assert {name: length for name, length in lengths.items() if length > FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    lengths = {
        f"{named(path)}: {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in ALL_PYTHON
        for function in functions(path)
    }
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}


def test_no_signature_is_too_wide() -> None:
    widths = {
        f"{named(path)}: {function.name}": len(parameters(function))
        for path in ALL_PYTHON
        for function in functions(path)
    }
    assert {name: width for name, width in widths.items() if width > PARAMETERS} == {}


def public(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    """A module, and the classes, functions and methods in it whose names do not start with an underscore.

    Not the tests of the suites: their names are sentences.
    """
    yield name, node
    if isinstance(node, Function):
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, Function)):
            found = public(child, f"{name}: {child.name}")
            if child.name.startswith(("_", "test_")):
                next(found)
            yield from found


def test_public_names_are_documented() -> None:
    found = [each for path in PYTHON for each in public(ast.parse(path.read_text()), named(path))]
    bare = [name for name, node in found if not ast.get_docstring(node)]  # type: ignore[arg-type]
    assert len(bare) <= (1 - DOCUMENTED) * len(found), bare
    assert not [name for name in bare if name.endswith(".py")], "a module says what it holds"


# -- clones: the same tokens in eight lines, whatever the names, strings and numbers are --

TOKEN = re.compile(r"""[bfr]{0,2}"(?:\\.|[^"\\])*"|[bfr]{0,2}'(?:\\.|[^'\\])*'|[A-Za-z_]\w*|\d[\w.]*|\S""")
# Imports, decorators, parameters and keys on lines of their own, arguments that a constructor keeps, brackets alone.
PASSED_OVER = re.compile(r"(?:from|import|cimport|#include)\b|@|\w+: [^()]*,\Z|self\.\w+ = \w+\Z|\W*\Z")
C_WORDS = "case const do enum goto int sizeof static struct switch void"
WORDS = {*keyword.kwlist, *C_WORDS.split(" ")}
# Declarations and tables have one shape by their nature; what is in them is said once.
TABLES = re.compile(r"__init__\.py|events\.py|containerd/messages\.py|image/mediatype\.py|testing/faults/table_\w+\.py")

Line = tuple[int, tuple[str, ...]]


def lines(path: Path) -> list[Line]:
    """The lines that say something, with their numbers, as tokens; without comments and docstrings."""
    text = path.read_text()
    if path.suffix in (".c", ".h"):
        text = re.sub(r"//.*|/\*[\s\S]*?\*/", blank, text)
    else:
        text = re.sub(r'(?m)^[ \t]*r?"""[\s\S]*?"""|(?:^|(?<=\s))#.*', blank, text)
    found = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, tuple(TOKEN.findall(line))) for number, line in found if not PASSED_OVER.match(line)]


def blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def shape(window: list[Line]) -> tuple[tuple[str, ...], ...]:
    """The window with its names numbered in the order of their appearance."""
    names: dict[str, str] = {}
    return tuple(tuple(as_shape(token, names) for token in tokens) for _, tokens in window)


def as_shape(token: str, names: dict[str, str]) -> str:
    if token[-1] in "\"'":
        return "text"
    if token[0].isdigit():
        return "number"
    if token in WORDS or not (token[0].isalpha() or token[0] == "_"):
        return token
    return names.setdefault(token, f"name{len(names)}")


def is_table(window: list[Line]) -> bool:
    """Whether most lines have the shape of another: rows of a table, declarations, unrolled steps of a kernel."""
    return len({shape([line]) for line in window}) <= CLONE_LINES // 2


def clones(paths: list[Path]) -> Iterator[str]:
    seen: dict[object, list[tuple[Path, int]]] = defaultdict(list)
    for path in paths:
        found = lines(path)
        for start in range(len(found) - CLONE_LINES + 1):
            window = found[start : start + CLONE_LINES]
            if not is_table(window):
                seen[shape(window)].append((path, window[0][0]))
    for places in seen.values():
        if len(places) > 1:
            yield " ~ ".join(f"{named(path)}:{number}" for path, number in places)


def test_nothing_is_written_twice() -> None:
    paths = [path for path in (*PYTHON, *CYTHON, *C) if not TABLES.fullmatch(named(path))]
    assert list(clones(paths)) == []


@pytest.mark.parametrize("change", [str, lambda text: re.sub(r"\btotal\b", "x_1", text), lambda text: f"#\n{text}"])
def test_a_clone_is_found_whatever_its_names(tmp_path: Path, change: object) -> None:
    text = "def f(rows):\n    total = 0\n    for row in rows:\n        if row > 1:\n            total += row\n"
    text += "    while total:\n        total -= 1\n    return total\n"
    (tmp_path / "a.py").write_text(text)
    (tmp_path / "b.py").write_text(change(text))  # type: ignore[operator]
    assert len(lines(tmp_path / "a.py")) == CLONE_LINES
    windows = [lines(tmp_path / name) for name in ("a.py", "b.py")]
    assert shape(windows[0]) == shape(windows[1])
    assert not is_table(windows[0])
