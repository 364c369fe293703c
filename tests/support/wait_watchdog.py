"""A watchdog over waits: a test that neither its timeout nor a cancellation can end takes the whole process with it.

pytest-timeout raises in the test; a wait that catches that, or that the loop's end waits for, outlives it, and with it
the suite would have no end. So the process is ended some time later, with the stack of each of its threads.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from typing import Final

import pytest

GRACE_S: Final = 40.0  # after a test's timeout, for what cleans up
_LOOK_S: Final = 0.5

_now: Final = time.monotonic  # the real clock, also while a test has another in its place


class Watchdog:
    """Ends the process when a test does not end. Not by ``faulthandler``'s timer: pytest stops that at a failure."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self._grace_s = grace_s
        self._until: float | None = None
        self._stderr = os.dup(2)  # the real one, before tests are captured
        threading.Thread(target=self._watch, name="wait-watchdog", daemon=True).start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Watch one test, with its fixtures."""
        limit_s = _timeout_of(item)
        self._until = _now() + limit_s + self._grace_s if limit_s else None
        try:
            return (yield)
        finally:
            self._until = None

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            until = self._until
            if until is not None and _now() > until:
                os.write(self._stderr, b"\na test has no end: the process is ended\n")
                faulthandler.dump_traceback(self._stderr)
                os._exit(1)


def _timeout_of(item: pytest.Item) -> float:
    """The seconds that pytest-timeout gives a test; 0: none."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return float(marker.args[0] if marker.args else marker.kwargs.get("timeout", 0))
    return float(item.config.getoption("timeout") or item.config.getini("timeout") or 0)
