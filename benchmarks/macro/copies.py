"""What does it cost to bring an image from one place to another, beside skopeo and crane?

Parts: ``registries``, from one registry to another, which is a fresh docker-registry each time; ``push``, out of a
layout into one, and again when all is there; ``archive``, out of what ``docker save`` writes into the store;
``recompress``, layers of gzip as zstd. ``python -m benchmarks.macro.copies`` prints JSON on stdout; the exit status is
1 when a bar is missed. Needs nginx, docker-registry and skopeo; crane is compared when it is on PATH.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.data import Sample
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar

FASTOCI, SKOPEO, CRANE = "fastoci", "skopeo", "crane"
_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: '127.0.0.1:{port}'}}
"""

Commands = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run works: a directory, the registry with the image, and an empty one."""

    directory: Path
    sample: Sample
    origin: str
    empty: str


def _fastoci(place: Place, source: str, target: str, *more: str) -> list[str]:
    store = ["--store", f"{place.directory}/store", "--progress", "none"]
    return [sys.executable, "-m", "fastoci", "copy", source, target, *store, *more]


def _skopeo(source: str, target: str, *more: str) -> list[str]:
    plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    return ["skopeo", "--insecure-policy", "copy", "-q", *plain, *more, source, target]


def _registries(place: Place) -> Commands:
    source, target = f"{place.origin}/{place.sample.name}:t", f"{place.empty}/copy:t"
    return {
        FASTOCI: _fastoci(place, f"docker://{source}", f"docker://{target}"),
        SKOPEO: _skopeo(f"docker://{source}", f"docker://{target}"),
        CRANE: ["crane", "copy", "--insecure", source, target],
    }


def _push(place: Place) -> Commands:
    source, target = f"oci:{place.sample.layout}:{place.sample.name}", f"docker://{place.empty}/push:t"
    return {FASTOCI: _fastoci(place, source, target), SKOPEO: _skopeo(source, target)}


def _archive(place: Place) -> Commands:
    source = f"docker-archive:{archive_of(place.sample)}"
    return {
        FASTOCI: _fastoci(place, source, "store:copy:t"),
        SKOPEO: _skopeo(source, f"oci:{place.directory}/layout:t"),
    }


def _recompress(place: Place) -> Commands:
    source, target = f"oci:{place.sample.layout}:{place.sample.name}", f"oci:{place.directory}/layout:t"
    zstd = ["--dest-compress-format", "zstd", "--dest-compress-level", "3", "--dest-compress"]
    return {
        FASTOCI: _fastoci(place, source, target, "--compress", "zstd:3"),
        SKOPEO: _skopeo(source, target, *zstd),
    }


# What each part runs, and how much of the best other tool's wall, and CPU, it may take.
PARTS: Mapping[str, tuple[Callable[[Place], Commands], float, float]] = {
    "registries": (_registries, 1.0, 0.7),
    "push": (_push, 1 / 1.5, 1.0),
    "archive": (_archive, 0.5, 1.0),
    "recompress": (_recompress, 0.5, 1.0),
}


def archive_of(sample: Sample) -> Path:
    """The image as docker saves one, made by skopeo once."""
    archive = sample.layout.with_suffix(".docker.tar")
    if not archive.exists():
        source, unfinished = f"oci:{sample.layout}:{sample.name}", archive.with_suffix(".new")
        subprocess.run(_skopeo(source, f"docker-archive:{unfinished}:copy:t"), check=True)
        unfinished.rename(archive)
    return archive


@contextmanager
def empty_registry(directory: Path) -> Iterator[str]:
    """A docker-registry that has nothing; its address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    directory.mkdir()
    config = directory / "config.yml"
    config.write_text(_CONFIG.format(root=directory / "data", port=port))
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def compare(part: str, sample: Sample, origin: str, target: Path, runs: int) -> dict[str, list[Usage]]:
    """What each tool that is installed took, in turns, each time with nothing at the destination."""
    taken: dict[str, list[Usage]] = {}
    for _ in range(runs):
        for name in (FASTOCI, SKOPEO, CRANE):
            place = target / "place"
            place.mkdir()
            with empty_registry(place / "registry") as empty:
                command = PARTS[part][0](Place(place, sample, origin, empty)).get(name)
                if command is not None and (name == FASTOCI or shutil.which(name)):
                    taken.setdefault(name, []).append(measure(command))
            scratch.clear(place)
    return taken


def bars_of(part: str, taken: Mapping[str, Sequence[Usage]]) -> Iterator[Bar]:
    """Against the best of the others."""
    times = report.ratios(taken, FASTOCI)
    for kind, limit in zip(("wall", "cpu"), PARTS[part][1:], strict=True):
        name, best = min(((name, each[kind]) for name, each in times.items() if name != FASTOCI), key=lambda at: at[1])
        yield Bar(f"{part}: {FASTOCI} / {name}, {kind}", 1 / best, limit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all in turns, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="all by default; may be repeated")
    parser.add_argument("--image", choices=data.NAMES, default="pair")
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, default="tmpfs", help="where registries and stores are")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.5, help="multiplies the image's size; of 2 GB at 1")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare(options.image, options.work, scale=options.scale)
    results: dict[str, object] = {}
    bars: list[Bar] = []
    with (
        server.serve([sample]) as origin,
        scratch.destination(options.fs, options.work, size=6 * sample.size) as target,
    ):
        for part in options.part or PARTS:
            taken = compare(part, sample, origin, target, options.runs)
            title = f"{part}: {sample.size / 1e6:.0f} MB, {options.fs}, median of {options.runs}"
            print(report.table(title, taken, to=FASTOCI), file=sys.stderr)
            results[part] = {name: report.summary(runs) for name, runs in taken.items()}
            bars += bars_of(part, taken)
    result = {
        "benchmark": "macro/copies",
        **report.circumstances(),
        "bytes": sample.size,
        "file_system": options.fs,
        "results": results,
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
