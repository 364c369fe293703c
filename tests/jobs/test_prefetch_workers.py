"""Worker processes: each blob once over all of them, what one had goes on when it dies, and none is left behind.

Covers: jobs/fetch_processes.py, jobs/fetch_messages.py, fetch_process.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from fastoci import Engine, Limits, PrefetchRequest, RegistryOptions
from fastoci.errors import (
    DigestMismatchError,
    FastociError,
    NotFoundError,
    SpaceRequirement,
    StoreError,
    StoreFullError,
)
from fastoci.events import BlobDone, BlobProgress, BlobStarted, Event, ImageDone, JobPlanned, Warned
from fastoci.image.digest import Digest
from fastoci.jobs.fetch_messages import Outcome, pickled
from fastoci.server.http import Request
from fastoci.server.pull_api import Answer
from fastoci.testing.auth import Basic
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry
from support.images import made

IMAGES = 4
BASE = Layer.build(made(1, files=4, size=200_000), "gzip")
BUILT = [Image.build([BASE, Layer.build(made(10 + number, files=2, size=40_000), "gzip")]) for number in range(IMAGES)]
LARGE = Image.build([Layer.build(made(30, files=1, size=24 << 20), "none")])
BLOBS = {str(blob.digest): blob.size for image in BUILT for blob, _ in image.blobs()}


class Held(Registry):
    """Holds back bodies of blobs: all, or what is asked of a blob when ``after`` requests for it were answered."""

    def __init__(self, after: int, auth: Basic | None = None) -> None:
        super().__init__(auth)
        self.after = after
        self.free = asyncio.Event()
        self.held = 0

    async def read(self, request: Request) -> Answer:
        answered = sum(record.path == request.path for record in self.log)
        if "/blobs/" in request.path and answered >= self.after and not self.free.is_set():
            self.held += 1
            await self.free.wait()
        return await super().read(request)


@pytest.fixture
async def registry() -> AsyncIterator[Held]:
    async with Held(0) as registry:
        for number, image in enumerate(BUILT):
            registry.add_image("app", str(number), image)
        registry.add_image("large", "1", LARGE)
        yield registry
        registry.free.set()


def requests(registry: Registry) -> list[PrefetchRequest]:
    return [PrefetchRequest(f"{registry.address}/app:{number}") for number in range(IMAGES)]


def asked(registry: Registry) -> Counter[str]:
    return Counter(record.path.rpartition("/")[2] for record in registry.log if "/blobs/" in record.path)


def workers(parent: int = 0) -> set[int]:
    """The worker processes of a process."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            command = Path(f"/proc/{name}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status[1]) == (parent or os.getpid()) and "fastoci.fetch_process" in command:
            found.add(int(name))
    return found


def are_gone(pids: Iterable[int]) -> bool:
    """Whether nothing is left of these processes, also no zombie."""
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def until(condition: Callable[[], object], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.01)


async def test_each_blob_comes_once_over_all_workers_and_the_totals_are_true(registry: Held, tmp_path: Path) -> None:
    events: list[Event] = []
    async with Engine(tmp_path, observer=events.append) as engine:
        job = asyncio.create_task(engine.prefetch(requests(registry), workers=2))
        await until(lambda: registry.held >= 8)  # each has filled its share of the connections
        theirs = workers()
        assert len(theirs) == 2
        registry.free.set()
        result = await job
        assert are_gone(theirs)
        assert {image.name for image in await engine.images()} == {each.reference for each in requests(registry)}
        assert not (await engine.verify()).bad
    assert asked(registry) == dict.fromkeys(BLOBS, 1)
    assert [image.outcome for image in result.images] == ["fetched"] * IMAGES
    assert sum(image.fetched for image in result.images) == sum(BLOBS.values())
    assert {blob.digest: blob.size for blob in result.blobs} == BLOBS
    events = [
        event for event in events if getattr(event, "blob", "") in BLOBS or isinstance(event, JobPlanned | ImageDone)
    ]
    assert Counter(event.blob for event in events if isinstance(event, BlobStarted)) == dict.fromkeys(BLOBS, 1)
    assert {event.blob: event.offset for event in events if isinstance(event, BlobProgress)} == BLOBS
    assert {event.blob: event.size for event in events if isinstance(event, BlobDone)} == BLOBS
    assert [event.size for event in events if isinstance(event, JobPlanned)] == [sum(BLOBS.values())]
    assert sum(isinstance(event, ImageDone) for event in events) == IMAGES


async def test_no_worker_is_started_for_what_is_there(registry: Held, tmp_path: Path) -> None:
    registry.free.set()
    async with Engine(tmp_path) as engine:
        await engine.prefetch(requests(registry))
        started: list[int] = []
        job = asyncio.create_task(engine.prefetch(requests(registry), workers=2))
        while not job.done():
            started += workers()
            await asyncio.sleep(0.005)
    assert started == []
    assert not job.result().failed


async def test_a_worker_that_is_killed_costs_no_image_and_is_replaced(registry: Held, tmp_path: Path) -> None:
    async with Engine(tmp_path) as engine:
        job = asyncio.create_task(engine.prefetch(requests(registry), workers=2))
        await until(lambda: registry.held >= 8)
        killed = min(workers())
        os.kill(killed, signal.SIGKILL)
        await until(lambda: registry.held >= 9)  # what it had is asked for again, by the new one first a blob alone
        theirs = workers()
        assert len(theirs - {killed}) == 2
        registry.free.set()
        result = await job
        assert are_gone({*theirs, killed})
    assert [image.outcome for image in result.images] == ["fetched"] * IMAGES


async def test_workers_that_die_again_and_again_end_the_job_with_an_error(registry: Held, tmp_path: Path) -> None:
    seen: set[int] = set()

    def kill() -> bool:
        for pid in workers() if registry.held else ():
            seen.add(pid)
            os.kill(pid, signal.SIGKILL)
        return job.done()

    async with Engine(tmp_path) as engine:
        job = asyncio.create_task(engine.prefetch(requests(registry), workers=2))
        await until(kill)
        assert are_gone(seen)
    errors = [image.error for image in job.result().images]
    assert all(type(error) is FastociError and "was killed by signal 9" in str(error) for error in errors)
    assert 2 <= len(seen) <= 2 + 3


async def test_errors_have_their_type_and_facts_and_harm_only_their_image(registry: Held, tmp_path: Path) -> None:
    registry.free.set()
    absent, wrong = (BUILT[number].layers[1].descriptor for number in (0, 1))
    registry.remove_blob(str(absent.digest))
    registry.add_blob(str(wrong.digest), bytes(wrong.size))
    async with Engine(tmp_path) as engine:
        result = await engine.prefetch(requests(registry), workers=2)
    first, second, *others = (image.error for image in result.images)
    assert isinstance(first, NotFoundError)
    assert (first.status, first.blob) == (404, str(absent.digest))
    assert str(absent.digest) in first.url
    assert isinstance(second, DigestMismatchError)
    assert second.expected == str(wrong.digest)
    assert others == [None] * (IMAGES - 2)


async def test_a_job_that_is_cancelled_leaves_no_worker_and_goes_on_where_it_was(
    registry: Held, tmp_path: Path
) -> None:
    registry.after = 1
    wanted = [PrefetchRequest(f"{registry.address}/large:1")]
    limits = Limits(connections=4)
    async with Engine(tmp_path, limits=limits) as engine:
        job = asyncio.create_task(engine.prefetch(wanted, workers=2))
        await until(lambda: registry.held)
        theirs = workers()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert theirs
        assert are_gone(theirs)
    await goes_on(registry, tmp_path)


async def goes_on(registry: Held, store: Path) -> None:
    """The next job asks only for what is not there of the large blob."""
    registry.free.set()
    registry.log.clear()
    async with Engine(store) as engine:
        result = await engine.prefetch([PrefetchRequest(f"{registry.address}/large:1")])
    assert not result.failed
    path = f"/blobs/{LARGE.layers[0].descriptor.digest}"
    ranges = [record.range for record in registry.log if record.path.endswith(path)]
    assert ranges
    assert all(int(each.removeprefix("bytes=").partition("-")[0]) >= 1 << 20 for each in ranges)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_the_end_of_the_program_is_the_end_of_its_workers(
    registry: Held, tmp_path: Path, number: signal.Signals
) -> None:
    registry.after = 1
    command = ["prefetch", f"{registry.address}/large:1", f"{registry.address}/app:1", "--workers", "2"]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fastoci", *command, "--store", str(tmp_path), "--progress", "none"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    await until(lambda: registry.held)
    theirs = workers(program.pid)
    assert theirs
    if number is signal.SIGKILL:
        program.kill()
    else:
        os.killpg(program.pid, number)  # as a terminal does: the workers get it, too
    _, said = await program.communicate()
    await until(lambda: are_gone(theirs))
    assert program.returncode == (-9 if number is signal.SIGKILL else 128 + number)
    assert b"Traceback" not in said
    await goes_on(registry, tmp_path)


async def test_credentials_reach_workers_and_neither_their_arguments_nor_environment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fastoci")
    async with Held(0, Basic("somebody", "correct horse")) as registry:
        registry.add_image("app", "0", BUILT[0])
        options = RegistryOptions(creds=("somebody", "correct horse"))
        async with Engine(tmp_path, registry=options) as engine:
            job = asyncio.create_task(engine.prefetch([PrefetchRequest(f"{registry.address}/app:0")], workers=2))
            await until(lambda: registry.held)
            theirs = workers()
            for pid in theirs:
                for name in ("cmdline", "environ"):
                    assert b"horse" not in Path(f"/proc/{pid}/{name}").read_bytes()
            registry.free.set()
            assert not (await job).failed
    assert theirs
    assert all(f"worker process {pid}: " in caplog.text for pid in theirs)  # what they log is logged by the job
    assert "horse" not in caplog.text


async def test_modules_of_the_directory_where_the_program_is_started_are_not_loaded(
    registry: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fastoci", "uvloop", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of somebody else')")
    monkeypatch.chdir(tmp_path)
    registry.free.set()
    async with Engine(tmp_path / "store") as engine:
        assert not (await engine.prefetch(requests(registry)[:1], workers=2)).failed


async def test_a_store_that_workers_cannot_open_is_the_error_of_the_images(registry: Held, tmp_path: Path) -> None:
    async with Engine(tmp_path / "store") as engine:
        (tmp_path / "store").rename(tmp_path / "moved")
        (tmp_path / "store").write_text("not a directory")
        result = await engine.prefetch(requests(registry), workers=2)
    assert {type(image.error) for image in result.images} == {StoreError}


async def test_who_asks_for_more_workers_than_can_work_is_told(tmp_path: Path) -> None:
    events: list[Event] = []
    async with Engine(tmp_path, limits=Limits(connections=1), observer=events.append) as engine:
        await engine.prefetch([], workers=2)
        with pytest.raises(ValueError, match="workers: 0"):
            await engine.prefetch([], workers=0)
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "2 worker processes are too many, 1 at most are started: each needs a connection, and its part of the limits"
    ]


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


def test_only_errors_of_fastoci_are_unpickled() -> None:
    full = StoreFullError("full", path="/s", requirements=(SpaceRequirement("bytes", "/s", 2, 1),))
    again = Outcome(1, pickled(full)).exception
    assert isinstance(again, StoreFullError)
    assert again.requirements == full.requirements
    foreign = StoreError("odd", path="/s")
    foreign.__dict__["with"] = Digest.of(b"")
    assert type(Outcome(1, pickled(foreign)).exception) is FastociError
    with pytest.raises(pickle.UnpicklingError, match="system"):
        Outcome(1, pickle.dumps(_Bomb())).exception  # noqa: B018
    assert Outcome(1).exception is None
    assert isinstance(Outcome(1, fault="a fault").exception, RuntimeError)
