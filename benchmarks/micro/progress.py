"""What CPU does it cost to show a job of 1,000 images with 64 blobs in flight? At most 2 % of a core.

``python -m benchmarks.micro.progress`` prints JSON on stdout; the exit status is 1 above the bar. The job's events and
clock are made up; each of five redraws a second goes to a terminal of the kernel.
"""

from __future__ import annotations

import argparse
import os
import pty
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report
from fastoci.cli.progress.bars import Bars
from fastoci.events import (
    BlobDone,
    BlobReceived,
    BlobStarted,
    Event,
    ImageDone,
    ImagePlanned,
    ImageResolved,
    ImageStarted,
    JobPlanned,
    JobStarted,
)

BAR = 0.02
REDRAWS = 5  # a second, as cli/run.py has them
IMAGES, LAYERS, FLYING = 1000, 10, 64
SIZE = 40_000_000
SIZES = ((60, 24), (80, 24), (200, 50))


def _digest(number: int) -> str:
    return f"sha256:{number:064x}"


def _planned() -> Iterator[Event]:
    names = [f"registry.example.com/team{number % 7}/app{number}:v1.2" for number in range(IMAGES)]
    yield JobStarted(IMAGES)
    for name in names:
        yield ImageStarted(name)
        yield ImageResolved(name, _digest(0))
    for number, name in enumerate(names):  # of ten layers seven are shared
        layers = [*(number % 20 + each for each in range(7)), *(100 + 3 * number + each for each in range(3))]
        yield ImagePlanned(name, _digest(0), "linux/amd64", LAYERS, 0, {_digest(each): SIZE for each in layers})
    yield JobPlanned(IMAGES, 3 * IMAGES + 26, 0)


def _second(at: int) -> Iterator[Event]:
    """A second of a job: each blob in flight tells twice how far it is, eight end, eight begin, two images end."""
    first = 100 + 8 * at
    for step in (1, 2):
        for blob in range(first, first + FLYING):
            yield BlobReceived(_digest(blob), min(SIZE, SIZE * (first + FLYING - blob + step) // FLYING))
    for blob in range(first, first + 8):
        yield BlobDone(_digest(blob), SIZE)
        yield _started(blob + FLYING)
    for number in (2 * at, 2 * at + 1):
        yield ImageDone(f"registry.example.com/team{number % 7}/app{number}:v1.2", _digest(0))


def _started(blob: int) -> BlobStarted:
    number = (blob - 100) // 3
    return BlobStarted(f"registry.example.com/team{number % 7}/app{number}:v1.2", _digest(blob), SIZE, 0)


def _measure(columns: int, lines: int, seconds: int) -> tuple[float, float]:
    """The share of a core that a second takes, the median of all; and the seconds of CPU until the job is planned."""
    ours, theirs = pty.openpty()
    os.environ.update(TERM="xterm-256color", COLUMNS=str(columns), LINES=str(lines))  # this is not our own terminal
    threading.Thread(target=_drain, args=(ours,), daemon=True).start()
    taken, now = [], 0.0
    with open(theirs, "w") as stream:
        bars = Bars(stream, lambda: now)
        began = time.thread_time()
        for event in [*_planned(), *map(_started, range(100, 100 + FLYING))]:
            bars(event)
        planned = time.thread_time() - began
        for at in range(seconds):
            events = list(_second(at))
            began = time.thread_time()
            for redraw in range(REDRAWS):
                now += 1 / REDRAWS
                for event in events[redraw::REDRAWS]:
                    bars(event)
                bars.tick()
            taken.append(time.thread_time() - began)
        bars.close()
    return statistics.median(taken), planned


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:  # the other end is closed
        os.close(terminal)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure on each size of a terminal, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="of the job, which pass at once")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    results = {}
    for columns, lines in SIZES:
        share, planned = _measure(columns, lines, options.seconds)
        results[f"{columns}x{lines}"] = {"share_of_a_core": share, "planned_cpu_s": planned}
        print(f"{columns}x{lines}: {share:.2%} of a core, {planned:.3f} s for the plan", file=sys.stderr)
    report.publish(
        {"benchmark": "micro/progress", **report.circumstances(), "results": results, "bar": BAR}, options.json
    )
    return 0 if all(each["share_of_a_core"] <= BAR for each in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
