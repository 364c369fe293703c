"""A job that cannot be run.

Covers: cli/run.py.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from fastoci.cli.run import run
from fastoci.errors import FastociError


@pytest.fixture
def few_files() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (12, hard))
    yield 12
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_too_few_files_may_be_open_the_limit_is_named_and_no_job_begins(few_files: int) -> None:
    begun = []

    async def work() -> None:
        begun.append(True)

    with pytest.raises(FastociError, match=f"only {few_files} files may be open.*ulimit -n"):
        run(work())
    assert begun == []
