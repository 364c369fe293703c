"""The package as a program sees it: public names, loaded when they are used, on one page.

Covers: release.py.
"""

from __future__ import annotations

import pkgutil
import pydoc
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import fastoci


def test_help_begins_with_a_page_that_names_all_that_is_public() -> None:
    page, _, _ = pydoc.plain(pydoc.render_doc(fastoci)).partition("PACKAGE CONTENTS")
    assert len(page.splitlines()) <= 90
    words = set((fastoci.__doc__ or "").replace(",", " ").split())
    verbs = {name for name in dir(fastoci.Engine) if not name.startswith("_")}
    assert set(fastoci.__all__) | verbs <= words


@pytest.mark.parametrize("name", fastoci.__all__)
def test_a_public_name_says_what_it_is(name: str) -> None:
    assert (getattr(fastoci, name).__doc__ or "").strip()


def test_no_module_has_the_name_of_a_public_function_and_takes_its_place_once_it_is_imported() -> None:
    modules = {module.name for module in pkgutil.iter_modules(fastoci.__path__)}
    assert modules & set(fastoci.__all__) == {"errors", "events"}


def test_dir_and_the_version_are_there() -> None:
    assert set(fastoci.__all__) <= set(dir(fastoci))
    assert fastoci.__version__ == version("fastoci")


def test_a_type_checker_finds_a_name_that_is_not_public(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import fastoci\n\nfastoci.pulll\nfastoci.pull('x', additional=['/y'])\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if "No module named mypy" in done.stderr:
        pytest.skip("mypy is not installed")
    assert 'program.py:3: error: Module has no attribute "pulll"' in done.stdout
    assert "Found 1 error" in done.stdout


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Upkeep'"):
        getattr(fastoci, "Upkeep".title())


def test_registry_options_are_made_without_what_asks_registries() -> None:
    text = "import sys, fastoci; fastoci.RegistryOptions(); print('aiohttp' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
