"""A storm on one store: pulls, removals, gc, verify and repair side by side, stopped, continued and killed at random,
while blobs rot on the disk. After it everything can be mended, and then everything is right.

``make storm`` runs 3,000 commands; the short form is part of ``make test``. The seed is printed; set ``FASTOCI_SEED``
to draw the same commands again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, from_seed
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, listing, overlay
from support import warm_program
from support.crash_harness import wrong_blobs, wrong_refs
from support.scratch import scratch
from support.warm_program import WarmProgram

COMMANDS = int(os.environ.get("FASTOCI_STORM", "36"))
SEED = int(os.environ.get("FASTOCI_SEED", "0")) or random.randrange(1, 1 << 32)
SIDE_BY_SIDE = 5
IMAGES = 6
DEADLINE_S = 120.0  # of one command, in which it is stopped now and then

# How a verb may end: 0, or what its page says of a store that others change, whose blobs rot.
ENDS = {"pull": {0}, "unpack": {0}, "rm": {0, 3}, "gc": {0, 3, 8}, "verify": {0, 3, 6, 9}, "repair": {0, 3}}
BUSY = "another verification is at work"  # what a verify says of one beside it, and ends with 8
WEIGHTS = {"pull": 6, "unpack": 4, "rm": 2, "gc": 3, "verify": 2, "repair": 3}


@dataclass(slots=True)
class Running:
    """A command under way."""

    verb: str
    process: warm_program.Running
    began: float
    tree: Path | None = None
    image: int = -1
    killed: bool = False


def layers_of(number: int) -> list[list[Entry]]:
    """Three layers, of which neighbours share two."""
    return [
        list(from_seed(each % IMAGES, files=4, size=150_000, compressibility=0.3, at=f"l{each % IMAGES}"))
        for each in range(number, number + 3)
    ]


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    for number in range(IMAGES):
        registry.add_image(f"app{number}", "1", Image.build([Layer.build(layer) for layer in layers_of(number)]))
    with serve(registry):
        yield registry


class Storm:
    """Commands on one store, and what they were told to do."""

    def __init__(self, root: Path, registry: Registry, warm: WarmProgram, rng: random.Random) -> None:
        self.root = root
        self.warm = warm
        self.store = root / "store"
        self.registry = registry
        self.rng = rng
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._running: list[Running] = []
        self._number = 0

    def reference(self, number: int) -> str:
        return f"{self.registry.address}/app{number}:1"

    def start(self) -> None:
        """Begin one command, drawn at random."""
        verb = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        image = self.rng.randrange(IMAGES)
        tree = None
        arguments = ["--store", str(self.store)]
        if verb in ("pull", "unpack", "rm"):
            arguments.append(self.reference(image))
        if verb == "unpack":
            self._number += 1
            tree = self.root / f"tree{self._number}"
            arguments += ["--rootfs", str(tree)]
        if verb not in ("rm", "gc"):
            arguments += ["--progress", "none"]
        process = self.warm.start("pull" if verb == "unpack" else verb, *arguments)
        self._running.append(Running(verb, process, time.monotonic(), tree, image))

    def disturb(self) -> None:
        """Stop a command for a while, or kill it, or let a blob rot."""
        draw = self.rng.random()
        if draw < 0.006:
            self.rot()
        elif draw < 0.1 and self._running:
            victim = self.rng.choice(self._running)
            victim.process.send_signal(signal.SIGSTOP)
            time.sleep(self.rng.random() ** 3 * 0.3)
            if draw < 0.016:
                victim.killed = True
                victim.process.send_signal(signal.SIGKILL)
            victim.process.send_signal(signal.SIGCONT)

    def rot(self) -> None:
        """Change a byte of a layer behind the store's back; its size stays."""
        blobs = [path for path in self.store.glob("blobs/sha256/*") if path.stat().st_size > 10_000]
        if blobs:
            path = self.rng.choice(blobs)
            data = bytearray(path.read_bytes())
            data[self.rng.randrange(len(data))] ^= 0x40
            copy = self.root / "rotten"
            copy.write_bytes(data)
            os.replace(copy, path)  # at once: a reader has the one or the other
            self.counts["rotten"] += 1

    def reap(self) -> None:
        """Look at the commands that ended."""
        for each in list(self._running):
            ended = each.process.poll()
            if ended is None:
                if time.monotonic() - each.began > DEADLINE_S:
                    self.wrong.append(f"{each.verb} does not end")
                    each.process.send_signal(signal.SIGKILL)
                continue
            self._running.remove(each)
            self.counts["killed" if each.killed else each.verb] += 1
            is_busy = (each.verb, ended.returncode) == ("verify", 8) and BUSY in ended.stderr
            if not (each.killed or is_busy) and ended.returncode not in ENDS[each.verb]:
                self.wrong.append(f"{each.verb} ended with {ended.returncode}: {ended.stderr}")
            if "Traceback" in ended.stderr:
                self.wrong.append(f"{each.verb}: {ended.stderr}")
            if each.tree is not None and each.tree.exists():  # it has its name: then it is right
                lines = differences(overlay(layers_of(each.image)), listing(each.tree), owners=os.geteuid() == 0)
                self.wrong += [f"tree of {each.image}: {line}" for line in lines[:3]]
                shutil.rmtree(each.tree)

    def run(self, count: int) -> None:
        """Run ``count`` commands, some at a time."""
        started = 0
        while started < count or self._running:
            while started < count and len(self._running) < SIDE_BY_SIDE:
                self.start()
                started += 1
            self.disturb()
            self.reap()
            time.sleep(0.02)


def left(store: Path) -> Sequence[str]:
    """What no job needs any more, after a gc with nobody beside it."""
    found = [path.name for path in (store / "leases").iterdir() if path.name not in (".gate", ".probed")]
    return found + [str(path) for path in store.rglob("*.new") if path.name != ".new"]


@pytest.mark.timeout(7200)
def test_after_a_storm_all_can_be_mended_and_is_right(registry: Registry, warm_program: WarmProgram) -> None:
    print(f"seed {SEED}, {COMMANDS} commands")

    def finish(*arguments: str) -> None:
        done = warm_program.run(*arguments)
        assert done.returncode == 0, f"{arguments[0]}: {done.stderr}"

    with scratch("storm") as root:
        storm = Storm(root, registry, warm_program, random.Random(SEED))
        finish("pull", "--store", str(storm.store), storm.reference(0), "--progress", "none")
        storm.run(COMMANDS)
        print(dict(storm.counts))
        assert storm.wrong == []
        finish("repair", "--store", str(storm.store), "--progress", "none")
        finish("gc", "--store", str(storm.store))
        finish("verify", "--store", str(storm.store), "--progress", "none")
        assert wrong_blobs(storm.store) + wrong_refs(storm.store) == []
        assert left(storm.store) == []
        for number in range(IMAGES):
            tree = root / f"last{number}"
            finish("pull", "--store", str(storm.store), storm.reference(number), "--rootfs", str(tree))
            owners = os.geteuid() == 0
            assert differences(overlay(layers_of(number)), listing(tree), owners=owners) == []
