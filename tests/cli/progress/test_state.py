"""The sums of a job, from its events.

Covers: cli/progress/rate.py, cli/progress/state.py.
"""

from __future__ import annotations

import pytest

from fastoci.cli.progress.rate import Rate
from fastoci.cli.progress.state import ProgressState, extent, left_s, short_names
from fastoci.events import (
    BlobDone,
    BlobFailed,
    BlobProgress,
    BlobReceived,
    BlobStarted,
    BlobWaiting,
    Event,
    ImageDone,
    ImageFailed,
    ImagePlanned,
    ImageStarted,
)

MB = 1_000_000


def planned(name: str, missing: dict[str, int]) -> ImagePlanned:
    return ImagePlanned(name, "sha256:aa", "linux/amd64", len(missing), sum(missing.values()), missing)


def seen(*events: Event) -> ProgressState:
    state = ProgressState()
    for event in events:
        state.see(event, 0)
    return state


BOTH = (planned("h/a", {"base": 40 * MB, "a": MB}), planned("h/b", {"base": 40 * MB, "b": 9 * MB}))


def test_what_images_share_counts_once_for_the_job_and_for_each_of_them() -> None:
    state = seen(*BOTH, BlobStarted("h/a", "base", 40 * MB, 0), BlobProgress("base", 30 * MB))
    assert state.extent() == (30 * MB, 50 * MB)
    assert [extent(image) for image in state.images.values()] == [(30 * MB, 41 * MB), (30 * MB, 49 * MB)]
    assert state.images["h/b"].own == []


def test_what_only_a_failed_image_lacks_is_no_longer_to_come() -> None:
    state = seen(*BOTH, BlobStarted("h/b", "b", 9 * MB, 0), BlobProgress("b", MB))
    state.see(ImageFailed("h/b", "no", "NotFoundError", 3), 1)
    assert state.extent() == (MB, 42 * MB)
    state.see(ImageFailed("h/a", "no", "NotFoundError", 3), 1)
    assert state.extent() == (MB, MB)


def test_bytes_ahead_of_their_turn_count_and_may_be_lost_again() -> None:
    state = seen(
        BOTH[0], BlobStarted("h/a", "base", 40 * MB, 0), BlobReceived("base", 9 * MB), BlobProgress("base", MB)
    )
    assert state.extent()[0] == 9 * MB
    state.see(BlobReceived("base", 5 * MB), 1)
    assert state.extent()[0] == 5 * MB
    state.see(BlobFailed("base", "cut", "TruncatedError", 5), 1)
    assert state.extent()[0] == 0


def test_only_what_came_over_the_network_is_speed() -> None:
    state = seen(
        BOTH[0], BlobStarted("h/a", "base", 40 * MB, 30 * MB), BlobWaiting("h/a", "a", MB), BlobProgress("a", MB)
    )
    state.measure(1)
    assert state.rate is not None
    assert state.rate.per_s == 0
    state.see(BlobProgress("base", 34 * MB), 1)
    state.measure(2)
    assert state.rate.per_s == 2 * MB


def test_an_image_without_a_plan_lacks_what_it_asks_for() -> None:
    state = seen(ImageStarted("h/a"), BlobStarted("h/a", "x", 3 * MB, 0), BlobDone("x", 3 * MB))
    assert extent(state.images["h/a"]) == (3 * MB, 3 * MB)
    state.see(ImageDone("h/a", "sha256:aa"), 1)
    assert state.extent() == (3 * MB, 3 * MB)


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate(0)
    for tick in range(1, 101):  # 20 s of 1 MB/s
        rate.add(tick / 5, tick * MB // 5)
    assert rate.per_s == pytest.approx(MB)
    for tick in range(101, 151):  # 10 s without anything
        rate.add(tick / 5, 20 * MB)
    assert rate.per_s == 0
    rate.add(30.2, 21 * MB)
    assert 0 < rate.per_s < MB / 7


def test_the_time_left_is_unknown_without_a_rate_and_at_the_end() -> None:
    assert left_s(10, 40, 5.0) == 6.0
    assert left_s(10, 40, 0.0) is None
    assert left_s(40, 40, 5.0) is None


def test_names_are_as_short_as_they_differ() -> None:
    names = ["h/a/app:1", "h/b/app:1", "h/b/app:2", "other/", "app:3", "/", "h/redis"]
    assert short_names(names) == {
        "h/a/app:1": "a/app:1",
        "h/b/app:1": "b/app:1",
        "h/b/app:2": "app:2",
        "other/": "other",
        "app:3": "app:3",
        "/": "/",
        "h/redis": "redis",
    }
    assert short_names(["app:1", "h/app:1"]) == {"app:1": "app:1", "h/app:1": "h/app:1"}
