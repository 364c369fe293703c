"""Frames of HTTP/2, counted by their heads."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.containerd.rpc.frames import FrameCounter
from support.http2_peers import PREFACE, frame


@given(st.lists(st.integers(0, 300)), st.lists(st.integers(0, 2000)))
def test_frames_are_counted_however_the_bytes_are_cut(sizes: list[int], cuts: list[int]) -> None:
    data = PREFACE + b"".join(frame(0, bytes(size)) for size in sizes)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    counter = FrameCounter(len(PREFACE))
    assert sum(counter.feed(data[start:end]) for start, end in pairwise(edges)) == len(sizes)


def test_a_frame_is_too_long_by_its_head() -> None:
    counter = FrameCounter(0)
    assert counter.feed(frame(0, bytes(16384))) == 1
    assert counter.feed((16385).to_bytes(3, "big") + bytes(5)) == 0
    with pytest.raises(ValueError, match="16385 bytes"):
        counter.feed(b"\0")
