"""What CPU and how many system calls does it cost to make files of an uncompressed tar, beside GNU tar and bsdtar?

Two tars: 78,000 small files, and one file of 1 GB. ``extractor`` is the native extractor fed in this process, on a
thread that is not the first, as a pull's are; ``stager`` makes the files without their names, and ``stager, adopted``
goes on to the same tree. All others are processes, their start counted. ``bare calls`` is a C program that reads the
tar and makes as many files of such sizes, by openat, write, futimens and close alone, and parses nothing: what the
kernel takes at least. On tmpfs that is some 0.75 of GNU tar's CPU time, so no extractor that works by such calls comes
down to 0.6. ``python -m benchmarks.micro.extract --fs ext4`` prints JSON on stdout; the exit status is 1 when a bar is
missed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch
from benchmarks.measure import Usage, here, measure
from benchmarks.report import Bar
from fastoci import _core
from fastoci.limits import Limits
from fastoci.stream.sink import Sink
from fastoci.unpack.layer import LayerStager, LayerWriter

OURS, STAGE, ADOPT, APPLY = "extractor", "stager", "stager, adopted", "fastoci apply"
TAR, BSDTAR, BARE = "tar -xf", "bsdtar -xf", "bare calls"
LIMITS = {"small": {BSDTAR: 0.3, TAR: 0.6, BARE: 1.2}, "big": {TAR: 1.0}}  # CPU of OURS, times theirs
CALLS = 5.0  # system calls an entry, of OURS
OWNERS = os.geteuid() == 0


def extract(tar: Path, target: Path) -> int:
    """Make the files on a thread of their own; how many entries there are."""
    with ThreadPoolExecutor(1) as pool, _opened(target) as root_fd:
        writer = LayerWriter(root_fd, name=tar.name, base=False, owners=OWNERS, **_writer_limits())
        pool.submit(_feed, tar, writer).result()
        return writer.entries


def stage(tar: Path, target: Path, *, adopt: bool) -> None:
    """Stage the layer on a thread of its own and, perhaps, adopt it."""
    staging = target / "stage"
    staging.mkdir()
    with ThreadPoolExecutor(1) as pool, _opened(target) as root_fd, _opened(staging) as staging_fd:
        stager = LayerStager(staging_fd, name=tar.name, owners=OWNERS, **_limits())
        pool.submit(_feed, tar, stager).result()
        if adopt:
            writer = LayerWriter(root_fd, name=tar.name, base=True, owners=OWNERS, **_writer_limits())
            pool.submit(_adopt, stager, writer).result()
        stager.abort()


def _feed(tar: Path, sink: Sink) -> None:
    buffer = _core.Pool(_core.BUFFER_SIZE).take()
    assert buffer is not None
    with tar.open("rb", buffering=0) as file:
        offset = 0
        while (count := buffer.pread(file.fileno(), offset)) > 0:
            sink.feed(buffer)
            offset += count
            buffer.clear()
    sink.finish()
    buffer.release()


def _adopt(stager: LayerStager, writer: LayerWriter) -> None:
    while writer.adopt(stager, 1000):
        pass
    writer.finish()


class _Limits(TypedDict):
    max_entries: int
    max_bytes: int


def _limits() -> _Limits:
    limits = Limits()
    return {"max_entries": limits.unpacked_entries, "max_bytes": limits.unpacked_size}


class _WriterLimits(_Limits):
    max_directories: int


def _writer_limits() -> _WriterLimits:
    return {**_limits(), "max_directories": Limits().layer_directories}


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_DIRECTORY)
    yield fd
    os.close(fd)


def commands(tar: Path, target: Path) -> dict[str, list[str]]:
    """The processes that are compared, as far as they are installed."""
    found = {
        APPLY: [sys.executable, "-m", "fastoci", "apply", "--progress", "none", str(target), str(tar)],
        TAR: ["tar", "-xf", str(tar), "-C", str(target)],
        BSDTAR: ["bsdtar", "-xf", str(tar), "-C", str(target)],
    }
    return {name: command for name, command in found.items() if shutil.which(command[0])}


@contextmanager
def _fresh(path: Path) -> Iterator[Path]:
    path.mkdir()
    yield path
    shutil.rmtree(path)


def compare(tar: Path, work: Path, *, bare: Sequence[str], runs: int) -> dict[str, list[Usage]]:
    """Run all in turns, each into a directory of its own; ``bare`` is a command for this directory, or empty."""
    root = work / "root"
    contenders: dict[str, Callable[[], Usage]] = {
        OURS: lambda: here(lambda: extract(tar, root)),
        STAGE: lambda: here(lambda: stage(tar, root, adopt=False)),
        ADOPT: lambda: here(lambda: stage(tar, root, adopt=True)),
    }
    for name, command in (commands(tar, root) | ({BARE: list(bare)} if bare else {})).items():
        contenders[name] = lambda command=command: measure(command)  # type: ignore[misc]
    taken: dict[str, list[Usage]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, run in contenders.items():
            with _fresh(root):
                taken[name].append(run())
    return taken


def calls(tar: Path, work: Path, entries: int) -> dict[str, dict[str, float]]:
    """System calls an entry, beyond those for an empty tar: "total" and those that count; nothing without strace."""
    if not shutil.which("strace"):
        return {}
    counted, root, empty = {}, work / "root", work / "empty.tar"
    empty.write_bytes(bytes(1024))
    idle = {OURS: _alone(empty, root), **commands(empty, root)}
    for name, command in {OURS: _alone(tar, root), **commands(tar, root)}.items():
        with _fresh(root):
            start = _traced(idle[name])
        with _fresh(root):
            found = _traced(command)
        each = {call: (count - start.get(call, 0)) / entries for call, count in found.items()}
        counted[name] = {call: share for call, share in each.items() if share >= 0.01}
    return counted


def _alone(tar: Path, target: Path) -> list[str]:
    """The extractor in a process of its own."""
    lines = (
        f"import sys; sys.path.insert(0, {str(report.ROOT)!r})",
        "from pathlib import Path; from benchmarks.micro.extract import extract",
        "extract(Path(sys.argv[1]), Path(sys.argv[2]))",
    )
    return [sys.executable, "-c", "\n".join(lines), str(tar), str(target)]


def _traced(command: Sequence[str]) -> dict[str, int]:
    """How often the process and its threads call what, and "total"."""
    with tempfile.NamedTemporaryFile("r") as log:
        measure(["strace", "-f", "-c", "-U", "calls,name", "-o", log.name, *command])
        rows = [line.split() for line in log]
    return {row[1]: int(row[0]) for row in rows if len(row) == 2 and row[0].isdigit()}


def _bare(tar: Path, work: Path, entries: int) -> list[str]:
    """The C program's command; empty when it cannot be compiled."""
    compiler, program, size = shutil.which("cc"), work / "bare", tar.stat().st_size
    if compiler is None:
        return []
    subprocess.run([compiler, "-O2", "-o", str(program), str(Path(__file__).with_suffix(".c"))], check=True)
    # an entry has a header, most of them a pax header and its content too, and is filled up to whole blocks
    return [str(program), str(work / "root"), str(entries), str(max(2, size // entries - 1536 - 256)), str(tar)]


@contextmanager
def uncompressed(name: str, work: Path, scale: float) -> Iterator[Path]:
    """The one layer of an image as a tar; gone afterwards."""
    sample = data.prepare(name, work, scale=scale)
    with tempfile.NamedTemporaryFile(dir=work, suffix=f"-{name}.tar") as file:
        with gzip.open(sample.layers[0]) as layer:
            shutil.copyfileobj(layer, file, 1 << 20)
        file.flush()
        yield Path(file.name)


def measure_tar(name: str, options: argparse.Namespace) -> tuple[dict[str, object], list[Bar]]:
    """Everything about one tar."""
    with uncompressed(name, options.work, options.scale) as tar:
        size = tar.stat().st_size
        with scratch.destination(options.fs, options.work, size=3 * size) as target:
            with _fresh(target / "root") as root:
                entries = extract(tar, root)
            bare = _bare(tar, target, entries) if name == "small" else []
            taken = compare(tar, target, bare=bare, runs=options.runs)
            counted = calls(tar, target, entries) if name == "small" else {}
    title = f"{name}: {entries} entries, {size / 1e6:.0f} MB, {options.fs}, median of {options.runs}"
    print(report.table(title, taken, to=TAR), file=sys.stderr)
    bars = [
        Bar(f"{name}: {OURS} / {base}, CPU", report.ratios(taken, base)[OURS]["cpu"], limit)
        for base, limit in LIMITS[name].items()
        if base in taken
    ]
    if counted:
        bars.append(Bar(f"{name}: {OURS}, system calls an entry", counted[OURS]["total"], CALLS))
        totals = ", ".join(f"{each} {rows['total']:.2f}" for each, rows in counted.items())
        print(f"system calls an entry: {totals}", file=sys.stderr)
    result = {
        "entries": entries,
        "bytes": size,
        "results": {each: report.summary(runs) for each, runs in taken.items()},
        "ratios": report.ratios(taken, TAR),
        "system_calls": counted,
    }
    return result, bars


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, default="tmpfs", help="where the files are made")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the files' count and the large one's size")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the images; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results, bars = {}, list[Bar]()
    for name in LIMITS:
        results[name], judged = measure_tar(name, options)
        bars += judged
    result = {
        "benchmark": "micro/extract",
        **report.circumstances(),
        "file_system": options.fs,
        "results": results,
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
