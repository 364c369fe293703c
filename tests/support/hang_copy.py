"""What is called while an await goes wrong: verbs that copy images between places.

Spec: ``hang_cases``.
"""

from __future__ import annotations

from typing import Final

from fastoci import CopyOptions, Engine
from support.hang_scene import Scene, Verb

ALL: Final = CopyOptions(platforms=("all",))


async def _copy(engine: Engine, scene: Scene) -> None:
    """From a registry through all places, and to a registry."""
    work = scene.work
    scene.pushes += 1
    await engine.copy(f"docker://{scene.reference('one')}", f"oci:{work}/layout:one")
    await engine.copy(f"oci:{work}/layout:one", f"oci-archive:{work}/archive:one")
    await engine.copy(f"oci-archive:{work}/archive:one", f"dir:{work}/dir")
    await engine.copy(f"dir:{work}/dir", f"docker-archive:{work}/docker:one:1")
    await engine.copy(f"docker-archive:{work}/docker", "store:hang.test/one:1", ALL)
    await engine.copy("store:hang.test/one:1", f"docker://{scene.address}/pushed-{scene.pushes}:1")


async def _convert(engine: Engine, scene: Scene) -> None:
    """Another form, and layers compressed anew."""
    source = f"docker://{scene.reference('one')}"
    await engine.copy(source, f"dir:{scene.work}/docker", CopyOptions(form="v2s2", compress="gzip"))
    await engine.copy(source, f"oci:{scene.work}/zstd", CopyOptions(compress="zstd"))


async def _attached(engine: Engine, scene: Scene) -> None:
    """What hangs on an image, which nothing does."""
    source = f"docker://{scene.reference('one')}"
    await engine.attachments(source)
    await engine.copy(source, f"oci:{scene.work}/layout:one", CopyOptions(referrers=True, signatures=True))


VERBS: Final[dict[str, tuple[Verb, str]]] = {
    "copy": (_copy, ""),
    "copy-stored": (_copy, "full"),
    "convert": (_convert, ""),
    "attached": (_attached, ""),
}
