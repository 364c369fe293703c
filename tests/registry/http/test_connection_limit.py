"""How many connections are opened, on simulated links with a clock of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from fastoci.registry.http.connection_limit import CEILING_S, ConnectionLimit

MB = 1_000_000
STEP_S = 0.01


@dataclass
class Link:
    """A server at the other end of a link: ``goodput`` in bytes a second for a number of connections.

    ``limit``: connections beyond it are answered with 429. ``thirst``: the part of the time in which bytes are waited
    for.
    """

    goodput: Callable[[int], float]
    limit: int = 1000
    thirst: float = 1.0
    maximum: int = 8
    now: float = 0.0
    received: float = 0.0
    refused: int = 0

    def __post_init__(self) -> None:
        self.connection_limit = ConnectionLimit(lambda: self.now, self.maximum)

    def run(self, seconds: float) -> list[int]:
        """The number of connections at each step."""
        steps = []
        for _ in range(round(seconds / STEP_S)):
            busy = self.connection_limit.connections
            if busy > self.limit:
                self.refused += 1
                self.connection_limit.refused()
                busy = self.connection_limit.connections
            self.now += STEP_S
            self.received += self.goodput(busy) * STEP_S
            self.connection_limit.waited(self.thirst * STEP_S)
            self.connection_limit.update(busy, busy, int(self.received))
            steps.append(self.connection_limit.connections)
        return steps


def test_connections_that_are_slow_each_are_soon_all_used_and_stay() -> None:
    link = Link(lambda count: 20 * MB * count)
    assert link.run(1.0)[-1] == 8
    assert set(link.run(60.0)) == {8}
    assert link.received > 0.95 * 61 * 160 * MB


def test_a_shared_pipe_has_one_connection_and_is_seldom_tried_again() -> None:
    link = Link(lambda count: 100 * MB)
    steps = link.run(300.0)
    assert steps[-1] <= 2
    assert steps.count(1) > 0.85 * len(steps)
    last = link.run(300.0)
    assert last.count(1) > 0.95 * len(last)  # trials are rarer the longer nothing comes of them
    assert max(steps + last) == 2


def test_a_pipe_that_three_connections_fill_has_about_three() -> None:
    link = Link(lambda count: min(30 * MB * count, 90 * MB))
    link.run(10.0)
    steps = link.run(120.0)
    assert set(steps) <= {2, 3, 4}
    assert steps.count(3) > 0.75 * len(steps)


def test_a_server_that_answers_429_is_halved_and_left_below_where_it_did() -> None:
    link = Link(lambda count: 20 * MB * count, limit=4)
    link.run(10.0)
    assert link.refused == 2  # 8, then 5
    steps = link.run(CEILING_S - 9.0)
    assert link.refused == 2
    assert max(steps) == 4
    link.run(300.0)
    assert link.refused <= 2 + 300 / CEILING_S
    assert link.received > 0.75 * link.now * 4 * 20 * MB


def test_after_a_refusal_it_grows_by_one_at_a_time() -> None:
    link = Link(lambda count: 20 * MB * count)
    link.run(1.0)
    link.connection_limit.refused()
    assert link.connection_limit.connections == 4
    steps = link.run(60.0)
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(steps))
    assert steps[-1] >= 7


def test_a_reader_that_is_slower_than_the_network_gets_no_more_connections() -> None:
    link = Link(lambda count: 20 * MB * count, thirst=0.3)
    assert set(link.run(30.0)) == {1}


def test_a_trial_that_the_reader_cannot_use_is_taken_back() -> None:
    link = Link(lambda count: 20 * MB * count)
    link.run(0.31)
    assert link.connection_limit.connections == 2
    link.thirst = 0.1
    assert link.run(0.5)[-1] == 1


def test_one_connection_at_most_is_one_for_ever() -> None:
    assert set(Link(lambda count: 20 * MB * count, maximum=1).run(30.0)) == {1}


def test_connections_that_are_not_there_are_not_judged() -> None:
    limit = ConnectionLimit(clock := Clock(), 8)
    for _ in range(500):
        clock.now += STEP_S
        limit.waited(STEP_S)
        limit.update(0, 0, 0)
    assert limit.connections == 1


def test_the_time_that_a_connection_takes_to_open_is_not_held_against_it() -> None:
    clock = Clock()
    limit = ConnectionLimit(clock, 8)
    received = 0.0
    flowing, opening = 1, 0.0
    for _ in range(1000):
        clock.now += STEP_S
        if flowing < limit.connections:
            opening += STEP_S
            if opening > 1.0:  # three times as long as a window
                flowing, opening = limit.connections, 0.0
        received += flowing * 20 * MB * STEP_S
        limit.waited(STEP_S)
        limit.update(limit.connections, flowing, int(received))
    assert limit.connections == 8


def with_blobs(limit: ConnectionLimit, clock: Clock, flowing: Callable[[int], int], steps: int) -> list[int]:
    """The numbers while as many blobs as ``flowing`` says of a step have a connection each, of 20 MB/s."""
    received, numbers = 0.0, []
    for step in range(steps):
        clock.now += STEP_S
        received += flowing(step) * 20 * MB * STEP_S
        limit.waited(STEP_S)
        limit.update(flowing(step), flowing(step), int(received))
        numbers.append(limit.connections)
    return numbers


def test_what_blobs_have_in_use_is_the_number_from_then_on() -> None:
    limit = ConnectionLimit(clock := Clock(), 8)
    assert with_blobs(limit, clock, lambda step: 6, 40)[-1] == 6
    assert with_blobs(limit, clock, lambda step: 2, 40)[-1] == 6  # ranges may have what is free now


def test_blobs_that_come_and_go_count_by_their_mean_and_never_beyond_what_was_refused() -> None:
    limit = ConnectionLimit(clock := Clock(), 8)
    assert with_blobs(limit, clock, lambda step: 8 if step % 2 else 2, 40)[-1] in (4, 5)
    limit = ConnectionLimit(clock := Clock(), 8)
    limit.connections = 5
    limit.refused()
    assert max(with_blobs(limit, clock, lambda step: 8, 1000)) == 4


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now
