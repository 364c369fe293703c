"""A source of one's own that fails now and then."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import FormatError, RateLimitedError, TruncatedError
from fastoci.events import Event, Retrying
from fastoci.transfer.retrying_source import RetryingSource

DATA = bytes(range(256)) * 20_000
BLOB = fastoci.Descriptor.of(DATA, "application/octet-stream")
QUICK = fastoci.RetryPolicy(tries=4, first_s=0.001, maximum_s=0.001)


class Cut:
    """A source that ends after some bytes, so many times."""

    name = "cut"

    def __init__(self, cuts: int, error: Exception) -> None:
        self.offsets: list[int] = []
        self._cuts = cuts
        self._error = error

    async def fetch(
        self, blob: fastoci.Descriptor, offset: int, buffers: fastoci.BufferSource
    ) -> AsyncGenerator[fastoci.Buffer, None]:
        self.offsets.append(offset)
        end = offset + 700_000 if len(self.offsets) <= self._cuts else len(DATA)
        while offset < min(end, len(DATA)):
            buffer = await buffers.take()
            offset += buffer.append(DATA[:end], offset)
            yield buffer
        if len(self.offsets) <= self._cuts:
            raise self._error


def truncated() -> TruncatedError:
    return TruncatedError("cut", url="cut")


async def test_a_cut_blob_goes_on_where_it_was(tmp_path: Path) -> None:
    events: list[Event] = []
    source = Cut(3, truncated())
    async with fastoci.Engine(tmp_path) as engine:
        await engine.fetch([BLOB], RetryingSource(source, QUICK, observer=events.append))
        assert (await engine.path(BLOB.digest)).read_bytes() == DATA
    assert source.offsets == [0, 700_000, 1_400_000, 2_100_000]
    assert [type(event) for event in events] == [Retrying] * 3


async def test_the_last_error_counts_the_tries(tmp_path: Path) -> None:
    source = Cut(99, truncated())
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(TruncatedError, match="4 tries in"):
            await engine.fetch([BLOB], RetryingSource(source, fastoci.RetryPolicy(4, first_s=0.001, progress=1 << 30)))
    assert len(source.offsets) == 4


@pytest.mark.parametrize(
    "error",
    [FormatError("never right"), RateLimitedError("later", url="cut", status=429, retry_after_s=61)],
    ids=["final", "too late"],
)
async def test_what_does_not_help_is_not_tried_again(tmp_path: Path, error: Exception) -> None:
    source = Cut(1, error)
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(type(error)):
            await engine.fetch([BLOB], RetryingSource(source, QUICK))
    assert source.offsets == [0]
