"""Records by key, in memory that does not grow with them."""

from __future__ import annotations

import random
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from fastoci.unpack.sorted_records import SortedRecords, TooManyError
from support.scratch import opened


def test_records_come_by_key_however_they_went_in(tmp_path: Path) -> None:
    rng = random.Random(1)
    records = [(rng.randbytes(rng.randrange(1, 9)), b"line %d\n" % number) for number in range(5000)]
    with opened(tmp_path) as fd, closing(SortedRecords(fd, 1 << 20)) as found:
        assert not found
        for record in records:
            found.add(*record)
        assert found
        assert list(found) == sorted(records)
    assert list(tmp_path.iterdir()) == []


def test_many_records_do_not_stay_in_memory(tmp_path: Path) -> None:
    count = 60_000
    with opened(tmp_path) as fd, closing(SortedRecords(fd, 1 << 30)) as found:
        tracemalloc.start()
        for number in range(count):
            found.add(b"%d" % (number * 7919 % count), b"x" * 200)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20 << 20
        before = b""
        for key, record in found:
            assert key > before
            assert len(record) == 200
            before = key
            count -= 1
    assert count == 0


def test_more_bytes_than_allowed_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as fd, closing(SortedRecords(fd, 10)) as found:
        found.add(b"12345", b"67890")
        with pytest.raises(TooManyError):
            found.add(b"", b"1")
