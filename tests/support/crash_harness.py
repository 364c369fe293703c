"""What hurt pulls run in: a registry with a small image, a store and a tree, and what must hold in any case."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fastoci.errors import FormatError
from fastoci.image import index, layout, manifest, mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.stored_image import StoredImage
from fastoci.store.opening import existing_store
from fastoci.store.refs import Refs
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, from_seed, hardlink, symlink, whiteout
from fastoci.testing.registry import Registry
from fastoci.testing.trees import differences, listing, overlay
from support import deterministic_cli
from support.warm_program import Ended, Running, WarmProgram

LAYERS: Sequence[Sequence[Entry]] = (
    [directory("etc"), symlink("etc/link", "../usr"), *from_seed(1, files=3, size=90_000, at="usr")],
    list(from_seed(2, files=2, size=2_500_000, compressibility=0.0, at="opt")),  # three buffers, so two checkpoints
    [whiteout("etc/link"), *from_seed(3, files=2, size=1_000, at="etc"), hardlink("etc/hard", "etc/0000/000000")],
)
TREE = overlay(LAYERS)


def image(layers: Sequence[Sequence[Entry]] = LAYERS, *, command: Sequence[str] = ()) -> Image:
    return Image.build([Layer.build(layer, "gzip") for layer in layers], command=command)


@dataclass(slots=True)
class CrashHarness:
    """A store and a tree below ``root``, which ``clear`` empties. ``registry`` serves the image as ``app:1``.

    Attributes:
        is_inside: the tree is made in a directory that cannot be replaced.
    """

    root: Path
    registry: Registry
    warm: WarmProgram
    durability: str = "commit"
    is_inside: bool = False
    _tokens: int = field(default=0, init=False)

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    def clear(self, before: Path | None = None) -> None:
        """Empty it, or make the store a copy of the one in ``before``."""
        for path in list(self.root.iterdir()):
            if path.is_dir() and path.name != "lost+found":
                shutil.rmtree(path)
        if before is not None:
            shutil.copytree(before, self.store, symlinks=True)
        if self.is_inside:
            (self.tree / "lost+found").mkdir(parents=True)
        self._tokens = 0

    def collectable(self, older: Path, to: Path) -> set[str]:
        """Put a store in ``to`` that has the image, and what nothing needs: an older image's and an unfinished blob.

        Returns:
            the names of the blobs that are needed.
        """
        garbage = {path.name for path in older.glob("blobs/*/*")}
        self.clear(older)
        (self.store / "ingest" / "0".zfill(64)).mkdir()
        assert self.finish() == []
        shutil.copytree(self.store, to)
        return {path.name for path in to.glob("blobs/*/*")} - garbage

    def command(self, *, rootfs: bool = True) -> list[str]:
        """A pull; with the tree."""
        command = ["pull", f"{self.registry.address}/app:1", "--store", str(self.store), "--progress", "none"]
        return command + (["--rootfs", str(self.tree)] if rootfs else [])

    def gc_command(self) -> list[str]:
        """A collection of the store."""
        return ["gc", "--store", str(self.store)]

    def prefetch_command(self, *names: str, options: Sequence[str] = ()) -> list[str]:
        """A prefetch of images of the registry."""
        references = [f"{self.registry.address}/{name}" for name in names]
        return ["prefetch", *references, *options, "--store", str(self.store), "--progress", "none"]

    def start(self, command: Sequence[str], *, waits: bool = False) -> Running:
        """Begin a command; ``waits`` is as for ``WarmProgram.start``.

        Its private names differ from those of the last, as those of two processes do.
        """
        self._tokens += 1
        settings = {"ADVERSITY_TOKEN": f"{self._tokens:04x}", "ADVERSITY_DURABILITY": self.durability}
        environ = {**os.environ, **settings}
        return self.warm.start(*command, environ=environ, program=deterministic_cli.__name__, waits=waits)

    def pull(self, *, rootfs: bool = True) -> Ended:
        """A pull that nothing hurts."""
        return self.run(self.command(rootfs=rootfs))

    def gc(self) -> Ended:
        """A collection that nothing hurts."""
        return self.run(self.gc_command())

    def run(self, command: Sequence[str]) -> Ended:
        """A command that nothing hurts."""
        return self.start(command).wait()

    def wrongs(self) -> list[str]:
        """What no crash of processes may leave: a wrong blob or tree under its name, a reference to what is absent."""
        found = wrong_blobs(self.store) + wrong_refs(self.store)
        if not self.is_inside:  # else a part may be there, which the next run removes
            found += self._wrong_tree()
        return found

    def _wrong_tree(self) -> list[str]:
        if not self.tree.exists():
            return []
        found = [node for node in listing(self.tree) if node.path != "lost+found"]
        return [f"tree: {line}" for line in differences(TREE, found, owners=os.geteuid() == 0)]

    def incomplete(self) -> list[str]:
        """What is wrong after a pull that says it is done."""
        found = self.wrongs() + (self._wrong_tree() if self.is_inside else [])
        if not self.tree.exists():
            found.append("no tree")
        if not list(self.store.glob("refs/*/*")):
            found.append("no reference")
        return found

    def finish(self) -> list[str]:
        """Run again, without being hurt: what is wrong then, or left behind beyond what waits for gc."""
        done = self.pull()
        if done.returncode:
            return [f"the next run ends with {done.returncode}: {done.stderr}"]
        found = self.incomplete()
        found += [f"left: {path.name}" for path in self.root.glob(".*")]
        # after its rename a blob is never begun again: what is left of its ingest waits for the sweep
        found += [f"left: {path}" for path in self.store.glob("ingest/*/*") if path.name not in ("state", "lock")]
        found += [f"left: {path}" for path in self.store.rglob("*.new") if path.name != ".new"]
        found += [f"left: {path}" for path in self.store.rglob(".probe")]
        return found


def wrong_blobs(store: Path) -> list[str]:
    """Blobs whose content is not what their name says."""
    return [
        f"wrong blob {blob.name}"
        for blob in store.glob("blobs/*/[!.]*")
        if hashlib.new(blob.parent.name, blob.read_bytes()).hexdigest() != blob.name
    ]


def stored_images(path: Path) -> dict[str, StoredImage]:
    """The references of a store."""
    with closing(existing_store(str(path))) as paths:
        return {image.name: image for image in Refs(paths).list()[0]}


def wrong_refs(path: Path) -> list[str]:
    """References, and entries of ``index.json``, that do not parse or need a blob that is not there."""
    found: list[str] = []
    needed: list[Descriptor] = []
    if (path / "refs").exists():
        with closing(existing_store(str(path))) as paths:
            refs, broken = Refs(paths).list()
        found += [str(error) for error in broken]
        needed += [top for ref in refs for top in (ref.descriptor, *ref.images.values())]
    try:
        if (path / "index.json").exists():
            needed += index.parse((path / "index.json").read_bytes(), mediatype.OCI_INDEX).manifests
        if (path / "oci-layout").exists():
            layout.parse_layout((path / "oci-layout").read_bytes())
    except FormatError as error:
        found.append(f"layout: {error}")
    return found + [f"no blob {blob.digest}" for top in needed for blob in _needs(path, top) if not _holds(path, blob)]


def _file(path: Path, blob: Descriptor) -> Path:
    return path / "blobs" / blob.digest.algorithm / blob.digest.hex


def _holds(path: Path, blob: Descriptor) -> bool:
    return _file(path, blob).is_file() and _file(path, blob).stat().st_size == blob.size


def _needs(path: Path, top: Descriptor) -> list[Descriptor]:
    """The manifest and what it names."""
    if not _holds(path, top):
        return [top]
    parsed = manifest.parse(_file(path, top).read_bytes(), top.media_type)
    return [top, parsed.config, *parsed.layers]
