"""Shows a job on stderr: as bars, as a line now and then, as JSON, or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TextIO

from fastoci import events
from fastoci.cli.formatting import plain
from fastoci.cli.progress.notes import Trouble, log_line
from fastoci.cli.progress.state import QUIET_S, ProgressState, overview, state, summary
from fastoci.cli.progress.stream import BestEffortStream

_EVERY_S: Final = 5.0  # between the lines of a log
_LINES: Final = 8  # images with a line of their own at a time; beyond, one line tells of all


class Display(Protocol):
    """Shows a job. Called on the event loop; raises nothing."""

    def __call__(self, event: events.Event) -> None:
        """See one event."""

    def tick(self) -> None:
        """Called some five times a second, also when nothing happens."""

    def log(self, text: str) -> None:
        """Write lines of the log; called on any thread, also when the job is over."""

    def close(self) -> None:
        """The job is over."""

    def abandon(self) -> None:
        """Leave the terminal as it was, at once: the process is killed. Called while something else is being drawn."""


class Quiet:
    """Shows warnings only."""

    def __init__(self, stream: BestEffortStream) -> None:
        self._stream = stream
        self.log = stream.line

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Warned):
            self._stream.line(summary(event, ProgressState()))

    def tick(self) -> None:
        """Nothing to draw."""

    def close(self) -> None:
        """Nothing to end."""

    def abandon(self) -> None:
        """Nothing to leave."""


class Json:
    """Writes each event as one JSON object on a line: its name in snake case, and its fields."""

    def __init__(self, stream: BestEffortStream) -> None:
        self._stream = stream

    def __call__(self, event: events.Event) -> None:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
        self._stream.line(json.dumps({"event": name, **dataclasses.asdict(event)}))

    def log(self, text: str) -> None:
        """Write one object for each record."""
        self._stream.line(json.dumps({"event": "log", "text": text}))

    def tick(self) -> None:
        """Nothing to draw."""

    def close(self) -> None:
        """Nothing to end."""

    def abandon(self) -> None:
        """Nothing to leave."""


class Log:
    """Writes a line when an image takes more than a second, every five seconds, at its end, and for each trouble."""

    def __init__(self, stream: BestEffortStream, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self.log = stream.line
        self._clock = clock
        self._state = ProgressState()
        self._written: dict[str, float] = {}  # when there was last a line of the image; "" for the line of all

    def __call__(self, event: events.Event) -> None:
        self._state.see(event, self._clock())
        text = log_line(event) if isinstance(event, Trouble) else summary(event, self._state)
        if text:
            self._stream.line(text)

    def tick(self) -> None:
        """Write the lines that are due."""
        now = self._clock()
        active = self._state.active()
        if len(active) > _LINES:
            if self._due("", min(image.started for image in active), now):
                self._state.mark(now)
                self._stream.line(overview(self._state))
            return
        for image in active:
            if self._due(image.name, image.started, now):
                image.mark(now)
                self._stream.line(f"{plain(image.name)}: {state(image)}")

    def close(self) -> None:
        """Nothing to end."""

    def abandon(self) -> None:
        """Nothing to leave."""

    def _due(self, name: str, started: float, now: float) -> bool:
        last = self._written.get(name)
        if now - started < QUIET_S if last is None else now - last < _EVERY_S:
            return False
        self._written[name] = now
        return True


def choose(mode: str, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> Display:
    """The display for a mode of ``options.MODES``, on ``stream`` or stderr.

    ``auto`` is bars on a terminal that can show them, unless NO_COLOR or CI is set, and a log elsewhere.
    """
    stream = sys.stderr if stream is None else stream
    if mode == "auto":
        plain_terminal = environ.get("NO_COLOR") or environ.get("CI") or environ.get("TERM", "dumb") == "dumb"
        mode = "bar" if stream.isatty() and not plain_terminal else "log"
    target = BestEffortStream(stream)
    match mode:
        case "json":
            return Json(target)
        case "none":
            return Quiet(target)
        case "log":
            return Log(target)
    from fastoci.cli.progress.bars import Bars

    return Bars(target)
