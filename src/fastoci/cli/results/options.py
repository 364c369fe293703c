"""The options that say where the results of a job go."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from fastoci.cli import options, sections

PAGE: Final = ".html"
DOCUMENT: Final = ".json"


class ResultOptions(NamedTuple):
    """What was asked for."""

    reports: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.reports)


class ReportPath(options.FilePath):
    """A file whose name says what it is to be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error when its suffix is none of those."""
        path = super().convert(value, param, ctx)
        if path.suffix not in (DOCUMENT, PAGE):
            self.fail(f"{str(path)!r} ends neither in {DOCUMENT} nor in {PAGE}", param, ctx)
        return path


_OPTIONS: Final = (
    click.option(
        "--report",
        "reports",
        multiple=True,
        type=ReportPath(),
        metavar="FILE",
        help="Write what became of the job into FILE, also when it fails or is stopped: for machines when FILE ends in"
        " .json, for people in .html. May be repeated.",
    ),
)


def results(command: options.Command) -> options.Command:
    """These options, given to the command as one value, ``results``."""

    @functools.wraps(command)
    def gathered(**given: Any) -> int | None:
        asked = ResultOptions(**{name: given.pop(name) for name in ResultOptions._fields})
        return command(results=asked, **given)

    decorated: Callable[..., int | None] = gathered
    for option in reversed(_OPTIONS):
        decorated = sections.under(sections.OUTPUT, option)(decorated)
    return decorated
