"""A containerd 2 of a test's own, which unpacks with walking or with a differ at a socket, and the trees it makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from fastoci import mountinfo
from fastoci.image.config import chain_id
from fastoci.testing.images import Image
from fastoci.testing.trees import Node, listing
from support import disks
from support.overlays import mounted

_START_S: Final = 30.0
_COMMAND_S: Final = 120.0
_CONFIG: Final = """\
version = 3
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.nri.v1.nri"]
[grpc]
  address = "{home}/sock"
[ttrpc]
  address = "{home}/ttrpc"
[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_unpacks = {unpacks}
"""
_DIFFER: Final = """\
[proxy_plugins.fastoci]
  type = "diff"
  address = "{socket}"
[plugins.'io.containerd.service.v1.diff-service']
  default = ["fastoci", "walking"]
"""
_UNPACK: Final = """\
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux/amd64"
  snapshotter = "{snapshotter}"
  differ = "{differ}"
"""
SNAPSHOTTERS: Final = ("overlayfs", "native", "erofs")
_EROFS: Final = ("--snapshotter", "erofs")


def programs() -> tuple[str, str]:
    """containerd 2 and its ctr; skips where there is none."""
    daemon, ctr = shutil.which("containerd"), shutil.which("ctr")
    if os.geteuid() != 0:
        pytest.skip("needs root: containerd")
    if daemon is None or ctr is None:
        pytest.skip("needs containerd and ctr")
    said = subprocess.run([daemon, "--version"], capture_output=True, text=True, check=True).stdout
    if not said.split()[2].lstrip("v").startswith("2."):
        pytest.skip(f"needs containerd 2, here is {said.split()[2]}")
    return daemon, ctr


@dataclass
class Containerd:
    """A containerd that runs; all it has is below ``home``."""

    home: Path
    program: str
    ctr_program: str
    process: subprocess.Popen[bytes] = field(init=False)
    numbers: Iterator[int] = field(default_factory=count)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.home / "log").open("ab") as log:
            command = [self.program, "--config", str(self.home / "config.toml")]
            environment = {**os.environ, "TMPDIR": str(self.home)}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + _START_S
        while self.run("version").returncode and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.process.poll() is None, self.log()

    def stop(self) -> None:
        """End it, with what its manager of mounts leaves mounted."""
        self.process.terminate()
        self.process.wait(_START_S)
        for mount in reversed(mountinfo.mounts()):
            if mount.point.startswith(f"{self.home}/"):
                subprocess.run(["umount", mount.point], check=True)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.home / "sock"

    def command(self, *arguments: str) -> list[str]:
        """The command line of a ``ctr``."""
        return [self.ctr_program, "--address", str(self.socket), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``ctr``, whatever comes of it."""
        command = self.command(*arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)

    def ctr(self, *arguments: str) -> str:
        """Run ``ctr``; what it says on stdout."""
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-2000:], self.log()[-3000:])
        return done.stdout

    def log(self) -> str:
        """What the daemon said."""
        return (self.home / "log").read_text()

    def pull(self, reference: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Pull and unpack from a registry without TLS, whatever comes of it."""
        return self.run("images", "pull", "--plain-http", "--platform", "linux/amd64", *options, reference)

    @contextmanager
    def mounted(self, reference: str, *, snapshotter: str = "overlayfs") -> Iterator[Path]:
        """The tree of an image, to be read."""
        target = self.home / f"tree{next(self.numbers)}"  # a name that was mounted once is taken for good
        target.mkdir()
        options = ["--snapshotter", snapshotter, "--platform", "linux/amd64"]
        self.ctr("images", "mount", *options, reference, str(target))
        try:
            yield target
        finally:
            self.ctr("images", "unmount", "--rm", "--snapshotter", snapshotter, str(target))

    def tree(self, reference: str, *, snapshotter: str = "overlayfs") -> list[Node]:
        """What is in an image."""
        with self.mounted(reference, snapshotter=snapshotter) as root:
            return listing(root)

    def erofs_tree(self, image: Image) -> list[Node]:
        """What is in an image in the erofs snapshotter, by the mounts that it says."""
        key, top = f"view{next(self.numbers)}", str(chain_id([layer.diff_id for layer in image.layers]))
        said = json.loads(self.ctr("snapshots", *_EROFS, "view", "--mounts", key, top))
        sources = [each["Source"] for each in said if each["Type"] == "erofs"]
        with ExitStack() as stack:
            lowers = []
            for number, source in enumerate(reversed(sources)):
                at = self.home / f"{key}-{number}"
                at.mkdir()
                lowers.append(stack.enter_context(disks.mounted(at, "-t", "erofs", "-o", "ro,loop", source)))
            found = listing(stack.enter_context(mounted(lowers, self.home / key)))
        self.run("snapshots", *_EROFS, "rm", key)  # the gc may have been there before
        return found

    def forget(self, reference: str) -> None:
        """Remove an image, with what nothing else needs."""
        self.ctr("images", "rm", "--sync", reference)


def config(home: Path, *, differ: Path | None, unpacks: int, snapshotters: Sequence[str] = ("overlayfs",)) -> str:
    """The configuration of a daemon; without a differ's socket it unpacks with walking."""
    text = _CONFIG.format(home=home, unpacks=unpacks)
    name = "walking" if differ is None else "fastoci"
    text += "".join(_UNPACK.format(snapshotter=each, differ=name) for each in snapshotters)
    return text if differ is None else text + _DIFFER.format(socket=differ)


@contextmanager
def containerd(
    home: Path,
    *,
    differ: Path | None = None,
    unpacks: int = 1,
    snapshotters: Sequence[str] = ("overlayfs",),
    configure: Callable[[Path], object] = lambda path: None,
) -> Iterator[Containerd]:
    """Run one until the end of the block; another may go on with its ``home`` afterwards.

    Args:
        configure: may change the configuration file before it is read.
    """
    program, ctr = programs()
    home.mkdir(exist_ok=True)
    text = config(home, differ=differ, unpacks=unpacks, snapshotters=snapshotters)
    (home / "config.toml").write_text(text)
    configure(home / "config.toml")
    running = Containerd(home, program, ctr)
    running.start()
    try:
        yield running
    finally:
        running.stop()
