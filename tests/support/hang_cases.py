"""A process that lets every await of the engine go wrong, verb by verb, while another pull is under way.

Arguments: DIRECTORY SEED COUNT [WORDS]. Runs COUNT cases at random, all when it is 0; WORDS choose those whose name has
them all. A line of JSON for each case that was wrong, and a last one with what was reached.

A case: in a new engine a verb is called, and another pull beside it. At one await of what the verb does something is
injected: an exception in place of what is awaited, on the loop or on a thread; a wait without an end, until the verb is
cancelled; or the cancellation of the verb. Then the verb ends soon, the other pull succeeds, a later one of the same
image too, and no task, buffer or descriptor is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support import await_points

if __name__ == "__main__":
    await_points.install()

from fastoci import Engine
from support import hang_copy, hang_into, hang_scene
from support.hang_scene import BLOB, HANG_S, Own, Scene, Verb, scene_in

VERBS: Final = {**hang_scene.VERBS, **hang_copy.VERBS, **hang_into.VERBS}
SOON_S: Final = 20.0  # for what takes a few milliseconds, on a loaded machine
ERRORS: Final[dict[str, Callable[[], BaseException]]] = {
    "MemoryError": lambda: MemoryError("injected"),
    "KeyError": lambda: KeyError("injected"),
    "OSError": lambda: OSError(5, "injected"),
    "TimeoutError": lambda: TimeoutError("injected"),
    "CancelledError": lambda: asyncio.CancelledError("injected"),
}
KINDS: Final = (*ERRORS, "hang", "cancel")


@dataclass(frozen=True, slots=True)
class Case:
    """A verb, an await of it, and what happens there."""

    verb: str
    point: str
    visit: int
    kind: str

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {self.point} {self.visit}"


class WrongError(Exception):
    """A case ended otherwise than it may."""


def _demand(condition: object, text: str) -> None:
    if not condition:
        raise WrongError(text)


async def _soon(task: asyncio.Task[Any], what: str) -> None:
    """Wait for a task that must end.

    Raises:
        WrongError: it does not; the stacks of all tasks are on stderr.
    """
    await asyncio.wait([task], timeout=SOON_S)
    if not task.done():
        for each in asyncio.all_tasks():
            print(each.get_name(), file=sys.stderr)
            _print_awaits(each.get_coro())
        raise WrongError(f"{what} has no end")


def _print_awaits(coroutine: Any) -> None:
    while coroutine is not None and hasattr(coroutine, "cr_frame"):
        frame = coroutine.cr_frame
        if frame is not None and "await_points" not in frame.f_code.co_filename:
            print(f"    {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}", file=sys.stderr)
        coroutine = coroutine.cr_await
    print(f"    {coroutine!r}", file=sys.stderr, flush=True)


def _end(task: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def _files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(each for each in found if not each.startswith(("socket:", "pipe:", "anon_inode:")))


@asynccontextmanager
async def _checked(scene: Scene, verb: str) -> AsyncIterator[Engine]:
    """An engine that leaves nothing behind."""
    files, tasks = _files(), asyncio.all_tasks()
    engine = scene.engine(verb)
    await engine.__aenter__()
    assert engine._parts is not None
    pool = engine._parts.context.layering.reader._buffers.pool
    yield engine
    in_use, aside = pool.in_use, pool.aside
    closing = asyncio.create_task(engine.__aexit__(None, None, None))
    await _soon(closing, "closing the engine")
    closing.result()
    for _ in range(3):
        await asyncio.sleep(0)
    running = [task for task in asyncio.all_tasks() - tasks if not task.done()]
    _demand(not running, f"tasks are left: {running}")
    if in_use or pool.in_use:
        gc.collect()
    _demand(not in_use and not aside, f"{in_use} bytes of buffers are left, {aside} set aside")
    if _files() != files:
        gc.collect()
    left = sorted((Counter(_files()) - Counter(files)).elements())
    _demand(not left, f"descriptors are left: {left}")


async def run(scene: Scene, case: Case) -> await_points.Plan:
    """One case.

    Raises:
        WrongError: it ended otherwise than it may.
    """
    verb, template = VERBS[case.verb]
    scene.renew(template)
    jobs: list[asyncio.Task[Any]] = []
    spot = (case.point, case.visit)
    if case.kind in ERRORS:
        plan = await_points.begin(spot, error=ERRORS[case.kind]())
    elif case.kind == "hang":
        plan = await_points.begin(spot, await_points.endless())
    elif case.kind == "cancel":
        plan = await_points.begin(spot, await_points.calling(lambda: jobs[0].cancel()), goes_on=True)
    else:
        plan = await_points.begin()
    async with _checked(scene, case.verb) as engine:
        with await_points.victim():
            jobs.append(asyncio.create_task(_call(verb, engine, scene)))
        # What hangs for ever may hang others who wait for the same thing: they get it when the first is cancelled.
        other = asyncio.create_task(engine.pull(scene.reference("three" if case.kind == "hang" else "two")))
        if case.kind == "hang":
            reached = asyncio.create_task(plan.reached.wait())
            await asyncio.wait([reached, jobs[0]], return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            await asyncio.wait(jobs, timeout=HANG_S)
            jobs[0].cancel()
        await _soon(jobs[0], "the verb")
        await _soon(other, "the other pull")
        if (error := _end(other)) is not None:
            raise WrongError(f"the other pull failed: {error!r}") from error
        if case.kind == "none" and (error := _end(jobs[0])) is not None:
            raise WrongError(f"the verb failed: {error!r}") from error
        again = asyncio.create_task(engine.pull(scene.reference("one")))
        await _soon(again, "a later pull")
        if (error := _end(again)) is not None:
            raise WrongError(f"a later pull failed: {error!r}") from error
        if case.verb in ("fetch", "retrying"):
            await engine.fetch([BLOB], Own())
        if template not in ("damaged", "rotten", "spoilt"):
            verification = await engine.verify()
            _demand(not verification.bad, f"bad blobs: {verification.bad}")
    return plan


async def _call(verb: Verb, engine: Engine, scene: Scene) -> None:
    await verb(engine, scene)


def _makes_sense(plan: await_points.Plan, point: str, kind: str) -> bool:
    """Whether the engine can do anything about it."""
    if kind != "cancel" and point.startswith(("aio.py:", "threads.py:")):
        return False  # they wait for what is under way: it has its own points
    if point.startswith("registry/auth/helper_process.py:") and kind in ("OSError", "TimeoutError"):
        return False  # so a helper fails, and all who wait for its answer learn that
    if kind == "hang":
        # Nothing ends a thread; cleanup is waited for; and what waits for the network has its deadlines
        # (tests/registry/http/test_deadlines.py, tests/containerd/rpc), and so has who waits for such a one.
        own = not point.startswith(("thread:", "registry/http/", "registry/auth/", "containerd/"))
        return own and point not in plan.cleanups | plan.on_threads
    return kind != "cancel" or not point.startswith("thread:")


async def cases(scene: Scene, words: list[str]) -> tuple[list[Case], set[str]]:
    """All cases, and the points that the verbs reach."""
    found: list[Case] = []
    reached: set[str] = set()
    for verb in VERBS:
        plan = await run(scene, Case(verb, "", -1, "none"))
        reached |= plan.visits.keys() | plan.delegated
        for point, count in sorted(plan.visits.items()):
            for visit in sorted({0, 1, count // 2, count - 1} & set(range(count))):
                kinds = [kind for kind in KINDS if _makes_sense(plan, point, kind)]
                found += [Case(verb, point, visit, kind) for kind in kinds]
    return [case for case in found if all(word in str(case).split(" ") for word in words)], reached


async def main(directory: Path, seed: int, count: int, words: list[str]) -> None:
    await_points.install_on_threads()
    points = set(await_points.all_points())
    wrong = done = hits = 0
    with scene_in(directory) as scene:
        os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"
        await scene.prepare()
        chosen, reached = await cases(scene, words)
        total = len(chosen)
        if count:
            chosen = random.Random(seed).sample(chosen, min(count, total))
        for case in chosen:
            try:
                hits += (await run(scene, case)).hit
            except Exception as error:
                wrong += 1
                print(json.dumps({"case": str(case), "wrong": str(error)}), flush=True)
                traceback.print_exc()
            done += 1
    missed = sorted(points - reached)
    print(json.dumps({"cases": done, "of": total, "hits": hits, "reached": len(reached), "missed": missed}), flush=True)
    sys.stderr.flush()
    os._exit(int(wrong > 0))  # what has no end must not be waited for


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # coroutines in place of which something was injected were never awaited
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
