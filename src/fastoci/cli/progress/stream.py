"""A job as JSON lines, for programs: every event, and what else a person would read on stderr. See docs/events.md."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Final, TextIO

import msgspec

from fastoci import events
from fastoci.cli.progress.state import ProgressState

VERSION: Final = 1  # of the form of the lines: another one when a field goes or means something else


class Json:
    """Writes each event as one JSON object on a line: its name in snake case, and its fields."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin what the next summary is of."""
        self._began = self._clock()
        self._state = ProgressState()

    def __call__(self, event: events.Event) -> None:
        self._state.see(event, self._clock())
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
        self.write(name, msgspec.structs.asdict(event))

    def write(self, name: str, fields: dict[str, object]) -> None:
        """Write one object."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._stream.write(f"{json.dumps({'version': VERSION, 'time': now, 'event': name, **fields})}\n")
        self._stream.flush()

    def summary(self, code: int) -> None:
        """Write the last object: what the whole job came to."""
        self.write(
            "summary",
            {
                "exit_code": code,
                "images": len(self._state.images),
                "failed": self._state.failed,
                "blobs": self._state.came,
                "received": self._state.received,
                "retries": self._state.retries,
                "elapsed_s": round(self._clock() - self._began, 3),
            },
        )

    def log(self, text: str) -> None:
        """Write one object for each record."""
        self.write("log", {"text": text})

    def tick(self) -> None:
        """Nothing to draw."""

    def aside(self) -> AbstractContextManager[None]:
        """Lines are in nobody's way."""
        return nullcontext()

    def close(self) -> None:
        """Nothing to end: the summary comes when the exit code is known."""

    def abandon(self) -> None:
        """Nothing to leave."""
