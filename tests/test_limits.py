"""Limits that no engine can work within are refused at once."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fastoci.limits import LAYER_MEMORY, Limits


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


def test_blobs_of_four_registries_are_in_flight_as_far_as_memory_has_a_buffer_for_each() -> None:
    limits = Limits(workers=2)
    assert (limits.flights, limits.layers_at_once) == (32, 4)
    assert replace(limits, memory=40 << 20).flights == 16
    assert replace(limits, memory=4 << 20).flights == 8


def test_a_total_of_connections_bounds_flights_and_layers_that_hold_one() -> None:
    limits = Limits(workers=8, total_connections=3)
    assert (limits.flights, limits.layers_at_once) == (3, 2)
    assert replace(limits, total_connections=1).layers_at_once == 0
    with pytest.raises(ValueError, match="total_connections"):
        replace(limits, total_connections=-1)


def test_processes_of_one_job_have_no_more_than_the_job_together() -> None:
    limits = Limits(
        memory=128 << 20, connections=7, total_connections=9, bandwidth=1_000_001, request_rate=7.5, workers=5
    )
    for parts in (1, 2, 3, 7):
        shares = limits.divided(parts)
        assert len(shares) == parts
        assert sum(share.connections for share in shares) == 7
        assert sum(share.total_connections for share in shares) == 9
        assert sum(share.bandwidth for share in shares) == 1_000_001
        assert sum(share.request_rate for share in shares) == pytest.approx(7.5)
        assert max(share.connections for share in shares) - min(share.connections for share in shares) <= 1
        unpacking = limits.layers_at_once * LAYER_MEMORY
        assert sum(share.memory for share in shares) + unpacking == limits.memory
        assert sum(share.workers for share in shares) == max(5, parts)  # each has a thread
        divided = ("memory", "connections", "total_connections", "bandwidth", "request_rate", "workers")
        totals = {name: getattr(limits, name) for name in divided}
        assert {replace(share, **totals) for share in shares} == {limits}
    unlimited = {(share.total_connections, share.bandwidth, share.request_rate) for share in Limits().divided(2)}
    assert unlimited == {(0, 0, 0)}


def test_no_process_of_a_job_is_left_without_a_connection_or_memory() -> None:
    assert len(Limits(connections=3).divided(100)) == 3
    assert len(Limits(total_connections=2).divided(100)) == 2
    assert len(Limits(bandwidth=200_000).divided(100)) == 3  # with 64 KiB a second each, at least
    assert len(Limits(memory=16 << 20, connections=8, workers=1).divided(100)) == 1
    least = Limits(memory=4 << 20, connections=1)
    assert least.divided(2) == (least,)
