"""The package as a program sees it: public names, loaded when they are used, on one page."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import pytest

import fastoci


def test_help_is_a_page_that_names_all_that_is_public() -> None:
    page = pydoc.plain(pydoc.render_doc(fastoci))
    assert len(page.splitlines()) <= 120
    words = set((fastoci.__doc__ or "").replace(",", " ").split())
    verbs = {name for name in vars(fastoci.Engine) if not name.startswith("_")}
    assert set(fastoci.__all__) | verbs <= words


@pytest.mark.parametrize("name", fastoci.__all__)
def test_a_public_name_says_what_it_is(name: str) -> None:
    assert (getattr(fastoci, name).__doc__ or "").strip()


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Upkeep'"):
        _ = fastoci.Upkeep


def test_registry_options_are_made_without_what_asks_registries() -> None:
    text = "import sys, fastoci; fastoci.RegistryOptions(); print('aiohttp' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
