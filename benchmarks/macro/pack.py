"""How long does it take to pack a directory, beside tar with gzip and pigz, and umoci repack? Is the layer as small?

The tree is a copy of ``--tree`` in memory, packed in turns; ``umoci repack`` has it as the rootfs of a bundle over an
empty image. ``python -m benchmarks.macro.pack`` prints JSON on stdout; the exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report, scratch
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar

TREES = ("/usr/lib/python3", "/usr/share/perl", "/usr/lib/x86_64-linux-gnu/perl-base", "/usr/bin")
GZIP, ZSTD = "fastoci pack", "fastoci pack --compression zstd"
PEERS = {"tar | gzip": "gzip", "tar | pigz": "pigz", "tar | zstd": "zstd -T0"}
UMOCI = "umoci repack"
WALL, CPU, SIZE = 0.5, 0.25, 1.15  # of tar | pigz: wall, CPU, and the bytes of the layer


def copied(trees: Sequence[str], work: Path) -> Path:
    """The tree to pack: readable files alone."""
    root = work / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    root.chmod(0o755)
    for tree in trees:
        if os.path.isdir(tree):
            target = root / tree.strip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", tree, target], check=True)
    return root


def size_of(root: Path) -> int:
    """Bytes of a tree's tar, about."""
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())


class Contender:
    """One way to pack; ``command`` is run in a fresh directory, and then ``packed`` says how many bytes it made."""

    def __init__(self, command: Sequence[str], packed: Callable[[], int], prepare: Callable[[], object]) -> None:
        self.command = command
        self.packed = packed
        self.prepare = prepare
        self.size = 0

    def run(self) -> Usage:
        """Pack once."""
        self.prepare()
        usage = measure(self.command)
        self.size = self.packed()
        return usage


def largest(directory: Path) -> int:
    """The bytes of the largest file in a directory: the layer."""
    return max(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def contenders(root: Path, work: Path) -> dict[str, Contender]:
    """All that are installed, by name."""
    out = work / "out"

    def fresh() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()

    def ours(*more: str) -> Contender:
        command = [sys.executable, "-m", "fastoci", "pack", str(root), "--tag", "example.com/app:1", *more]
        options = ["--store", str(out), "--durability", "none", "--progress", "none"]
        return Contender([*command, *options], lambda: largest(out / "blobs"), fresh)

    found = {GZIP: ours(), ZSTD: ours("--compression", "zstd")}
    for name, program in PEERS.items():
        if shutil.which(program.split()[0]):
            line = f"tar -C {root} --numeric-owner -cf - . | {program} > {out}/layer"
            found[name] = Contender(["sh", "-c", line], lambda: largest(out), fresh)
    if shutil.which("umoci") and os.geteuid() == 0:
        found[UMOCI] = _umoci(root, work, out)
    return found


def _umoci(root: Path, work: Path, out: Path) -> Contender:
    layout, bundle = out / "layout", work / "bundle"

    def prepare() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(bundle, ignore_errors=True)
        out.mkdir()
        for command in (
            ["init", "--layout", layout],
            ["new", "--image", f"{layout}:app"],
            ["unpack", "--image", f"{layout}:app", bundle],
        ):
            subprocess.run(["umoci", *map(str, command)], check=True, capture_output=True)
        (bundle / "rootfs").rmdir()
        root.rename(bundle / "rootfs")

    def packed() -> int:
        (bundle / "rootfs").rename(root)
        return largest(layout / "blobs")

    return Contender(["umoci", "repack", "--image", f"{layout}:app", str(bundle)], packed, prepare)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tree", action="append", help="what is copied and packed, several times if need be")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="in memory, please")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    root = copied(options.tree or TREES, options.work)
    found, size = contenders(root, options.work), size_of(root)
    taken: dict[str, list[Usage]] = {name: [] for name in found}
    for _ in range(options.runs):
        for name, contender in found.items():
            taken[name].append(contender.run())
    print(report.table(f"{size / 1e6:.0f} MB of files, median of {options.runs}", taken, to=GZIP), file=sys.stderr)
    sizes = {name: contender.size for name, contender in found.items()}
    judged = []
    if (peer := "tar | pigz") in found:
        ratios = report.ratios(taken, peer)[GZIP]
        judged = [
            Bar(f"{GZIP} / {peer}, wall", ratios["wall"], WALL),
            Bar(f"{GZIP} / {peer}, CPU", ratios["cpu"], CPU),
            Bar(f"{GZIP} / {peer}, bytes", sizes[GZIP] / sizes[peer], SIZE),
        ]
    result = {
        "benchmark": "macro/pack",
        **report.circumstances(),
        "bytes": {"files": size, **sizes},
        "results": {name: report.summary(runs) for name, runs in taken.items()},
        "ratios": report.ratios(taken, GZIP),
        "bars": report.bars(judged),
    }
    report.publish(result, None)
    for name in ("out", "bundle"):
        shutil.rmtree(options.work / name, ignore_errors=True)
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
