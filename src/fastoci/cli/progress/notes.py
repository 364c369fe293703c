"""What is said of a fetch in trouble: a note beside its image, which goes with progress, or a line of the log."""

from __future__ import annotations

from typing import Final

from fastoci import events
from fastoci.cli.formatting import plain, size

Trouble = (
    events.Retrying | events.FirstByteAwaited | events.CandidateSwitched | events.FetchResumed | events.FetchDuplicated
)

_HEX: Final = 12  # digits of a digest


def note(event: Trouble) -> str:
    """The cause and what is done about it: ``503 Service Unavailable, try 3 of 8 in 4 s``."""
    match event:
        case events.Retrying():
            text = f"{event.cause}, try {event.attempt + 1} of {event.attempts} {_when(event.wait_s)}"
        case events.FirstByteAwaited():
            text = f"silent for {event.waited_s:.0f} s, waits up to {event.timeout_s:.0f} s for the first byte"
        case events.CandidateSwitched():
            text = f"{event.reason}, {event.following} is asked"
        case events.FetchResumed():
            text = f"{event.cause}, goes on at {size(event.offset)}"
        case events.FetchDuplicated():
            text = f"{event.reason}, {size(event.size)} are fetched again"
    return plain(text)


def log_line(event: Trouble) -> str:
    """The note with the image before it, and the server and blob behind."""
    where = plain(event.server)
    if event.blob:
        where += f"{', ' if where else ''}{plain(event.blob.partition(':')[2][:_HEX])}"
    return (f"{plain(event.image)}: " if event.image else "") + note(event) + (f" ({where})" if where else "")


def _when(wait_s: float) -> str:
    if wait_s < 0.05:
        return "now"
    return f"in {wait_s:.0f} s" if wait_s >= 0.95 else f"in {wait_s:.1f} s"
