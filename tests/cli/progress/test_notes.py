"""What is said of a fetch in trouble, beside its image and in the log."""

from __future__ import annotations

import pytest

from fastoci.cli.progress.notes import Trouble, log_line, note
from fastoci.events import CandidateSwitched, FetchDuplicated, FetchResumed, FirstByteAwaited, Retrying

NAME, BLOB, SERVER = "h/app:1", "sha256:123456789abcdef", "https://h/v2"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            Retrying(NAME, "", SERVER, "503 Service Unavailable", 2, 8, 4.2),
            "503 Service Unavailable, try 3 of 8 in 4 s",
        ),
        (Retrying(NAME, "", SERVER, "connection refused", 1, 8, 0.12), "connection refused, try 2 of 8 in 0.1 s"),
        (Retrying(NAME, "", SERVER, "a timeout", 1, 3, 0.0), "a timeout, try 2 of 3 now"),
        (FirstByteAwaited(NAME, "", SERVER, 30.2, 300.0), "silent for 30 s, waits up to 300 s for the first byte"),
        (CandidateSwitched(NAME, "", SERVER, "https://b/v2", "404"), "404, https://b/v2 is asked"),
        (FetchResumed(NAME, BLOB, SERVER, 12_000_000, "a cut"), "a cut, goes on at 12.0 MB"),
        (FetchDuplicated(NAME, BLOB, SERVER, 0, 1_000_000, "wrong bytes"), "wrong bytes, 1.0 MB are fetched again"),
    ],
)
def test_a_note_says_the_cause_and_what_is_done_about_it(event: Trouble, text: str) -> None:
    assert note(event) == text


def test_a_line_of_the_log_names_image_server_and_blob() -> None:
    assert log_line(FetchResumed(NAME, BLOB, SERVER, 5, "a cut")) == (
        "h/app:1: a cut, goes on at 5 bytes (https://h/v2, 123456789abc)"
    )
    assert log_line(Retrying(NAME, "", SERVER, "503", 1, 8, 1.0)) == "h/app:1: 503, try 2 of 8 in 1 s (https://h/v2)"
    assert (
        log_line(FetchDuplicated("", BLOB, "", 0, 5, "damaged")) == "damaged, 5 bytes are fetched again (123456789abc)"
    )


@pytest.mark.attack
def test_hostile_text_in_a_note_is_harmless() -> None:
    assert note(Retrying(NAME, "", SERVER, "50\x1b[2J3\n", 1, 8, 1.0)) == "50\\x1b[2J3\\n, try 2 of 8 in 1 s"
    line = log_line(Retrying("h\n", "\x1b:\x1b", "s\x07", "503", 1, 8, 1.0))
    assert line.isprintable()
