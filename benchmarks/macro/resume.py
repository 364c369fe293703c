"""kill -9 at random points of a 1 GB pull: how much each restart fetches again, and hashes again.

And of a smaller one whose leader is killed eight times, each time before its first checkpoint.

``python -m benchmarks.macro.resume`` prints JSON; the exit status is 1 when a restart fetches more again than what was
held in memory, or hashes more again than a checkpoint. What was fetched comes from nginx's log, what was hashed from a
counter in the process. Each connection has 100 MB/s, so that several are used.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.measure import variables
from benchmarks.report import Bar
from benchmarks.server import Shape
from fastoci.limits import Limits

_RATE = 100_000_000  # bytes a second of each connection
_LEADERS = 8  # processes that are killed before their first checkpoint
_SHORT = 6 << 20  # bytes that each of them gets on disk
_SCALE = 1 / 16  # of 1 GB: what they fetch
_LINE = re.compile(r"[0-9]{3} (?P<sent>[0-9]+) GET \S+/blobs/(?P<digest>\S+) ")

# Prints where blobs begin, how far they are, and how many bytes were hashed in all: of what came, and of what the store
# had already.
_PULL = """
import asyncio, sys
import fastoci
from fastoci import events
from fastoci.store.ingest import checkpoint
from fastoci.transfer import pipeline

hashed = again = 0
inner = pipeline.hash_buffers

def counting(pairs):
    global hashed
    hashed += sum(len(buffer) for _, buffer in pairs)
    inner(pairs)

pipeline.hash_buffers = counting
inner_hash = checkpoint._hash

def counting_again(hasher, fd, start, end):
    global again
    again += end - start
    inner_hash(hasher, fd, start, end)

checkpoint._hash = counting_again

def seen(event):
    if isinstance(event, events.BlobStarted):
        print("started", event.blob, event.offset, flush=True)
    elif isinstance(event, events.BlobProgress):
        print("at", event.blob, event.offset, hashed, again, flush=True)

async def main():
    async with fastoci.Engine(sys.argv[2], observer=seen) as engine:
        await engine.pull(sys.argv[1])

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One process: where it went on in the layer, how far it got, and how many bytes it hashed."""

    first: int
    last: int
    hashed: int  # of what came
    again: int  # of what the store had
    killed: bool


def attempt(reference: str, store: Path, digest: str, *, until: int | None, step: int = 0) -> Attempt:
    """Pull, and kill -9 the process when the layer has come so far, and ``step`` bytes farther than at its begin."""
    command = [sys.executable, "-c", _PULL, reference, str(store)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables())
    assert process.stdout is not None
    first, last, hashed, again = 0, 0, 0, 0
    for line in process.stdout:
        word, blob, *numbers = line.split()
        if blob != digest:
            continue
        if word == "started":
            first = last = int(numbers[0])
            continue
        last, hashed, again = map(int, numbers)
        if until is not None and last >= max(until, first + step):
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    status = process.wait()
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the pull ended with status {status}")
    return Attempt(first, last, hashed, again, status != 0)


def sent(log: Path, digest: str) -> int:
    """Bytes of the layer that nginx has sent, as far as it knows."""
    matches = (_LINE.match(line) for line in log.read_text().splitlines())
    return sum(int(match["sent"]) for match in matches if match and match["digest"] == digest)


def bars_of(attempts: Sequence[Attempt], size: int, sent_bytes: int) -> list[Bar]:
    """What restarts cost."""
    limits = Limits()
    pairs = list(itertools.pairwise(attempts))
    lost = max(killed.last - following.first for killed, following in pairs)
    again = max(0, sent_bytes - size) / len(pairs)
    # A killed process had hashed some buffers that it had not reported yet.
    ahead = max(each.hashed - (each.last - each.first) for each in attempts)
    last, again_bytes = attempts[-1], max(each.again for each in attempts)
    return [
        Bar("progress that a restart lost at most / 8 MiB", lost / limits.checkpoint, 0.0),
        Bar("sent again for a restart / (8 MiB + reorder window)", again / (limits.checkpoint + limits.ahead), 1.0),
        Bar("hashed by the last process / what it had left", last.hashed / (size - last.first), 1.001),
        Bar("hashed by a process beyond what it reported / 8 MiB", ahead / limits.checkpoint, 1.0),
        Bar("hashed again from the disk for a restart / 16 MiB", again_bytes / (2 * limits.checkpoint), 1.0),
    ]


def judge_leaders(attempts: Sequence[Attempt], size: int, sent_bytes: int) -> list[Bar]:
    """What it costs that a leader is killed again and again before its first checkpoint."""
    received = sum(each.last - each.first for each in attempts)
    return [
        Bar(f"written for a leader killed {_LEADERS} times / its size", received / size, 1.001),
        Bar(f"sent for a leader killed {_LEADERS} times / its size", sent_bytes / size, 1.75),
    ]


def run(sample: data.Sample, work: Path, points: Sequence[int], *, step: int = 0) -> tuple[list[Attempt], int]:
    """Kill a pull at each of these points, and let the last one end; what was sent in all."""
    size, digest = sample.layers[0].stat().st_size, f"sha256:{sample.layers[0].name}"
    with tempfile.TemporaryDirectory(dir=work) as name:
        log, store = Path(name) / "log", Path(name) / "store"
        with server.serve([sample], shape=Shape(pacing=_RATE, log=log)) as address:
            reference = f"{address}/{sample.name}:t"
            attempts = [attempt(reference, store, digest, until=point, step=step) for point in [*points, None]]
        blob = store / "blobs" / "sha256" / sample.layers[0].name
        if blob.stat().st_size != size:
            raise RuntimeError(f"{blob} is not whole")
        return attempts, sent(log, digest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, restart, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies 1 GB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("big", options.work, scale=options.scale)
    short = data.prepare("big", options.work, scale=_SCALE)
    size, short_size = sample.layers[0].stat().st_size, short.layers[0].stat().st_size
    rng = random.Random(options.seed)
    points = sorted(rng.randrange(size // 50, size * 49 // 50) for _ in range(options.kills))
    attempts, sent_bytes = run(sample, options.work, points)
    leaders, leaders_sent = run(short, options.work, [0] * _LEADERS, step=_SHORT)
    judged = bars_of(attempts, size, sent_bytes) + judge_leaders(leaders, short_size, leaders_sent)
    result = {
        "benchmark": "macro/resume",
        **report.circumstances(),
        "bytes": size,
        "attempts": [asdict(each) for each in attempts],
        "leaders_bytes": short_size,
        "leaders": [asdict(each) for each in leaders],
        "ratios": report.bars(judged),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
