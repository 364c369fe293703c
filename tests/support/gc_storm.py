"""Pullers and collectors on one store, each a process that kills itself at a random file operation and is begun anew.

Arguments: STORE OPERATIONS SEED. Prints counts as JSON; ends with 1 and lines on stderr when a blob was missing or
wrong while a lease or a reference named it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import select
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastoci.errors import BlobNotFoundError, StoreBusyError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.manifest import parse
from fastoci.image.stored_image import StoredImage
from fastoci.store.gc import collect
from fastoci.store.gc.retention import Retention
from fastoci.store.refs import stamp_of
from support.store_shelf import Shelf

PULLERS, COLLECTORS = 32, 4
NAMES = [f"registry.test/image{number}:latest" for number in range(24)]
OPERATIONS = ("open", "os.mkdir", "os.chmod", "os.truncate", "os.rename", "os.remove", "os.rmdir", "fcntl.fcntl")
WRONG = 3  # how a child ends that has seen what must not be


class WrongError(Exception):
    """A blob was missing or wrong that something named."""


@dataclass(frozen=True)
class Made:
    """An image as a registry would have it: what its manifest names, and the content of all."""

    manifest: Descriptor
    blobs: tuple[Descriptor, ...]
    content: dict[str, bytes]


def images(seed: int) -> list[Made]:
    """Forty images of a config and three layers each, drawn from thirty layers."""
    draw = random.Random(seed)
    layers = [draw.randbytes(draw.randrange(100, 3000)) for _ in range(30)]
    made = []
    for number in range(40):
        config = json.dumps({"number": number}).encode()
        parts = [Descriptor.of(config, mediatype.OCI_CONFIG)]
        content = {str(parts[0].digest): config}
        for data in draw.sample(layers, 3):
            parts.append(Descriptor.of(data, mediatype.OCI_LAYER))
            content[str(parts[-1].digest)] = data
        form = {"schemaVersion": 2, "config": encode(parts[0]), "layers": [encode(part) for part in parts[1:]]}
        raw = json.dumps(form).encode()
        manifest = Descriptor.of(raw, mediatype.OCI_MANIFEST)
        content[str(manifest.digest)] = raw
        made.append(Made(manifest, (manifest, *parts), content))
    return made


async def pull(shelf: Shelf, image: Made, name: str) -> str:
    """What a pull does with a store."""
    store = shelf.store
    async with store.session(image.blobs) as session, session.reserve() as writer:
        there = [blob for blob in image.blobs if blob not in session.missing]
        for blob in session.missing:
            ingest = await shelf.begin(blob)
            if ingest is not None:
                data = image.content[str(blob.digest)]
                await ingest.commit(shelf.feed(ingest, data).proof())
        if lost := await store.missing(image.blobs):
            raise WrongError(f"{lost[0].digest} is missing under a lease; it was there: {lost[0] in there}")
        for blob in image.blobs:
            check(await store.read(blob), blob)
        await writer.record(StoredImage(name, image.manifest, {"linux/amd64": image.manifest}, "2023-11-14T22:13:20Z"))
    return "pull"


async def look(shelf: Shelf, name: str) -> str:
    """Read all that a reference needs; it has to be there as long as the reference is the same."""
    path = shelf.store.paths.ref_path(name)
    try:
        before = stamp_of(os.lstat(path))
        ref = shelf.store.refs.get(name)
    except (FileNotFoundError, BlobNotFoundError):
        return "look at nothing"
    problem = ""
    try:
        manifest = parse(await shelf.store.read(ref.descriptor), ref.descriptor.media_type)
        for blob in (manifest.config, *manifest.layers):
            check(await shelf.store.read(blob), blob)
    except BlobNotFoundError as error:
        problem = str(error)
    with suppress(FileNotFoundError):
        if problem and stamp_of(os.lstat(path)) == before:
            raise WrongError(f"{name}: {problem}")
    return "look in vain" if problem else "look"


async def collected(shelf: Shelf, draw: random.Random) -> str:
    """Plan, wait a moment, and delete."""
    plan = await shelf.store.plan_gc(Retention(max_count=draw.choice((None, None, 8, 16))))
    await asyncio.sleep(draw.random() ** 4 * 0.2)
    try:
        gone = await shelf.store.gc(plan)
    except StoreBusyError:
        return "gc busy"
    return "gc" if any(item.kind == "blob" for item in gone) else "gc of nothing"


def check(data: bytes, blob: Descriptor) -> None:
    if hashlib.sha256(data).hexdigest() != blob.digest.hex:
        raise WrongError(f"{blob.digest} has another content")


async def work(path: Path, seed: int, role: str, told: int) -> None:
    """One process: operations without end, until the operation that kills it. Each is told by a line in a pipe."""
    draw = random.Random(seed)
    made = images(int(path.name))
    shelf = Shelf(path, durability=draw.choice(("commit", "commit", "batch", "none")))
    _kill_before(draw.randrange(20, 2500 if role == "pull" else 5000))
    while True:
        if role == "gc":
            done = await collected(shelf, draw)
        elif (drawn := draw.random()) < 0.6:
            done = await pull(shelf, draw.choice(made), draw.choice(NAMES))
        elif drawn < 0.8:
            done = await look(shelf, draw.choice(NAMES))
        else:
            done = "rm" if await shelf.store.forget(draw.choice(NAMES)) else "rm of nothing"
        os.write(told, f"{done}\n".encode())


def _kill_before(count: int) -> None:
    left = iter(range(count))

    def hook(event: str, arguments: object) -> None:
        if event in OPERATIONS and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _start(path: Path, seed: int, role: str, told: int) -> int:
    pid = os.fork()
    if not pid:
        code = WRONG
        try:
            collect._SETTLED_NS = 50_000_000  # type: ignore[misc]  # some ticks of the clock are enough here
            asyncio.run(work(path, seed, role, told))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return pid


def storm(path: Path, operations: int, seed: int) -> Counter[str]:
    """Run until so many operations are done; what was done, by kind, and how many processes were killed.

    Raises:
        WrongError: a process saw what must not be; it has said what.
    """
    Shelf(path).store.close()
    draw = random.Random(seed)
    reading, told = os.pipe()
    roles: dict[int, str] = {}
    counts: Counter[str] = Counter()
    try:
        for role, number in (("pull", PULLERS), ("gc", COLLECTORS)):
            for _ in range(number):
                roles[_start(path, draw.getrandbits(32), role, told)] = role
        for line in _lines(reading):
            if line:
                counts[line] += 1
            if counts.total() - counts["killed"] >= operations:
                break
            while pid := _dead(roles):
                counts["killed"] += 1
                role = roles.pop(pid)
                roles[_start(path, draw.getrandbits(32), role, told)] = role
    finally:
        for pid in roles:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(reading)
        os.close(told)
    return counts


def _dead(roles: dict[int, str]) -> int:
    """A child that has killed itself, 0 when all are alive."""
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid and os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        del roles[pid]
        raise WrongError("see above")
    return pid


def _lines(fd: int) -> Iterator[str]:
    """Lines as they come, and an empty one when none comes for a while."""
    rest = b""
    while True:
        if select.select([fd], [], [], 0.5)[0]:
            *lines, rest = (rest + os.read(fd, 1 << 16)).split(b"\n")
            yield from (line.decode() for line in lines)
        else:
            yield ""


def main() -> None:
    path, operations, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(storm(path, operations, seed)))


if __name__ == "__main__":
    main()
