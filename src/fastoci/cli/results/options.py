"""The options that say where the results of a job go."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from fastoci.cli import options, sections

PAGE: Final = ".html"
DOCUMENT: Final = ".json"
LOOPBACK: Final = "127.0.0.1"
_ADDRESS: Final = re.compile(r"(?:(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):)?(?P<port>[0-9]{1,5})")


class ResultOptions(NamedTuple):
    """What was asked for."""

    reports: tuple[Path, ...] = ()
    metrics: Path | None = None
    metrics_port: tuple[str, int] | None = None

    def __bool__(self) -> bool:
        return bool(self.reports) or self.metrics is not None or self.metrics_port is not None


class ReportPath(options.FilePath):
    """A file whose name says what it is to be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error when its suffix is none of those."""
        path = super().convert(value, param, ctx)
        if path.suffix not in (DOCUMENT, PAGE):
            self.fail(f"{str(path)!r} ends neither in {DOCUMENT} nor in {PAGE}", param, ctx)
        return path


class Address(click.ParamType["tuple[str, int]"]):
    """``PORT`` of this machine's loopback, or ``HOST:PORT``, ``[IPV6]:PORT``."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Host and port; a usage error when there is none."""
        match = _ADDRESS.fullmatch(str(value))
        if match is None or not 0 < int(match["port"]) < 1 << 16:
            self.fail(f"{value!r} is neither PORT nor HOST:PORT", param, ctx)
        return match["ipv6"] or match["host"] or LOOPBACK, int(match["port"])


_METRICS_PORT: Final = click.option(
    "--metrics-port",
    type=Address(),
    metavar="[HOST:]PORT",
    help="Serve metrics for Prometheus meanwhile, at 127.0.0.1 or HOST.",
)
metrics_port = sections.under(sections.OUTPUT, _METRICS_PORT)

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
    click.option(
        "--metrics",
        type=options.FilePath(),
        metavar="FILE",
        help="Write metrics into FILE at the end, for a textfile collector of Prometheus, which reads *.prom.",
    ),
    _METRICS_PORT,
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
