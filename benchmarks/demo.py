"""Pull and unpack an image made of this machine's Python, and compare the tree with what went in.

``make demo`` runs it. Needs the installed package and nothing else: the registry is on loopback, the files are local.
The exit status is 0 only when the tree is equal, entry by entry, and a second pull fetches no blob.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastoci.image.platform import Platform
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, from_directory, hardlink, opaque, symlink, whiteout
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import Node, differences, listing, overlay

LIBRARY = "usr/lib/python"
PACKAGES = f"{LIBRARY}/site-packages"
NAME = "demo/python"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One layer: what it is about, and its entries."""

    about: str
    entries: list[Entry]


def recipes() -> list[Recipe]:
    """The layers of the demonstration, lowest first."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"site-packages", "dist-packages", "test"}
    lower = [directory("usr"), directory("usr/lib"), directory(LIBRARY), *frozen(root, LIBRARY, skip)]
    packages = [directory(PACKAGES), *frozen(Path(sysconfig.get_paths()["purelib"]), PACKAGES, set())]
    files = [entry for entry in lower if entry.kind == "file" and entry.path.endswith(".py")]
    folders = [entry.path for entry in lower if entry.kind == "directory" and entry.path.count("/") == 3]
    hidden = next(path for path in folders if path.endswith("/email"))
    dropped = [path for path in folders if path.endswith(("/idlelib", "/turtledemo", "/lib2to3", "/distutils"))]
    kept = [entry for entry in files if not entry.path.startswith((hidden, *dropped))]
    return [
        Recipe(f"the standard library of Python {sys.version.split()[0]}", lower),
        Recipe("the packages that were just installed", packages),
        Recipe("changed files, links, a new directory", list(changes(kept))),
        Recipe(
            "whiteouts: files and directories deleted",
            [whiteout(e.path) for e in kept[3::9]] + [*map(whiteout, dropped)],
        ),
        Recipe(
            "an opaque directory: all that was in it is hidden",
            [opaque(hidden), Entry(f"{hidden}/new.py", data=b"#\n")],
        ),
    ]


def frozen(root: Path, at: str, skip: set[str]) -> Iterator[Entry]:
    """The entries of ``root`` with their content in memory: Python may write its caches at any moment."""
    for entry in from_directory(root, at=at, skip=skip):
        yield replace(entry, data=entry.data.read_bytes()) if isinstance(entry.data, Path) else entry


def changes(files: Sequence[Entry]) -> Iterator[Entry]:
    """A layer that changes some of ``ref_files`` and adds what the library does not have."""
    for entry in files[::20]:
        assert isinstance(entry.data, bytes)
        yield replace(entry, data=entry.data + b"# changed\n", mode=0o600, mtime_ns=entry.mtime_ns + 123_456_789)
    yield directory("etc", mode=0o755)
    yield Entry("etc/demo.conf", data=b"demo = true\n", mode=0o640, mtime_ns=1_700_000_000_987_654_321)
    yield hardlink("etc/again.conf", "etc/demo.conf")
    yield symlink("etc/python", f"/{LIBRARY}")
    yield Entry("etc/pipe", "fifo", mode=0o600)


def pull(reference: str, work: Path, rootfs: Path | None) -> float:
    """Run the command line and return its seconds; ends the program when it fails."""
    arguments = ["pull", reference, "--store", str(work / "store")]
    arguments += ["--rootfs", str(rootfs)] if rootfs else []
    print(f"\n$ fastoci {' '.join(arguments)}", flush=True)
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "fastoci", *arguments], check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"fastoci ended with status {done.returncode}")
    return seconds


def build(layers: Sequence[Recipe], work: Path) -> Image:
    """Make the image and say what is in it."""
    print(f"An image of {len(layers)} layers, from real files:")
    built = []
    for number, recipe in enumerate(layers, 1):
        layer = Layer.build(recipe.entries, into=work)
        built.append(layer)
        size = sum(entry.size for entry in recipe.entries)
        print(
            f"  {number}. {recipe.about}: {len(recipe.entries):,} entries,"
            f" {size / 1e6:,.1f} MB, {layer.descriptor.size / 1e6:,.1f} MB compressed"
        )
    return Image.build(built, platform=Platform.host())


def compare(expected: Sequence[Node], root: Path) -> bool:
    """Say whether ``root`` is the expected tree, and where not."""
    privileged = os.geteuid() == 0
    found = listing(root)
    wrong = differences(expected, found, owners=privileged)
    for line in wrong[:20]:
        print(f"  DIFFERENT {line}")
    if wrong:
        print(f"FAILED: {len(wrong):,} differences")
        return False
    facts = "type, mode, owner, time," if privileged else "type, mode, time,"
    print(f"  equal: {len(found):,} entries, each with the {facts} link, attributes and content that went in")
    return True


def demonstrate(work: Path) -> bool:
    """Build, serve, pull, compare, and pull again."""
    layers = recipes()
    image = build(layers, work)
    expected = overlay(recipe.entries for recipe in layers)
    fetched = sum(descriptor.size for descriptor, _ in image.blobs())
    files = [node for node in expected if node.kind == "file"]
    size = sum(node.size for node in files)
    with serve(Registry()) as registry:
        registry.add_image(NAME, "latest", image)
        reference = f"{registry.address}/{NAME}:latest"
        print(f"It is served by a registry on {registry.address}, in this process.")
        seconds = pull(reference, work, work / "rootfs")
        print(
            f"  {fetched / 1e6:,.1f} MB fetched and verified, {len(files):,} files of {size / 1e6:,.1f} MB written"
            f" in {seconds:.2f} s, Python's start included:"
            f" {fetched / 1e6 / seconds:,.0f} MB/s compressed, {size / 1e6 / seconds:,.0f} MB/s of files"
        )
        print("\nIs the tree what the layers say?")
        equal = compare(expected, work / "rootfs")
        before = len(registry.log)
        seconds = pull(reference, work, None)
        blobs = [record for record in registry.log[before:] if "/blobs/" in record.path]
        requests = len(registry.log) - before
    print(f"  {requests} request(s), {len(blobs)} blob(s) fetched, {seconds:.2f} s: everything is in the store")
    return equal and not blobs


def main() -> int:
    """Run in a directory that is removed afterwards; in memory when it can be."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="fastoci-demo-", dir=memory) as name:
        good = demonstrate(Path(name))
    print("\nThe demonstration passed." if good else "\nThe demonstration FAILED.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
