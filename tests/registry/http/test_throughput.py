"""When a body is stalled, by bytes and a clock of the test."""

from __future__ import annotations

import time

import pytest

from fastoci.registry.http.throughput import CRAWL, FLOOR, FLOOR_S, PEERS_S, SpeedSamples, StallDetector


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def flow(watch: StallDetector, clock: Clock, rate: float, seconds: float) -> str:
    """Bytes at an even rate, looked at each second; what is said of them first."""
    for _ in range(round(seconds)):
        clock.now += 1
        watch.count(round(rate))
        if verdict := watch.verdict():
            return verdict
    return ""


def watched(median: float | None = None) -> tuple[StallDetector, Clock]:
    clock = Clock()
    watch = StallDetector(clock, lambda: median)
    watch.resume()
    return watch, clock


def test_a_trickle_is_a_stall_even_where_nothing_is_renewed() -> None:
    clock = Clock()
    watch = StallDetector(clock)
    watch.resume()
    assert flow(watch, clock, CRAWL * 1.1, 300) == ""
    assert flow(watch, clock, CRAWL * 0.9, 60).startswith("stalled")


def test_a_body_below_the_floor_is_starved_and_a_slow_body_is_not() -> None:
    watch, clock = watched()
    assert flow(watch, clock, FLOOR * 0.9, 60).startswith("starved")
    assert clock.now - 100 == FLOOR_S
    watch, clock = watched()
    assert flow(watch, clock, FLOOR * 1.1, 300) == ""


def test_a_body_that_falls_asleep_after_a_good_start_is_found_out() -> None:
    watch, clock = watched()
    assert flow(watch, clock, 1e8, 60) == ""
    assert flow(watch, clock, 1, 40).startswith("stalled")


def test_time_in_which_nobody_waits_does_not_count() -> None:
    watch, clock = watched()
    flow(watch, clock, 1, FLOOR_S - 1)
    watch.pause()
    clock.now += 1000
    assert watch.verdict() == ""
    watch.resume()
    assert flow(watch, clock, 1, 3).startswith("stalled")


def test_a_body_far_below_its_peers_is_starved_and_one_that_is_a_bit_slower_is_not() -> None:
    watch, clock = watched(20e6)
    assert flow(watch, clock, 4e6, 60).startswith("starved")
    assert clock.now - 100 == PEERS_S
    watch, clock = watched(20e6)
    assert flow(watch, clock, 6e6, 60) == ""


def test_a_median_needs_a_few_parts() -> None:
    peers = SpeedSamples()
    for rate in (1, 2, 300):
        peers.add(rate, 1.0)
        assert peers.median() is None
    peers.add(4, 1.0)
    assert peers.median() == 3
    peers.add(4, 0.0)  # no time: nothing is known
    assert peers.median() == 3


@pytest.mark.attack
def test_a_body_in_tiny_pieces_costs_no_more_to_watch_the_longer_it_takes() -> None:
    watch, clock = watched(1e6)
    begun = time.process_time()
    for _ in range(40_000):
        clock.now += 0.0001
        watch.count(1000)
        assert watch.verdict() == ""
    assert time.process_time() - begun < 5  # a look through all the looks before took a minute
