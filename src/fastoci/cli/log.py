"""The program's log: what loggers ``fastoci.*`` say, on stderr, beside whatever a job draws there.

The library configures no logging; this is the one place that does. Imported when something is to be logged.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from fastoci.cli.formatting import plain

_ROOT: Final = logging.getLogger("fastoci")


class _Handler(logging.Handler):
    """Hands on each record as lines of harmless text: names and messages come from registries."""

    def __init__(self) -> None:
        super().__init__()
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        formatter.converter = time.gmtime
        formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
        self.setFormatter(formatter)
        self.show: Callable[[str], None] = _on_stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record, escaped line by line."""
        self.show("\n".join(map(plain, self.format(record).split("\n"))))


def _on_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def enable(level: str = "warning") -> None:
    """Log from ``level`` on; of several calls the one that asks for most counts."""
    number = logging.getLevelNamesMapping()[level.upper()]
    if _handler() is None:
        _ROOT.addHandler(_Handler())
        _ROOT.propagate = False
        _ROOT.setLevel(number)
    _ROOT.setLevel(min(number, _ROOT.level))


@contextmanager
def shown_by(show: Callable[[str], None] | None) -> Iterator[None]:
    """Enable the log, and write it by ``show`` meanwhile, which draws on stderr; None leaves it as it is."""
    enable()
    handler = _handler()
    if show is None or handler is None:
        yield
        return
    before, handler.show = handler.show, show
    try:
        yield
    finally:
        handler.show = before


def _handler() -> _Handler | None:
    return next((each for each in _ROOT.handlers if isinstance(each, _Handler)), None)
