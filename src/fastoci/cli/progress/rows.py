"""The rows of bars on a terminal, by rich: one for each image and one for each blob in flight.

Imported with the first drawing: work that is over at once never pays for rich.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Final, TextIO, cast

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

from fastoci.cli.formatting import plain, plural
from fastoci.cli.progress.lines import layers
from fastoci.cli.progress.state import Image, ProgressState, extent, left_s, short_names, unpacked

_IMAGES: Final = 6  # rows at most, so that everything fits a terminal of 24 lines
_BLOBS: Final = 8
_HEX: Final = 12  # digits of a digest


@dataclass
class Row(Task):
    """A row whose rate is that of the state: rich's own keeps the last one when nothing comes."""

    @property
    def speed(self) -> float | None:
        """Bytes a second."""
        return cast("float | None", self.fields.get("rate"))

    @property
    def time_remaining(self) -> float | None:
        """Seconds until the row is complete."""
        rate = self.speed
        return None if rate is None or self.total is None else left_s(int(self.completed), int(self.total), rate)


class Speed(TransferSpeedColumn):
    """Nothing where there is no rate."""

    def render(self, task: Task) -> Text:
        """The rate of a row."""
        return Text() if task.speed is None else super().render(task)


class Rows(Progress):
    """What is under way, drawn again by ``refresh``."""

    def __init__(self, state: ProgressState, console: Console) -> None:
        self._state, self._terminal = state, console  # rich draws before its own names are there
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(None, table_column=Column(ratio=1, min_width=8)),
            DownloadColumn(table_column=Column(no_wrap=True, justify="right")),
            Speed(table_column=Column(no_wrap=True, justify="right")),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[count]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,
            transient=True,
            expand=True,
            # Results go to stdout, which may be a pipe: they must not be drawn here.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The rows, never more than fit on a small terminal, and below them what is wrong."""
        images = self._state.active()[:_IMAGES]
        names = short_names([image.name for image in self._state.images.values()])
        yield self.make_tasks_table(list(_rows(self._state, images, names, max(16, self._terminal.width // 3))))
        for image in images:
            if image.note:
                yield Text(f"{plain(names[image.name])}: {image.note}", no_wrap=True, overflow="ellipsis")


def on(stream: TextIO, state: ProgressState) -> Rows:
    """Rows for a terminal; without colours when NO_COLOR is set."""
    console = Console(file=cast("IO[str]", stream), force_terminal=True, highlight=False, markup=False, emoji=False)
    return Rows(state, console)


def _rows(state: ProgressState, images: list[Image], names: dict[str, str], width: int) -> Iterator[Row]:
    for image in images:
        name = _fit(plain(names[image.name]), width)
        done, total = extent(image)
        waits = image.unpack is None and image.plan is None and not image.blobs
        fetches = image.finished < len(image.blobs) and not image.ended
        if fetches or waits or image.unpack is None:
            count = (
                f"{image.finished}/{plural(len(image.blobs), 'blob')}"
                if fetches
                else "asking"
                if waits
                else "finishing"
            )
            yield _row(name, done, None if waits else total, image.rate.per_s if fetches else None, count)
        if image.unpack is not None:
            done, total = unpacked(image)
            yield _row("  files" if fetches else name, done, total or None, None, layers(image))
    flying = state.flying()
    for blob in flying[:_BLOBS]:
        yield _row(f"  {plain(blob.digest.partition(':')[2][:_HEX])}", blob.here, blob.size, blob.rate.per_s, "")
    if len(state.images) > 1:
        done, total = state.extent()
        ended = len(state.images) - len(state.active())
        rate = state.rate.per_s if state.rate is not None else None
        yield _row("all", done, total, rate, f"{ended}/{plural(len(state.images), 'image')}")


def _row(name: str, done: int, total: int | None, rate: float | None, count: str) -> Row:
    row = Row(TaskID(hash(name)), name, total, done if total is None else min(done, total), time.monotonic)
    row.fields = {"rate": rate, "count": count}
    row.start_time = 0.0
    return row


def _fit(name: str, width: int) -> str:
    """The name in so many columns; what differs is mostly at its ends."""
    half = (width - 1) // 2
    return name if len(name) <= width else f"{name[: width - 1 - half]}…{name[-half:]}"
