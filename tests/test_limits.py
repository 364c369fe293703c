"""Limits that no engine can work within are refused at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastoci.limits import Limits


@pytest.mark.parametrize("field", ["memory", "connections", "workers", "buffer_queue"])
def test_a_limit_below_its_least_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        replace(Limits(), **{field: 0})  # type: ignore[arg-type]
