"""The pages: what they link to, name and quote exists; lines end at 120 columns; the README leads to all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from msgspec.structs import fields

from fastoci.cli import config_file, environment
from fastoci.cli.main import program
from fastoci.limits import Limits
from fastoci.testing import faults

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "fastoci"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which is a history
OURS = [page for page in CURRENT if page.parent.name != "benchmarks"]  # which quotes contenders as if by command lines
OPTIONS = [page for page in OURS if page.name not in ("faults.md", "CONTRIBUTING.md")]  # with options of other programs
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")
BLOCK = re.compile(r"^```.*?^```$|^(?: {4}[^\n]*\n)+", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"[\w*-]+(/[\w.*-]+)*(/|\.(py|c|h|pyx|pxd|md|toml))")
DOTTED = re.compile(r"(?:python -m )?(fastoci\.)?([a-z_]+(?:\.\w+)+)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)
current = pytest.mark.parametrize("page", CURRENT, ids=name_of)


def links(page: Path) -> Iterator[Path]:
    for target in LINK.findall(page.read_text()):
        yield (page.parent / target.partition("#")[0]).resolve()


def shown(page: Path) -> Iterator[str]:
    """The lines of examples, without comments."""
    for block in BLOCK.findall(page.read_text()):
        yield from (line.partition("#")[0].strip() for line in block.splitlines())


def quoted(page: Path) -> list[str]:
    """What stands in backticks, on one line each."""
    return [" ".join(code.split()) for code in CODE.findall(BLOCK.sub("", page.read_text()))]


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words behind each ``fastoci`` that is quoted or in an example."""
    for line in [*quoted(page), *shown(page)]:
        inner = re.findall(r"'([^']*)'", line)  # a command as another's argument
        for part in [*inner, *re.split(r"&&|;|\|", re.sub(r"'[^']*'", "ARGUMENT", line))]:
            words = part.strip().removeprefix(".venv/bin/").split()
            if words[:1] == ["fastoci"]:
                yield words[1:]


def options_of(command: click.Command) -> set[str]:
    return {"--help"} | {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def is_taken(words: list[str]) -> bool:
    """Whether the program has such a command with such options; ``fastoci`` alone, or of COMMAND, is always right."""
    assert isinstance(program, click.Group)
    at = next((number for number, word in enumerate(words) if not word.startswith("--")), len(words))
    command = program.commands.get(words[at]) if at < len(words) else program
    if isinstance(command, click.Group) and command is not program and at + 1 < len(words):
        command = command.commands.get(words[at + 1])
    if command is None:
        return words[at] == "COMMAND"
    before, behind = words[:at], [word.partition("=")[0] for word in words[at:] if word.startswith("--")]
    return set(before) <= options_of(program) and set(behind) <= options_of(command)


@pages
def test_every_link_leads_to_a_file_of_the_project(page: Path) -> None:
    assert [target for target in links(page) if not target.exists()] == []


@pages
def test_lines_are_within_120_columns(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text())
    assert [line for line in prose.splitlines() if len(line) > 120 and not line.startswith("|")] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            ahead += links(page)
    assert [name_of(page) for page in PAGES if page not in reached] == []


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_every_command_line_is_one_that_the_program_takes(page: Path) -> None:
    assert [words for words in command_lines(page) if not is_taken(words)] == []


@pytest.mark.parametrize("page", OPTIONS, ids=name_of)
def test_every_option_is_one_of_some_command(page: Path) -> None:
    assert isinstance(program, click.Group)
    known = options_of(program).union(*map(options_of, environment.commands_of(program)))
    named = {re.split(r"[ =]", code)[0] for code in quoted(page) if code.startswith("--")}
    assert named - known == set()


@current
def test_every_path_of_the_project_exists(page: Path) -> None:
    roots = (ROOT, SOURCE, page.parent)
    words = {word for line in shown(page) for word in line.split()} | set(quoted(page))
    named = {word for word in words if PATH.fullmatch(word) and "/" in word}
    ours = {word for word in named if any((root / word.split("/")[0]).exists() for root in roots)}
    assert {word for word in ours if not any(any(root.glob(word)) for root in roots)} == set()


@current
def test_every_dotted_name_is_a_module_or_in_one(page: Path) -> None:
    units = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()} | {"_core"}
    wrong = []
    for code in quoted(page):
        name = DOTTED.match(code)
        if name and not PATH.match(code):
            parts = name[2].split(".")
            if (name[1] or parts[0] in units) and not resolves(parts):
                wrong.append(code)
    assert wrong == []


def resolves(parts: list[str]) -> bool:
    thing: object = import_module("fastoci")
    for number, part in enumerate(parts, 1):
        name = ".".join(["fastoci", *parts[:number]])
        if hasattr(thing, "__path__") and find_spec(name) is not None:
            thing = import_module(name)
        elif not hasattr(thing, part):
            return False
        else:
            thing = getattr(thing, part)
    return True


@current
def test_every_limit_is_a_field(page: Path) -> None:
    named = set(re.findall(r"`Limits\.(\w+)", page.read_text()))
    assert named - {field.name for field in fields(Limits)} - set(dir(Limits)) == set()


@current
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {line.split()[1] for line in [*quoted(page), *shown(page)] if line.startswith("make ")} <= targets


def test_the_page_of_the_configuration_has_each_option_with_its_variable_and_key_once() -> None:
    assert isinstance(program, click.Group)
    keys: dict[tuple[str, str], set[str]] = {}
    for command in environment.commands_of(program):
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_eager:
                key = config_file.key_of(command, option)
                keys.setdefault((environment.flag(option), str(option.envvar)), set()).add(shown_key(key))
    text = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `(--[^`]+)` \| `([^`]+)` \| (.*?) ?\|$", text, re.MULTILINE)
    assert rows == [(*name, " ".join(sorted(keys[name]))) for name in sorted(keys)]


def shown_key(key: str | None) -> str:
    """``[gc] max-age``, of ``gc.max-age``."""
    table, dot, name = (key or "").rpartition(".")
    return f"`[{table}] {name}`" if dot else name and f"`{name}`"


def test_the_scenario_on_the_page_of_faults_is_one_of_the_table() -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "faults.md").read_text(), re.DOTALL)
    assert eval(shown[0], vars(faults)) in faults.SCENARIOS


def test_every_threat_names_tests_that_exist() -> None:
    wrong = []
    for line in (ROOT / "docs" / "threats.md").read_text().splitlines():
        if line.startswith("|") and not line.startswith(("| fault", "| ---")):
            for folder, names in re.findall(r"(?:([a-z]+): )?((?:`[^`]+`(?:, )?)+)", line.rsplit(" | ", 1)[1]):
                wrong += [f"{folder}: {name}" for name in CODE.findall(names) if not exists(folder, name)]
    assert wrong == []


def exists(folder: str, name: str) -> bool:
    """Whether a test of this name, or a file of tests, is below the folder; csrc has its own tests."""
    place = SOURCE / "csrc" if folder == "csrc" else ROOT / "tests" / folder
    if name.endswith((".py", ".c")):
        return any(place.rglob(name))
    texts = (path.read_text() for path in place.rglob("*") if path.suffix in (".py", ".c"))
    return any(re.search(rf"\b(test_)?{name}\(", text) for text in texts)
