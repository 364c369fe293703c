"""Prefetches from registries that refuse: 429 to some requests, and 429 beyond so many requests a second.

Run as a file it is some of the clients: ``prefetch_refused.py REFERENCE CLIENTS STORES``.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks.macro import image_set
from benchmarks.measure import Usage, measure, variables
from benchmarks.report import Bar, Part
from fastoci import Engine, PrefetchRequest
from fastoci.server.http import Request
from fastoci.server.pull_api import Answer, refusal
from fastoci.testing.registry import Registry, serve

_IMAGES, _CLIENTS = 50, 200
_LAYERS = 3
_REFUSED = 0.3  # of the requests
_RATE = 50  # requests a second that are answered
_PROCESSES = 4
_BEGIN_S = 2.0  # in which clients learn what the registry allows


class _Refusing(Registry):
    """A registry that asks to come back in a second, when ``refuse`` says so."""

    def __init__(self, refuse: Callable[[], bool]) -> None:
        super().__init__()
        self.times = list[float]()  # of all requests
        self._refuse = refuse

    async def answer(self, request: Request, host: str) -> Answer:
        """What the registry says, or 429."""
        self.times.append(time.monotonic())
        if self._refuse():
            return refusal(429, "TOOMANYREQUESTS", "later", {"Retry-After": "1"})
        return await super().answer(request, host)


class _Bucket:
    """Lets so many through a second, and as many at once after a second of silence."""

    def __init__(self, rate: int) -> None:
        self._rate, self._tokens, self._at = rate, float(rate), time.monotonic()

    def refuses(self) -> bool:
        """Whether one more is too many."""
        now = time.monotonic()
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False


def refusals(work: Path, *, scale: float, runs: int) -> Part:
    """One job, and a registry that answers 429 to 30 % of its requests: how many more requests than without."""
    samples = image_set.many(work, images=max(2, round(_IMAGES * scale)), layers=_LAYERS)
    rng = random.Random(58)  # whose first refusals are apart: a few images do not wait for one, refused again and again

    def bring(refuse: Callable[[], bool]) -> tuple[int, Usage, int]:
        registry = _Refusing(refuse)
        registry.add_layout(samples[0].layout)
        with serve(registry), tempfile.TemporaryDirectory(dir=work) as store:
            names = [f"{registry.address}/{sample.name}:latest" for sample in samples]
            usage = measure(["sh", "-c", '"$@" || test $? = 9', "sh", *image_set.prefetch(names, Path(store))])
            return len(registry.times), usage, len(image_set.lacking(samples, Path(store)))

    least, plain, _ = bring(lambda: False)
    asked, refused, lacking = bring(lambda: rng.random() < _REFUSED)
    bars = [
        Bar("30 % refused: requests / the least", asked / least, 1.5),
        Bar("30 % refused: manifests and blobs that did not come", lacking, 0),
    ]
    return Part({"least": least, "asked": asked, "plain_s": plain.wall_s, "refused_s": refused.wall_s}, bars)


def clients(work: Path, *, scale: float, runs: int) -> Part:
    """Two hundred clients at once, each with an engine of its own, of a registry that allows 50 requests a second."""
    sample = image_set.many(work, images=2, layers=_LAYERS)[0]
    registry = _Refusing(_Bucket(_RATE).refuses)
    registry.add_layout(sample.layout)
    count = min(_PROCESSES, max(1, round(_PROCESSES * scale)))
    each = max(4, round(_CLIENTS * scale)) // count
    with serve(registry), tempfile.TemporaryDirectory(dir=work) as stores:
        command = [sys.executable, __file__, f"{registry.address}/{sample.name}:latest", str(each)]
        processes = [_start([*command, f"{stores}/{number}"]) for number in range(count)]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # its engines are open
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        statuses = [process.wait() for process in processes]
    times = [at - registry.times[0] for at in registry.times]
    later = [at for at in times if at > _BEGIN_S]
    seconds = max(1.0, times[-1] - _BEGIN_S)
    busiest = max((sum(at <= other < at + 1 for other in later) for at in later), default=0)
    bars = [
        Bar("clients: processes that failed", sum(status != 0 for status in statuses), 0),
        Bar(f"clients: requests a second after {_BEGIN_S:.0f} s / {_RATE}", len(later) / seconds / _RATE, 1.2),
    ]
    results = {
        "clients": each * count,
        "requests": len(times),
        "seconds": times[-1],
        "busiest": busiest,  # requests in a second, after those in which clients learn
        "by_second": [sum(second <= at < second + 1 for at in times) for second in range(int(times[-1]) + 1)],
    }
    return Part(results, bars)


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=variables(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def _clients(reference: str, count: int, stores: Path) -> None:
    """Open engines, say so, and let each bring the image when stdin ends."""
    stores.mkdir()
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(Engine(stores / str(number))) for number in range(count)]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        results = await asyncio.gather(*(engine.prefetch([PrefetchRequest(reference)]) for engine in engines))
    for image in [image for result in results for image in result.failed]:
        raise RuntimeError(str(image.error))


if __name__ == "__main__":
    asyncio.run(_clients(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
