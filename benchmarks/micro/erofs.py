"""What CPU does it cost to make a layer file of a tar, beside writing the tar as it is, and beside making its files?

``raw tar`` writes the tar alone, as the store writes blobs; ``layer file`` and ``layer file, 4k`` are the native writer
fed in this process, ``extractor`` the native extractor; ``merged`` makes merged metadata by reading the layer file's
tar part again. Then layers of empty files alone: in many directories, and in one, in the order of their names and in
none. ``python -m benchmarks.micro.erofs`` prints JSON on stdout; the exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report, scratch
from benchmarks.measure import Usage, here
from benchmarks.micro.extract import OURS as EXTRACTOR
from benchmarks.micro.extract import extract, uncompressed
from benchmarks.report import Bar
from fastoci import _core, _erofs
from fastoci.image.layer_file import Form

RAW, FILE, FILE_4K, MERGED = "raw tar", "layer file", "layer file, 4k", "merged"
BARS = {EXTRACTOR: 0.6, RAW: 1.5}  # CPU of FILE, times theirs
MANY = 1_000_000  # entries
MANY_S = 2.0  # CPU seconds of so many, in the order that archives have
ENTRY = 128  # bytes of memory, beside the name
BOUNDS = {"max_entries": 10_000_000, "max_bytes": 1 << 44, "max_memory": 1 << 32}
_NAME = 8  # digits


@contextmanager
def made(path: Path) -> Iterator[int]:
    """An empty file, which is gone afterwards."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
        path.unlink()


def windows(fd: int) -> Iterator[tuple[int, _core.Buffer]]:
    """A file's bytes, by offset, in one buffer."""
    buffer = _core.Pool(_core.BUFFER_SIZE).take()
    assert buffer is not None
    offset = 0
    while (count := buffer.pread(fd, offset)) > 0:
        yield offset, buffer
        offset += count
        buffer.clear()
    buffer.release()


def write_raw(tar: int, to: int) -> None:
    """Write the tar as it is, past the page cache where that is possible."""
    uncached = True
    for offset, buffer in windows(tar):
        if uncached and buffer.pwrite(to, offset, uncached=True):
            uncached = False
        if not uncached:
            assert buffer.pwrite(to, offset) == 0


def write_layer(tar: int, to: int, form: Form) -> _erofs.LayerFile:
    """Write a layer file."""
    layer = _erofs.LayerFile(to, form=form, uuid=bytes(16), **BOUNDS)
    assert not any(layer.feed(buffer) for _, buffer in windows(tar)) and layer.finish() == 0
    layer.close()
    return layer


def merge(layer: int, size: int, to: int) -> None:
    """Make merged metadata of one layer file."""
    merged = _erofs.MergedMetadata(to, uuid=bytes(16), **BOUNDS)
    assert merged.begin(b"layer") == merged.read(layer, 4096, size) == merged.end() == merged.finish() == 0
    merged.close()


def compare(tar: Path, target: Path, runs: int) -> dict[str, list[Usage]]:
    """Run all in turns."""
    taken: dict[str, list[Usage]] = {name: [] for name in (RAW, FILE, FILE_4K, MERGED, EXTRACTOR)}

    def run(name: str, work: Callable[[int], object]) -> None:
        with made(target / "file") as to:
            taken[name].append(here(lambda: work(to)))

    with tar.open("rb", buffering=0) as file:
        source = file.fileno()
        for number in range(runs):
            run(RAW, lambda to: write_raw(source, to))
            run(FILE, lambda to: write_layer(source, to, "tar"))
            run(FILE_4K, lambda to: write_layer(source, to, "4k"))
            with made(target / "layer") as layer:
                size = write_layer(source, layer, "tar").tar_size
                run(MERGED, lambda to, layer=layer, size=size: merge(layer, size, to))  # type: ignore[misc]
            root = target / f"root-{number}"
            root.mkdir()
            taken[EXTRACTOR].append(here(partial(extract, tar, root)))
    return taken


# -- empty files alone --


def _template() -> tuple[bytes, bytes, int]:
    """A header's bytes before and behind the name's digits, and the sum of all of them."""
    header = bytearray(512)
    for at, text in ((100, b"0000644"), (108, b"0000000"), (116, b"0000000"), (124, b"00000000000"), (156, b"0")):
        header[at : at + len(text)] = text
    header[136:147] = b"14707041000"
    header[148:156] = b" " * 8
    header[257:265] = b"ustar\x0000"
    return bytes(header), bytes(header[100:148]), sum(header)


def headers(names: Iterator[bytes]) -> Iterator[bytes]:
    """The tar of empty files, in windows of 1 MiB."""
    whole, numbers, total = _template()
    behind, window = whole[156:], bytearray()
    for name in names:
        window += name.ljust(100, b"\0") + numbers + b"%06o\0 " % (total + sum(name)) + behind
        if len(window) >= 1 << 20:
            yield bytes(window)
            window.clear()
    yield bytes(window) + bytes(1024)


def many(names: Iterator[bytes], target: Path) -> tuple[float, float, int]:
    """CPU seconds, bytes of memory an entry without names, and entries of a layer file of empty files."""
    cpu_s, text = 0.0, 0
    with made(target / "many") as to:
        layer = _erofs.LayerFile(to, form="tar", uuid=bytes(16), **BOUNDS)
        for window in headers(names):
            started = time.process_time()
            assert layer.feed(window) == 0
            cpu_s += time.process_time() - started
        started = time.process_time()
        assert layer.finish() == 0
        cpu_s += time.process_time() - started
        text = layer.entries * _NAME
        layer.close()
        return cpu_s, (layer.memory - text) / layer.entries, layer.entries


def shapes(count: int) -> dict[str, Iterator[bytes]]:
    """Names of so many entries."""
    shuffled = list(range(count))
    random.Random(1).shuffle(shuffled)
    digits = b"%%0%dd" % _NAME
    return {
        "in directories": (b"d%04d/%s" % (number // 100, digits % number) for number in range(count)),
        "flat": (b"flat/%s" % (digits % number) for number in range(count)),
        "flat, shuffled": (b"flat/%s" % (digits % number) for number in shuffled),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, default="tmpfs", help="where the files are made")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the files' count")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the images; in memory, please")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    with uncompressed("small", options.work, options.scale) as tar:
        size = tar.stat().st_size
        with scratch.destination(options.fs, options.work, size=10 * size + (1 << 30)) as target:
            taken = compare(tar, target, options.runs)
            found = {name: many(names, target) for name, names in shapes(int(MANY * options.scale)).items()}
    print(report.table(f"{size / 1e6:.0f} MB of tar, median of {options.runs}", taken, to=RAW), file=sys.stderr)
    for name, (cpu_s, memory, entries) in found.items():
        print(f"{entries} empty files, {name}: {cpu_s:.2f} CPU s, {memory:.0f} bytes an entry", file=sys.stderr)
    ratios = {base: report.ratios(taken, base)[FILE]["cpu"] for base in BARS}
    judged = [Bar(f"{FILE} / {base}, CPU", ratios[base], limit) for base, limit in BARS.items()]
    judged += [Bar(f"{name}, CPU s", found[name][0], MANY_S) for name in ("in directories", "flat")]
    judged += [Bar(f"{name}, bytes an entry", memory, ENTRY) for name, (_, memory, _) in found.items()]
    result = {
        "benchmark": "micro/erofs",
        **report.circumstances(),
        "file_system": options.fs,
        "bytes": {"tar": size},
        "results": {name: report.summary(runs) for name, runs in taken.items()},
        "ratios": report.ratios(taken, RAW),
        "many": {name: {"cpu_s": row[0], "memory": row[1], "entries": row[2]} for name, row in found.items()},
        "bars": report.bars(judged),
    }
    report.publish(result, None)
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
