"""What is called while an await goes wrong: verbs that bring images into a containerd, a fake one for each call.

Spec: ``hang_cases``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fastoci import Containerd, Engine, Into, IntoPodman, PrefetchRequest
from fastoci.testing.containerd import FakeContainerd
from support.hang_scene import Scene, Verb
from support.scratch import scratch


@contextmanager
def _containerd(version: str = "2.3.4") -> Iterator[str]:
    """The socket of a fake, which answers on a thread of its own."""
    with scratch("into") as directory:
        (directory / "root").mkdir()
        socket, begun, ended = directory / "sock", threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def answer() -> None:
            async with FakeContainerd(directory / "root", version=version).serving(socket):
                begun.set()
                await ended.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=[answer()])
        thread.start()
        try:
            begun.wait(10)
            yield str(socket)
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()
            loop.close()


async def _pull(engine: Engine, scene: Scene) -> None:
    with _containerd() as address:
        await engine.pull(scene.reference("one"), into=Into(address=address, pin=True))


async def _pull_old(engine: Engine, scene: Scene) -> None:
    with _containerd("1.7.0") as address:
        await engine.pull(scene.reference("one"), into=Into(address=address))


async def _prefetch(engine: Engine, scene: Scene) -> None:
    wanted = [PrefetchRequest(scene.reference(name)) for name in ("one", "two")]
    with _containerd() as address:
        into = Into(address=address, unpack=False)
        await engine.plan_prefetch(wanted, into=into)
        await engine.prefetch(wanted, into=into)
        async with Containerd(into) as there:
            for image in await there.images():
                await there.remove(image.name)


async def _podman(engine: Engine, scene: Scene) -> None:
    await engine.pull(scene.reference("one"), into=IntoPodman())


VERBS: Final[dict[str, tuple[Verb, str]]] = {
    "into-containerd": (_pull, ""),
    "into-old-containerd": (_pull_old, "full"),
    "prefetch-into-containerd": (_prefetch, ""),
    "into-podman": (_podman, ""),
}
