"""Checks SHA-256 of the tier that ``FASTOCI_SHA256`` names, which a process chooses once: a program of test_sha256.py.

With files of NIST's CAVP as arguments it checks these, without any it compares with hashlib. It prints the tier.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci import _core

UNHURRIED = settings(deadline=None, database=None, max_examples=100)


def records(path: Path, key: str) -> Iterator[dict[str, str]]:
    """The groups of ``name = value`` lines that end with ``key``, each with what was said before."""
    said: dict[str, str] = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition(" = ")
        if equals:
            said[name] = value
            if name == key:
                yield dict(said)


def messages(path: Path) -> None:
    seen = 0
    for said in records(path, "MD"):
        message = bytes.fromhex(said["Msg"])[: int(said["Len"]) // 8]
        assert _core.Sha256(message).hexdigest() == said["MD"], said
        seen += 1
    assert seen >= 64, path


def monte_carlo(path: Path) -> None:
    """Each of the hundred answers comes of a thousand digests, every one of the last three."""
    seen, last = 0, b""
    for said in records(path, "MD"):
        first = second = last = last or bytes.fromhex(said["Seed"])
        for _ in range(1000):
            first, second, last = second, last, _core.Sha256(first + second + last).digest()
        assert last.hex() == said["MD"], said["COUNT"]
        seen += 1
    assert seen == 100, path


@UNHURRIED
@given(st.lists(st.integers(0, 300) | st.integers(0, 70_000), max_size=8), st.integers(0, 63), st.randoms())
def splits(sizes: list[int], offset: int, draw: random.Random) -> None:
    ours, theirs = _core.Sha256(), hashlib.sha256()
    for size in sizes:
        piece = memoryview(draw.randbytes(offset + size))[offset:]  # at any alignment
        ours.update(piece)
        theirs.update(piece)
        assert ours.hexdigest() == theirs.hexdigest()


@UNHURRIED
@given(st.binary(max_size=1000), st.lists(st.integers(0, 1000), max_size=4))
def saved_states(data: bytes, cuts: list[int]) -> None:
    state = _core.Sha256()
    for start, end in itertools.pairwise(sorted([0, *(min(cut, len(data)) for cut in cuts), len(data)])):
        state.update(data[start:end])
        saved, state = state.state(), _core.Sha256(b"something else")
        state.restore(saved)
    assert state.digest() == hashlib.sha256(data).digest()


@UNHURRIED
@given(st.lists(st.tuples(st.integers(0, 130), st.integers(0, 3000) | st.just(64)), max_size=9), st.randoms())
def lanes(streams: list[tuple[int, int]], draw: random.Random) -> None:
    pool = _core.Pool(9 * _core.BUFFER_SIZE)
    pairs, expected = [], []
    for earlier, size in streams:
        before, data = draw.randbytes(earlier), draw.randbytes(size)
        buffer = pool.take()
        assert buffer is not None
        buffer.append(data)
        pairs.append((_core.Sha256(before), buffer))
        expected.append(hashlib.sha256(before + data).digest())
    _core.update_many(pairs)
    assert [state.digest() for state, _ in pairs] == expected


def main() -> None:
    files = sys.argv[1:]
    for name in files:
        (monte_carlo if "Monte" in name else messages)(Path(name))
    if not files:
        splits()
        saved_states()
        lanes()
    print(_core.tier().partition(",")[0])


if __name__ == "__main__":
    main()
