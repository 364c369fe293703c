"""kill -9 at random times of a prefetch: how much more comes than by one run that is left alone."""

from __future__ import annotations

import random
import shutil
import signal
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import server
from benchmarks.macro import image_set
from benchmarks.measure import measure, variables
from benchmarks.report import Bar, Part
from benchmarks.server import Shape

_KILLS = 20
_RATE = 20_000_000  # bytes a second of each connection: a job takes seconds
_SOCKET = 64 << 10  # bytes that the server's kernel holds of a connection: what it holds has not been fetched


def killed(work: Path, *, scale: float, runs: int) -> Part:
    """Twenty jobs, each killed at a random time and run again to its end."""
    samples = image_set.related(work, scale=scale)
    size = sum(image_set.unique(samples).values())
    rng = random.Random(9)
    with tempfile.TemporaryDirectory(dir=work) as name:
        log, store = Path(name) / "log", Path(name) / "store"
        log.write_text("")
        with server.serve(samples, shape=Shape(pacing=_RATE, send_buffer=_SOCKET, log=log)) as address:
            command = image_set.prefetch(image_set.references(samples, address), store)
            seconds = measure(command).wall_s
            once = _sent(log, 0)
            sent = [_twice(command, store, log, rng.uniform(0, seconds)) for _ in range(max(1, round(_KILLS * scale)))]
            lacking = image_set.lacking(samples, store)
    more = [each / once - 1 for each in sent]
    results = {"bytes": size, "once": once, "seconds": seconds, "sent": sent, "mean": statistics.mean(more)}
    bars = [
        Bar("killed once: bytes beyond those of one run, %", 100 * max(more), 2.0),
        Bar("killed once: blobs that are not there, or not whole", len(lacking), 0),
    ]
    return Part(results, bars)


def _sent(log: Path, before: int) -> int:
    return sum(each.sent for each in server.asked(log, before) if "/blobs/" in each.path)


def _twice(command: Sequence[str], store: Path, log: Path, after_s: float) -> int:
    """Bytes of blobs that the server sent to a job that was killed after so long, and to the next run of it."""
    shutil.rmtree(store)
    before = log.stat().st_size
    process = subprocess.Popen(command, env=variables(), stdout=subprocess.DEVNULL)
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    measure(command)
    return _sent(log, before)
