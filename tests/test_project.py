"""What a project has beside its code: the license, its metadata, the change log, the index of decisions, hooks."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # SHA-256 of the text as Apache gives it
FRAGMENT = re.compile(r"[0-9]+(-[a-z0-9]+)*\.(feature|fix|removal)\.md")
FOLDERS = ("src", "tests", "docs", "benchmarks", "examples", "changelog.d")
FILES = ("LICENSE", "MANIFEST.in", "Makefile", "pyproject.toml", "setup.py", ".pre-commit-config.yaml")
# without the sources of an editable install, which a build elsewhere does not have either
BUILD = """
import pathlib, sys
sys.path = [path for path in sys.path if not pathlib.Path(path, "fastoci", "_core.pyx").exists()]
from setuptools.build_meta import build_sdist
build_sdist(sys.argv[1])
"""


def test_the_license_is_the_apache_license_word_for_word() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2


def test_what_is_installed_names_its_license_and_authors_and_holds_the_text() -> None:
    installed = distribution("fastoci")
    metadata = installed.metadata
    assert (metadata["License-Expression"], metadata["License-File"]) == ("Apache-2.0", "LICENSE")
    assert metadata["Author"] == "The fastoci developers"
    assert metadata.get_all("Project-URL") is None
    text = installed.read_text("licenses/LICENSE")
    assert text == (ROOT / "LICENSE").read_text()


def test_the_source_distribution_holds_all_that_a_clone_needs(tmp_path: Path) -> None:
    pytest.importorskip("Cython", reason="Cython is one of the developer's tools: make check")
    clone = tmp_path / "clone"
    built = shutil.ignore_patterns("build", "*.egg-info", "*.so", "__pycache__", "*.pyc", "_*.c", "results")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, clone / folder, ignore=built)
    for path in [*ROOT.glob("*.md"), *(ROOT / name for name in FILES)]:
        shutil.copy(path, clone)
    wanted = {str(path.relative_to(clone)) for path in clone.rglob("*") if path.is_file()}
    made = subprocess.run([sys.executable, "-c", BUILD, tmp_path], cwd=clone, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    with tarfile.open(tmp_path / "fastoci-0.1.0.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert wanted - names == set()


def test_a_wheel_holds_python_stubs_and_no_source_of_the_native_core(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    hidden = shutil.ignore_patterns(".*", "build", "*.egg-info", "*.so", "__pycache__", "_*.c")
    shutil.copytree(ROOT / "src", clone / "src", ignore=hidden)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    build = "import sys, setuptools; setuptools.setup(script_args=['-q', 'build_py', '--build-lib', sys.argv[1]])"
    made = subprocess.run([sys.executable, "-c", build, tmp_path / "lib"], cwd=clone, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    kinds = {path.name if path.suffix in ("", ".typed") else path.suffix for path in tmp_path.glob("lib/**/*.*")}
    assert kinds == {".py", ".pyi", "py.typed"}
    assert not list(tmp_path.glob("lib/**/csrc"))


@pytest.mark.parametrize("path", sorted((ROOT / "changelog.d").iterdir()), ids=lambda path: path.name)
def test_a_fragment_has_a_name_that_the_change_log_can_sort(path: Path) -> None:
    assert FRAGMENT.fullmatch(path.name) or path.name == "template.md", "NUMBER-WORDS.(feature|fix|removal).md"


def test_the_change_log_has_the_version_of_the_project_once() -> None:
    sections = re.findall(r"^## (\S+) \(", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections.count(distribution("fastoci").version) == 1, "make changelog-build, with a new version"


def test_the_index_of_decisions_names_each_once_by_its_own_title() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    titles = [path.read_text().partition("\n")[0] for path in records]
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1)), "one number, one decision"
    listed = re.findall(r"^- \[(\d{4})\]\((.+?)\) (.+)$", (folder / "README.md").read_text(), re.MULTILINE)
    assert listed == [
        (path.name[:4], path.name, title.removeprefix(f"# {int(path.name[:4])}. "))
        for path, title in zip(records, titles, strict=True)
    ]


def test_hooks_before_a_commit_fetch_nothing_and_run_what_make_dev_installs() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    tools = (ROOT / "pyproject.toml").read_text()
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        program = Path(hook["entry"].split()[0])
        assert program.parent == Path(".venv/bin") and f'"{program.name}>=' in tools, hook["id"]


def test_make_help_names_every_target_that_people_run() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"peers"}
    helped = subprocess.run(["make", "-s", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in helped.splitlines()} == targets


@pytest.mark.parametrize("body", [gzip.compress(b"made in this second")])
def test_a_name_of_a_test_holds_no_bytes_so_that_all_workers_collect_the_same(
    body: bytes, request: pytest.FixtureRequest
) -> None:
    assert request.node.name.endswith("[body]")
    assert gzip.decompress(body) == b"made in this second"
