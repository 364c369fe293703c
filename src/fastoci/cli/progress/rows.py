"""What is under way, as rows on a terminal: the job, a few images, the largest blobs in flight, and what is wrong.

A row comes when its work has lasted a second, and keeps its place until that is over; columns only grow. So the picture
stays calm however many images and blobs come and go. There are never more rows than the terminal has lines.

Imported with the first drawing: work that is over at once never pays for rich.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest
from typing import IO, Final, NamedTuple, TextIO, TypeVar, cast

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.filesize import pick_unit_and_suffix
from rich.live import Live
from rich.segment import Segment

from fastoci.cli.formatting import plain, plural, size
from fastoci.cli.progress.lines import counts, layers
from fastoci.cli.progress.state import QUIET_S, Blob, Image, ProgressState, extent, left_s, short_names, unpacked

T = TypeVar("T")
Part = tuple[str, str]  # a text and the name of its style

_IMAGES: Final = 6
_BLOBS: Final = 8
_HEX: Final = 12  # digits of a digest
_BAR: Final = 8  # columns at least; a narrow terminal shows fewer others
_UNITS: Final = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"]
_STYLES: Final = ("none", "progress.download", "progress.data.speed", "progress.remaining", "none")  # of the columns


class Row(NamedTuple):
    """One row: a name, how much of the bar is full, and the texts behind it."""

    name: str
    share: float
    amount: str = ""
    speed: str = ""
    left: str = ""
    doing: str = ""

    @property
    def columns(self) -> tuple[str, str, str, str, str]:
        """Its texts; the bar is between the first and the second."""
        return self.name, self.amount, self.speed, self.left, self.doing


class Rows:
    """Draws a state by ``refresh``, between ``start`` and ``stop``."""

    def __init__(self, state: ProgressState, console: Console) -> None:
        self.console = console
        self._state = state
        self._images, self._blobs = Places(), Places()
        self._widths = [0] * 5
        self._names: dict[str, str] = {}
        # Results go to stdout, which may be a pipe: they must not be drawn here.
        self._live = Live(
            self,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def start(self) -> None:
        """Draw from now on."""
        self._live.start(refresh=True)

    def refresh(self) -> None:
        """Draw again."""
        self._live.refresh()

    def stop(self) -> None:
        """Take the rows away."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = max(1, console.height - 1)
        whole, rows, notes = self._chosen(max(16, options.max_width // 3), height)
        lines = [_parts(whole, list(map(cell_len, whole.columns)), options)] if whole is not None else []
        lines += self._table(rows, options)
        lines += [[(_cut(note, options.max_width), "none")] for note in notes]
        for number, line in enumerate(lines[:height]):
            if number:
                yield Segment.line()
            for text, style in line:
                blank = console.no_color and style == "bar.back"  # what is to come is seen by its colour alone
                yield Segment(" " * len(text) if blank else text, console.get_style(style))

    def _chosen(self, width: int, height: int) -> tuple[Row | None, list[Row], list[str]]:
        """The row of all, those of images and blobs, and notes: so many that all have room."""
        state = self._state
        if len(self._names) != len(state.images):
            self._names = short_names(state.images)
        whole = _of_all(state) if state.number > 1 else None
        room = height - (whole is not None)
        lasting = {name: image for name, image in state.busy.items() if _lasts(state, image.busy)}
        images = self._images.take(dict(list(lasting.items())[: min(_IMAGES, room)]))
        notes = [f"{plain(self._names[image.name])}: {image.note}" for image in images if image.note]
        rows = [row for image in images for row in _of_image(image, _fit(plain(self._names[image.name]), width))]
        room = max(0, min(_BLOBS, room - len(rows) - len(notes)))
        largest = nlargest(room, (blob for blob in state.flights.values() if _lasts(state, blob.began)), key=_size)
        rows += map(_of_blob, self._blobs.take({blob.digest: blob for blob in largest}))
        return whole, rows, notes

    def _table(self, rows: Iterable[Row], options: ConsoleOptions) -> list[list[Part]]:
        """Lines with their columns below each other; a column that was wide stays wide."""
        rows = list(rows)
        for row in rows:
            self._widths = [max(width, cell_len(text)) for width, text in zip(self._widths, row.columns, strict=True)]
        widths = list(self._widths)
        for column in (4, 3, 2):  # the least important first
            if _taken(widths) + _BAR > options.max_width:
                widths[column] = 0
        return [_parts(row, widths, options) for row in rows]


class Places:
    """What is shown keeps its place until it is gone; what comes takes a place that is free, or the next one."""

    def __init__(self) -> None:
        self._held: list[str] = []

    def take(self, wanted: Mapping[str, T]) -> list[T]:
        """What is wanted now, by its name, in the order of its places."""
        coming = iter([name for name in wanted if name not in self._held])
        held = [name if name in wanted else next(coming, None) for name in self._held]
        self._held = [name for name in (*held, *coming) if name is not None]
        return [wanted[name] for name in self._held]


def on(stream: TextIO, state: ProgressState) -> Rows:
    """Rows for a terminal; without colours when NO_COLOR is set."""
    console = Console(file=cast("IO[str]", stream), force_terminal=True, highlight=False, markup=False, emoji=False)
    return Rows(state, console)


def _lasts(state: ProgressState, began: float | None) -> bool:
    return began is not None and state.now - began >= QUIET_S


def _size(blob: Blob) -> int:
    return blob.size


def _of_all(state: ProgressState) -> Row:
    if state.job is not None and not state.job.is_planned:
        return Row(counts(state), (state.job.resolved + state.failed) / state.number)
    done, total = state.extent()
    if state.rate is None or done == total:
        return _of_bytes(counts(state), done, total, None)
    return _of_bytes(counts(state), done, total, state.rate.per_s)._replace(left=_clock(state.left_s()))


def _of_image(image: Image, name: str) -> Iterator[Row]:
    done, total = extent(image)
    fetches = image.finished < len(image.blobs) and not image.ended
    if image.unpack is None and not image.planned and not image.blobs:
        yield Row(name, 0.0, doing="asking")
    elif fetches:
        yield _of_bytes(name, done, total, image.rate.per_s, f"{image.finished}/{plural(len(image.blobs), 'blob')}")
    elif image.unpack is None:
        yield _of_bytes(name, done, total, None, "finishing")
    if image.unpack is not None:
        done, total = unpacked(image)
        yield _of_bytes("  files" if fetches else name, done, total, None, layers(image))


def _of_blob(blob: Blob) -> Row:
    return _of_bytes(f"  {plain(blob.digest.partition(':')[2][:_HEX])}", blob.here, blob.size, blob.rate.per_s)


def _of_bytes(name: str, done: int, total: int, rate: float | None, doing: str = "") -> Row:
    """A row of bytes; a ``total`` of 0 is not known."""
    if not total:
        return Row(name, 0.0, size(done) if done else "", doing=doing)
    unit, suffix = pick_unit_and_suffix(total, _UNITS, 1000)
    digits = 1 if unit > 1 else 0
    done = min(done, total)
    amount = f"{done / unit:.{digits}f}/{total / unit:.{digits}f} {suffix}"
    if rate is None:
        return Row(name, done / total, amount, doing=doing)
    return Row(name, done / total, amount, f"{size(rate)}/s", _clock(left_s(done, total, rate)), doing)


def _clock(seconds: float | None) -> str:
    """``01:33``, ``2:01:33``."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _taken(widths: list[int]) -> int:
    """Columns that the texts take, each with a space behind it."""
    return sum(width + 1 for width in widths if width)


def _parts(row: Row, widths: list[int], options: ConsoleOptions) -> list[Part]:
    """One line, exactly as wide as the terminal; where there is no room for a bar, there is none."""
    name, *rest = [
        _cut(text, width).rjust(width) if 0 < number < 4 else set_cell_size(text, width)
        for number, (text, width) in enumerate(zip(row.columns, widths, strict=True))
    ]
    room = max(0, options.max_width - _taken(widths))
    parts = [(_cut(name, options.max_width), _STYLES[0])]
    if room > 1:
        parts += [(" ", "none"), *_bar(row.share, room, options)]
    shown = [(text, style) for text, style in zip(rest, _STYLES[1:], strict=True) if text]
    return parts + [part for text, style in shown for part in ((" ", "none"), (text, style))]


def _bar(share: float, width: int, options: ConsoleOptions) -> list[Part]:
    """As rich draws bars."""
    whole, half, rest = ("-", " ", " ") if options.ascii_only else ("━", "╸", "╺")
    halves = int(share * width * 2)
    full = whole * (halves // 2) + half * (halves % 2)
    to_come = width - len(full)
    empty = (rest if halves % 2 == 0 and halves and to_come else whole if to_come else "") + whole * (to_come - 1)
    return [(full, "bar.finished" if share >= 1 else "bar.complete"), (empty, "bar.back")]


def _fit(name: str, width: int) -> str:
    """The name in so many columns; what differs is mostly at its ends."""
    half = (width - 1) // 2
    return name if len(name) <= width else f"{name[: width - 1 - half]}…{name[-half:]}"


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"
