"""Commands in slow situations, to be interrupted: to test that they end soon, and to measure how soon."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import pty
import random
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from fastoci.boot import boot_id
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.server.pull_api import Content, Document
from fastoci.store.ingest.checkpoint import State
from fastoci.store.store import Store
from fastoci.testing.auth import Basic
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, from_seed
from fastoci.testing.registry import Registry, serve
from support.scratch import SOURCE

LARGE: Final = 8 << 30  # bytes of a blob of holes: some seconds of hashing, and no room
MANY: Final = 60_000  # files, each some microseconds
_CONFIG: Final = mediatype.OCI_CONFIG
_PULLED_AT: Final = "2026-01-01T00:00:00Z"
IMAGE: Final = Image.build([Layer.build(from_seed(1, files=4, size=100_000, compressibility=0.1))])


@dataclass(frozen=True, slots=True)
class Slow:
    """A command, and the moment from which on it is to be interrupted.

    Args:
        command: the arguments of fastoci.
        begun: whether the situation is reached; the command may have ended before.
        again: what succeeds afterwards, None when nothing is to be seen by that.
        typed: it runs on a terminal.
        given: on its stdin.
        below: a command that runs another one in its place.
    """

    command: Sequence[str | Path]
    begun: Callable[[], bool]
    again: Sequence[str | Path] | None = None
    typed: bool = False
    given: str = ""
    below: Sequence[str] = ()
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an interrupted command ended: after how many seconds, and with what exit status."""

    took_s: float
    status: int
    said: str


Command = Sequence[str | Path]
Situation = Callable[[Path, Path], Iterator[Slow]]
SITUATIONS: dict[str, Situation] = {}


def situation(make: Situation) -> Situation:
    """Given two empty directories, the first in memory; it yields once."""
    SITUATIONS[make.__name__.replace("_", " ")] = make
    return make


def interrupt(slow: Slow, delay_s: float = 0.0) -> Ended:
    """Run it, send SIGINT ``delay_s`` after the situation is reached, and wait for its end."""
    with ExitStack() as opened:
        ours, theirs = pty.openpty() if slow.typed else (-1, -1)
        process = subprocess.Popen(
            # whoever runs the tests may ignore the signal, as a shell's background jobs do
            ["env", "--default-signal=INT", *slow.below, sys.executable, "-m", "fastoci", *map(str, slow.command)],
            stdin=theirs if slow.typed else subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCE), **slow.environ},
            text=True,
            start_new_session=True,
        )
        opened.enter_context(process)
        if slow.typed:
            os.close(theirs)
            opened.callback(os.close, ours)
        elif process.stdin is not None:
            process.stdin.write(slow.given)
            process.stdin.close()
            process.stdin = None
        while not slow.begun() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay_s)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ended(time.monotonic() - start, process.returncode, said)


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, "-m", "fastoci", *map(str, command)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
        check=False,
    )


class Silent(Registry):
    """A registry that takes requests for some things and never answers them."""

    def __init__(self, *silent: str) -> None:
        super().__init__()
        self.silent = set(silent)
        self.asked = threading.Event()
        self.add_image("app", "1", IMAGE)

    async def manifest(self, name: str, reference: str) -> Document | None:
        return await super().manifest(name, reference) if await self._speaks("manifest") else None

    async def blob(self, name: str, digest: str) -> Content | None:
        return await super().blob(name, digest) if await self._speaks("blob") else None

    async def _speaks(self, what: str) -> bool:
        if what in self.silent:
            self.asked.set()
            await asyncio.sleep(3600)
        return True


def after(seconds: float) -> Callable[[], bool]:
    """A moment so long after the first question."""
    first: list[float] = []

    def passed() -> bool:
        first.append(time.monotonic())
        return first[-1] - first[0] > seconds

    return passed


def sometime() -> Callable[[], bool]:
    """A moment between the start and where a short command ends."""
    return after(random.uniform(0.05, 1.5))


# --- what waits for others ---


@situation
def pull_from_a_silent_server(memory: Path, _: Path) -> Iterator[Slow]:
    silent = Silent("manifest")
    with serve(silent) as registry:
        pull: Command = ["pull", f"{registry.address}/app:1", "--store", memory / "store"]
        yield Slow(pull, silent.asked.is_set)


@situation
def pull_of_blobs_from_a_silent_server(memory: Path, _: Path) -> Iterator[Slow]:
    silent = Silent("blob")
    with serve(silent) as registry:
        pull: Command = ["pull", f"{registry.address}/app:1", "--store", memory / "store", "--rootfs", memory / "root"]

        yield Slow(pull, silent.asked.is_set)
        silent.silent.clear()
        assert run(pull).returncode == 0


@situation
def pull_of_a_blob_that_another_process_has(memory: Path, _: Path) -> Iterator[Slow]:
    with serve(Silent()) as registry, _store(memory / "store") as store:
        pull: Command = ["pull", f"{registry.address}/app:1", "--store", memory / "store"]
        ingest = Path(store.paths.ingest(IMAGE.layers[0].descriptor.digest))
        ingest.mkdir(0o700)
        with _locked(f"{ingest}/lock"):
            yield Slow(pull, after(1.5))
        assert run(pull).returncode == 0


@situation
def pull_through_a_credential_helper(memory: Path, _: Path) -> Iterator[Slow]:
    program, asked = memory / "docker-credential-slow", memory / "asked"
    program.write_text(f"#!/bin/sh\ntouch {asked}\nsleep 100\n")
    program.chmod(0o755)
    authfile = memory / "auth.json"
    authfile.write_text(json.dumps({"credsStore": "slow"}))
    with serve(Registry(Basic("me", "secret"))) as registry:
        pull: Command = ["pull", f"{registry.address}/app", "--store", memory / "store", "--authfile", authfile]
        yield Slow(pull, asked.exists, environ={"PATH": f"{memory}:{os.environ['PATH']}"})


@situation
def pull_that_asks_for_a_password(memory: Path, _: Path) -> Iterator[Slow]:
    yield Slow(["pull", "127.0.0.1:9/app", "--store", memory / "store", "--creds", "me"], after(1.0), typed=True)


@situation
def login_that_asks_for_a_password(memory: Path, _: Path) -> Iterator[Slow]:
    yield Slow(["login", "127.0.0.1:9", "-u", "me", "--authfile", memory / "auth.json"], after(1.0), typed=True)


@situation
def login_at_a_silent_server(memory: Path, _: Path) -> Iterator[Slow]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        login: Command = ["login", f"127.0.0.1:{server.getsockname()[1]}", "-u", "me", "--password-stdin"]
        accepted = []

        def connected() -> bool:
            with suppress(BlockingIOError):
                accepted.append(server.accept()[0])
            return bool(accepted)

        yield Slow([*login, "--tls-verify=false", "--authfile", memory / "auth.json"], connected, given="secret")
        for connection in accepted:
            connection.close()


@situation
def pull_from_a_host_whose_name_is_looked_up(memory: Path, _: Path) -> Iterator[Slow]:
    """The name server is silent; only here, since the mounts are the process's own."""
    if os.geteuid() != 0:
        pytest.skip("mounts, as root")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.53", 53))
        server.setblocking(False)
        (memory / "resolv.conf").write_text("nameserver 127.0.0.53\noptions timeout:30 attempts:5\n")
        mounted = f'mount --bind {memory}/resolv.conf /etc/resolv.conf && exec "$@"'

        def asked() -> bool:
            with suppress(BlockingIOError):
                return bool(server.recv(4096))
            return False

        pull: Command = ["pull", "registry.example.com/app", "--store", memory / "store"]
        yield Slow(pull, asked, below=["unshare", "--mount", "sh", "-c", mounted, "sh"])


# --- what works through much ---


@contextmanager
def _store(path: Path) -> Iterator[Store]:
    store = Store.at(path)
    try:
        yield store
    finally:
        store.close()


def _blob(store: Store, data: bytes, media_type: str) -> Descriptor:
    blob = Descriptor.of(data, media_type)
    Path(store.paths.blob(blob.digest)).write_bytes(data)
    return blob


def _holes(store: Store) -> Descriptor:
    """A large blob of holes, of some other digest."""
    blob = Descriptor(mediatype.OCI_LAYER, Digest.of(b"another"), LARGE)
    with open(store.paths.blob(blob.digest), "wb") as file:
        file.truncate(blob.size)
    return blob


def _reference(store: Store, name: str, *layers: Descriptor, count: int = 1) -> None:
    """An image of these layers under a name, or under very many."""
    config = _blob(store, json.dumps({"rootfs": {"diff_ids": [str(each.digest) for each in layers]}}).encode(), _CONFIG)
    form = {"schemaVersion": 2, "config": encode(config), "layers": list(map(encode, layers))}
    manifest = encode(_blob(store, json.dumps(form).encode(), mediatype.OCI_MANIFEST))
    for number in range(count):
        full = name if count == 1 else f"{name}{number}"
        path = Path(store.paths.ref_path(full))
        path.parent.mkdir(exist_ok=True)
        ref = {
            "name": full,
            "descriptor": manifest,
            "images": {"linux/amd64": manifest},
            "pulled_at": "2026-01-01T00:00:00Z",
        }
        path.write_text(json.dumps(ref))


@situation
def gc_of_very_many_blobs(memory: Path, _: Path) -> Iterator[Slow]:
    with _store(memory / "store") as store:
        for number in range(MANY):
            name = hashlib.sha256(b"%d" % number).hexdigest()
            os.close(os.open(f"{store.path}/blobs/sha256/{name}", os.O_CREAT | os.O_WRONLY, 0o444))
    gc: Command = ["gc", "--store", memory / "store"]
    yield Slow(gc, sometime(), again=gc)


@situation
def gc_of_very_many_references(memory: Path, _: Path) -> Iterator[Slow]:
    with _store(memory / "store") as store:
        _reference(store, "registry.test/app:", count=MANY // 3)
    gc: Command = ["gc", "--store", memory / "store"]
    yield Slow(gc, sometime(), again=gc)


@situation
def df_of_very_many_references(memory: Path, _: Path) -> Iterator[Slow]:
    with _store(memory / "store") as store:
        _reference(store, "registry.test/app:", count=MANY // 3)
    df: Command = ["df", "--store", memory / "store"]
    yield Slow(df, sometime())


@situation
def ls_of_very_many_references(memory: Path, _: Path) -> Iterator[Slow]:
    with _store(memory / "store") as store:
        _reference(store, "registry.test/app:", count=MANY // 3)
    ls: Command = ["ls", "--store", memory / "store"]
    yield Slow(ls, sometime())


@situation
def inspect_of_an_image(memory: Path, _: Path) -> Iterator[Slow]:
    with _store(memory / "store") as store:
        _reference(store, "registry.test/app:1")
    inspect: Command = ["inspect", "registry.test/app:1", "--store", memory / "store"]
    yield Slow(inspect, sometime(), again=inspect)


@situation
def verify_of_a_large_blob(memory: Path, _: Path) -> Iterator[Slow]:
    with _store(memory / "store") as store:
        _holes(store)
    yield Slow(["verify", "--store", memory / "store"], sometime())


@situation
def repair_of_a_large_blob(memory: Path, _: Path) -> Iterator[Slow]:
    with _store(memory / "store") as store:
        _reference(store, "127.0.0.1:9/app:1", _holes(store))
    yield Slow(["repair", "--store", memory / "store"], sometime())


@situation
def rm_below_a_lock_that_another_process_has(memory: Path, _: Path) -> Iterator[Slow]:
    """As one has that was stopped, or waits for a disk."""
    with _store(memory / "store") as store:
        _reference(store, "registry.test/app:1")
        with _locked(f"{Path(store.paths.ref_path('registry.test/app:1')).parent}/.lock"):
            yield Slow(["rm", "registry.test/app:1", "--store", memory / "store"], after(1.0))
    assert run(["rm", "registry.test/app:1", "--store", memory / "store"]).returncode == 0


@situation
def pull_into_a_store_whose_index_another_process_has(memory: Path, _: Path) -> Iterator[Slow]:
    with serve(Silent()) as registry, _store(memory / "store"):
        pull: Command = ["pull", f"{registry.address}/app:1", "--store", memory / "store"]
        with _locked(f"{memory}/store/.lock"):
            yield Slow(pull, after(1.5))
        assert run(pull).returncode == 0


@situation
def view_that_copies_a_large_blob(memory: Path, disk: Path) -> Iterator[Slow]:
    with _store(disk / "store") as store:
        _reference(store, "registry.test/app:1", _holes(store))
    yield Slow(["view", memory / "view", "--store", disk / "store"], sometime())
    assert not [path for path in (memory / "view").rglob("*") if path.is_file() and path.stat().st_size == LARGE]


@situation
def pull_that_hashes_again_what_a_killed_one_left(memory: Path, _: Path) -> Iterator[Slow]:
    large = Descriptor(mediatype.OCI_LAYER, Digest.of(b"another"), LARGE)
    config = b'{"rootfs": {"diff_ids": ["%s"]}}' % str(large.digest).encode()
    form = {"schemaVersion": 2, "config": encode(Descriptor.of(config, _CONFIG)), "layers": [encode(large)]}
    with _store(memory / "store") as store, serve(Registry()) as registry:
        registry.add_manifest("app", "1", mediatype.OCI_MANIFEST, json.dumps(form).encode())
        registry.add_blob(str(Digest.of(config)), config)
        ingest = Path(store.paths.ingest(large.digest))
        ingest.mkdir(0o700)
        (ingest / "state").write_bytes(State(boot_id(), 0, 0, b"").encode())
        with open(ingest / "data", "wb") as file:
            file.truncate(LARGE - 1)
        yield Slow(["pull", f"{registry.address}/app:1", "--store", memory / "store"], after(1.0))


# --- what is in native code ---


def _tar(path: Path, names: Iterator[str], *, size: int = 0) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for name in names:
            header = tarfile.TarInfo(name)
            header.size = size
            file.write(header.tobuf(tarfile.USTAR_FORMAT))
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))


@situation
def apply_of_very_many_files(memory: Path, _: Path) -> Iterator[Slow]:
    layer = memory / "layer.tar.gz"
    _tar(layer, (f"d{number % 100}/f{number}" for number in range(MANY)))
    apply: Command = ["apply", memory / "root", layer]
    yield Slow(apply, (memory / "root" / "d50").exists, again=apply)


@situation
def apply_of_a_large_file(memory: Path, _: Path) -> Iterator[Slow]:
    layer = memory / "layer.tar.gz"
    _tar(layer, iter(["large"]), size=1 << 30)
    apply: Command = ["apply", memory / "root", layer]
    yield Slow(apply, (memory / "root" / "large").exists)


@situation
def apply_of_a_whiteout_above_very_many_files(memory: Path, _: Path) -> Iterator[Slow]:
    directory = memory / "root" / "d"
    for number in range(MANY):
        if number % 1000 == 0:
            (directory / str(number)).mkdir(parents=True)
        os.close(os.open(f"{directory}/{number - number % 1000}/{number}", os.O_CREAT | os.O_WRONLY, 0o644))
    layer = memory / "layer.tar.gz"
    _tar(layer, iter(["a", ".wh.d"]))
    apply: Command = ["apply", memory / "root", layer]
    yield Slow(apply, (memory / "root" / "a").exists, again=apply)


@situation
def pull_and_unpack_very_many_files(memory: Path, _: Path) -> Iterator[Slow]:
    layer = Layer.build([Entry(f"d{number % 100}/f{number}", "file", b"") for number in range(MANY // 3)])
    with serve(Registry()) as registry:
        registry.add_image("app", "1", Image.build([layer]))
        pull: Command = [
            "pull",
            f"{registry.address}/app:1",
            "--store",
            memory / "store",
            "--rootfs",
            memory / "out" / "root",
        ]
        (memory / "out").mkdir()

        def unpacks() -> bool:
            with suppress(OSError):
                return any(path.is_dir() and any(path.rglob("d50")) for path in (memory / "out").iterdir())
            return False

        yield Slow(pull, unpacks, again=pull)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold a lock of the store as another process does."""
    program = (
        "import fcntl, os, struct, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)\n"
        "fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        yield
        holder.communicate()
