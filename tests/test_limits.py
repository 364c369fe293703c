"""Limits that no engine can work within are refused at once."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fastoci.limits import Limits


@pytest.mark.parametrize("field", ["memory", "connections", "workers", "buffer_queue"])
def test_a_limit_below_its_least_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        replace(Limits(), **{field: 0})


@pytest.mark.parametrize(
    ("field", "value"),
    [("memory", (1 << 40) + 1), ("memory", 1 << 63), ("unpacked_entries", 1 << 63), ("connections", 1 << 63)],
    ids=["memory", "memory of no machine", "entries", "connections"],
)
def test_a_limit_that_no_machine_has_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        replace(Limits(), **{field: value})
    assert Limits(memory=1 << 40, unpacked_entries=(1 << 63) - 1).memory == 1 << 40
