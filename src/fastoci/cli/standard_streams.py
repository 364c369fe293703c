"""Stdin, stdout and stderr as whoever starts the program left them: closed, full, without a reader.

What cannot be written is dropped and remembered, so that the work goes on; the program ends with 1 when results are
lost that way.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Final, cast

_STANDARD: Final = (0, 1, 2)


class BestEffortFile(io.FileIO):
    """A descriptor to write to, whose first error is kept in ``failed`` and raised nowhere."""

    failed: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write what can be written; a descriptor that would not block is waited for."""
        try:
            while (written := cast("int | None", super().write(data))) is None:
                import select  # hardly ever

                select.select((), (self,), ())
        except OSError as error:
            self.failed = self.failed or error
            return memoryview(data).nbytes
        return written


def open_missing() -> None:
    """Give the numbers 0, 1 and 2 to /dev/null where they are free, so that no file of the program's own gets them.

    Reading from it ends at once. Writing to it fails, as to what is closed.
    """
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)  # the lowest free number is this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115


def never_fail() -> BestEffortFile:
    """Let ``sys.stdout`` and ``sys.stderr`` drop what cannot be written; what stdout is written by then."""
    stdout = BestEffortFile(1, "w", closefd=False)
    sys.stdout = _text(io.BufferedWriter(stdout), line_buffering=stdout.isatty())
    sys.stderr = _text(io.BufferedWriter(BestEffortFile(2, "w", closefd=False)), line_buffering=True)
    return stdout


def _text(file: io.BufferedWriter, *, line_buffering: bool) -> io.TextIOWrapper:
    return io.TextIOWrapper(file, errors="backslashreplace", line_buffering=line_buffering)
