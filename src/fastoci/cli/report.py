"""What the user is told by a command: results on stdout, failures and hints on stderr, or all of that as JSON lines.

One ``Report`` belongs to one run of the program. It is found through click's context, by commands and by ``main``.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from fastoci.cli import errors
from fastoci.cli.formatting import plain

if TYPE_CHECKING:
    from fastoci.cli.progress.display import Display
    from fastoci.cli.progress.stream import Json


class Report:
    """Tells each thing when it happens, past the display of a job if there is one; hints come at the end, each once."""

    def __init__(self) -> None:
        self._display: Display | None = None
        self._json: Json | None = None
        self._ends: dict[str, None] = {}  # what is told when all is over, each once

    def show_on(self, display: Display) -> None:
        """Tell the rest on a job's display."""
        from fastoci.cli.progress.stream import Json

        self._display = display
        self._json = display if isinstance(display, Json) else None

    def result(self, text: str) -> None:
        """Write a line on stdout."""
        if self._display is None or not results_are_watched():  # elsewhere nothing is in the way of what is drawn
            click.echo(text)
            return
        with self._display.aside():
            click.echo(text)

    def failing(self, text: str) -> None:
        """Tell a failure when it happens, before ``fail`` has all of it; JSON lines have an event for that."""
        if self._json is None:
            self._say(f"fastoci: {plain(text)}")

    def fail(self, error: Exception, subject: str = "", *, again: bool = False) -> None:
        """Tell a failure; the log has the traceback.

        Args:
            again: its line was there when it happened: tell the rest.
        """
        import logging  # which no help needs
        from contextlib import nullcontext

        from fastoci.cli import log

        # Also before and after a job nothing but JSON is written among its lines.
        with nullcontext() if self._json is None else log.shown_by(self._json.log):
            logging.getLogger(__name__).debug("%s", errors.line(error, subject), exc_info=error)
        hint = errors.hint(error)
        if self._json is not None:
            self._json.write("error", {**errors.facts(error, subject), "hint": hint})
            return
        rows = [f"  {row}" for row in errors.requirements(error)]
        if not again:
            self._say(f"fastoci: {errors.line(error, subject)}", *rows)
        else:
            self._ends |= dict.fromkeys(rows)
        if hint:
            self._ends[f"fastoci: hint: {hint}"] = None

    def warn(self, text: str) -> None:
        """Tell what is odd and stops nothing."""
        text = plain(text)
        if self._json is not None:
            self._json.write("warned", {"image": "", "message": text})
        else:
            self._say(f"fastoci: warning: {text}")

    def note(self, text: str) -> None:
        """Tell a line on stderr; not among JSON lines, which have documented kinds."""
        if self._json is None:
            self._say(text)

    def misused(self, error: click.ClickException) -> None:
        """Tell that the program cannot do what it is asked for, perhaps before it knows how to tell."""
        if self._display is None and _wants_json(error):
            from fastoci.cli.progress.display import choose

            self.show_on(choose("json"))
        if self._json is None:
            error.show()
        else:
            self._json.write("error", errors.facts(error) | {"hint": ""})

    def stopped(self, number: int) -> None:
        """Tell that a signal ended the work."""
        name = signal.Signals(number).name
        if self._json is not None:
            self._json.write("stopped", {"signal": name})
        else:
            self._say(f"fastoci: stopped by {name}; what was finished is kept")

    def end(self, code: int) -> None:
        """Tell the hints, or the summary with the exit code; what comes then is another run's."""
        if self._json is not None:
            self._json.summary(code)
        self._say(*self._ends)
        self._ends.clear()

    def _say(self, *lines: str) -> None:
        for line in lines:
            if self._display is not None:
                self._display.log(line)
            else:
                click.echo(line, err=True)


def results_are_watched() -> bool:
    """Whether stdout is a terminal; not when it is closed."""
    return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()


def _wants_json(error: click.ClickException) -> bool:
    """Whether ``--progress json`` is asked for on a command line that cannot be used."""
    words = iter(sys.argv[1:])
    given = [next(words, "") if word == "--progress" else word[11:] for word in words if word.startswith("--progress")]
    context = error.ctx if isinstance(error, click.UsageError) else None
    if given or context is None:
        return given[-1:] == ["json"]
    if isinstance(context.command, click.Group):  # of no command, or of one that there is not
        return os.environ.get("FASTOCI_PROGRESS") == "json"
    option = next((each for each in context.command.params if "--progress" in each.opts), None)
    if option is None:
        return False
    mode = option.value_from_envvar(context) or (context.default_map or {}).get(str(option.name))
    return mode == "json"


def current() -> Report:
    """The report of the command that runs."""
    return click.get_current_context().ensure_object(Report)
