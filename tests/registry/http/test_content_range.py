"""Content-Range: the rows of a shared table, and any text at all."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fastoci.registry.http import content_range


def test_content_range_is_read_as_the_table_says(shared: Path) -> None:
    cases = json.loads((shared / "corpora/tables/content_range.json").read_text())["cases"]
    assert len(cases) > 15
    for case in cases:
        found = content_range.parse(case["header"])
        if case.get("err"):
            assert found is None, case
        else:
            total = None if case["total"] == -1 else case["total"]
            assert found == content_range.ContentRange(case["first"], case["last"], total), case


@given(st.text(max_size=60))
def test_any_text_is_read_without_an_exception(header: str) -> None:
    content_range.parse(header)


def test_a_line_end_does_not_hide() -> None:
    assert content_range.parse("bytes 0-1/2\n") is None
