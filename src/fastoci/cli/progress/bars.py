"""Bars on a terminal for what is under way, and a line above them for what is done. Draws on the event loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from fastoci import events
from fastoci.cli.progress.lines import summary
from fastoci.cli.progress.state import QUIET_S, ProgressState

if TYPE_CHECKING:
    from fastoci.cli.progress.rows import Rows

_SHOW_CURSOR = b"\n\x1b[?25h"


class Bars:
    """Draws once there is something that takes its time."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._rows: Rows | None = None
        self.restart()

    def restart(self) -> None:
        """Begin with no images."""
        self._state = ProgressState()

    def __call__(self, event: events.Event) -> None:
        self._state.see(event, self._clock())
        if text := summary(event, self._state):
            self.log(text)

    def tick(self) -> None:
        """Draw again."""
        now = self._clock()
        self._state.measure(now)
        began = self._state.since
        if self._rows is None and began is not None and now - began >= QUIET_S:
            from fastoci.cli.progress import rows

            self._rows = rows.on(self._stream, self._state)
            self._rows.start()
        if self._rows is not None:
            self._rows.refresh()

    def close(self) -> None:
        """Take the bars away; the summaries stay."""
        if self._rows is not None:
            self._rows.stop()
            self._rows = None

    def abandon(self) -> None:
        """Show the cursor, below the bars, past rich and the stream: they may be at work, and hold their locks."""
        if self._rows is not None:
            with suppress(OSError):
                os.write(self._stream.fileno(), _SHOW_CURSOR)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bars away meanwhile."""
        rows = self._rows
        if rows is not None:
            rows.stop()
        try:
            yield
        finally:
            if rows is not None:
                rows.start()

    def log(self, text: str) -> None:
        """Write lines, above the bars when there are any."""
        rows = self._rows
        if rows is None:
            self._stream.write(f"{text}\n")
            self._stream.flush()
            return
        from rich.text import Text

        rows.console.print(Text(text), soft_wrap=True)
