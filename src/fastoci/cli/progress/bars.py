"""Bars on a terminal: a row for each image and one for each blob in flight. Draws on the event loop.

rich is imported with the first drawing, so that work that is over at once never pays for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final, cast

from fastoci import events
from fastoci.cli.formatting import fraction, plain, plural
from fastoci.cli.progress.state import (
    QUIET_S,
    Image,
    ProgressState,
    extent,
    fetching,
    overview,
    summary,
    unpacked,
    unpacking,
)

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from fastoci.cli.progress.stream import BestEffortStream

_MARK_S: Final = 1.0  # a rate over less jumps about
_IMAGES: Final = 6  # rows at most, so that everything fits a terminal of 24 lines
_BLOBS: Final = 8
_HEX: Final = 12  # digits of a digest


class Bars:
    """Bars for what is under way; a summary line above them for what is done."""

    def __init__(self, stream: BestEffortStream, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._state = ProgressState()
        self._live: Live | None = None

    def __call__(self, event: events.Event) -> None:
        self._state.see(event, self._clock())
        if text := summary(event, self._state):
            self.log(text)

    def tick(self) -> None:
        """Draw again, once there is something that takes its time."""
        now = self._clock()
        active = self._state.active()
        for image in self._state.images.values():
            if now - image.marked[0] >= _MARK_S:
                image.mark(now)
        if self._live is None and any(now - image.started >= QUIET_S for image in active):
            self._live = _open(self._stream)
        if self._live is not None:
            self._live.update(draw(self._state), refresh=True)

    def close(self) -> None:
        """Take the bars away; the summaries stay."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def abandon(self) -> None:
        """Show the cursor, below the bars, past rich and the stream: they may be at work, and hold their locks."""
        if self._live is not None:
            with suppress(OSError):
                os.write(self._stream.fileno(), b"\n\x1b[?25h")

    def log(self, text: str) -> None:
        """Write lines, above the bars when there are any."""
        live = self._live
        if live is None:
            self._stream.line(text)
            return
        from rich.text import Text

        live.console.print(Text(text), soft_wrap=True)


def _open(stream: BestEffortStream) -> Live:
    from rich.console import Console
    from rich.live import Live

    # rich asks for text that is typed as a file; all it calls is write and flush.
    console = Console(file=cast("IO[str]", stream), force_terminal=True, highlight=False, markup=False, emoji=False)
    # Results go to stdout, which may be a pipe: they must not be drawn here.
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
    live.start()
    return live


def draw(state: ProgressState) -> Table:
    """The rows for what is under way, never more than fit on a small terminal."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column(width=20)
    table.add_column(ratio=3, no_wrap=True, overflow="ellipsis")

    def row(name: str, done: int, total: int, text: str) -> None:
        bar = ProgressBar(total=total or None, completed=min(done, total), width=20)
        table.add_row(Text(name), bar, Text(text))

    active = state.active()
    for image in active[:_IMAGES]:
        text, name = image.note or fetching(image), plain(_last(image.name))
        if text or image.unpack is None:
            row(name, *_extent(image), text or "finishing")
        if image.unpack is not None:
            row("  files" if text else name, *unpacked(image), unpacking(image))
    blobs = list(state.blobs.values())
    for blob in blobs[:_BLOBS]:
        row(
            f"  {plain(blob.digest.partition(':')[2][:_HEX])}", blob.offset, blob.size, fraction(blob.offset, blob.size)
        )
    if len(state.images) > 1:
        hidden = max(0, len(blobs) - _BLOBS)
        more = f", {plural(hidden, 'more blob')} in flight" if hidden else ""
        row("all", *extent(state), f"{overview(state)}{more}")
    return table


def _last(name: str) -> str:
    """The end of a reference or path, which tells more than its beginning; summaries have it whole."""
    return name.rstrip("/").rpartition("/")[2] or name


def _extent(image: Image) -> tuple[int, int]:
    return (image.done, image.plan.missing_size) if image.plan is not None else (0, 0)
