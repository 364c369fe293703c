"""What is called while an await goes wrong: every verb of the engine, on stores and a registry of its own.

Spec: ``hang_cases``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from fastoci import (
    Engine,
    Layers,
    PrefetchRequest,
    RetryingSource,
    RetryPolicy,
    WantedState,
    access,
    apply,
    logged_in,
    login,
    logout,
)
from fastoci.errors import StoreFullError, TruncatedError
from fastoci.events import BlobWaiting, Event
from fastoci.image.descriptor import Descriptor
from fastoci.image.platform import Platform
from fastoci.interfaces import BufferSource
from fastoci.limits import Limits
from fastoci.registry.options import RegistryOptions
from fastoci.server.http import Request
from fastoci.server.pull_api import Answer, refusal
from fastoci.store.gc.retention import Retention
from fastoci.store.store import Store
from fastoci.testing.auth import Bearer, Cdn
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Layer, from_seed
from fastoci.testing.registry import Registry, serve
from fastoci.testing.uploads import Uploads
from fastoci.transfer.scheduler import BytesSource
from fastoci.trust.policy import TrustPolicy
from support import await_points
from support.signing import Signer, policy, sign, signed

HANG_S: Final = 0.05  # before what hangs is cancelled
WAIT_S: Final = 2.0  # before another lets go of what it has, when nobody waits for it by then
DATA: Final = random.Random(7).randbytes(1_500_000)
BLOB: Final = Descriptor.of(DATA, "application/octet-stream")
USER, PASSWORD = "me", "hunter2"


def _layer(seed: int, size: int, kind: Any) -> Layer:
    return Layer.build(from_seed(seed, files=4, size=size, compressibility=0.1, at=f"layer{seed}"), kind)


_HELPER = f"""#!/bin/sh
cat > /dev/null
echo '{{"ServerURL": "x", "Username": "{USER}", "Secret": "{PASSWORD}"}}'
"""
_CONF = """
[[registry]]
location = "{address}"
insecure = true
[[registry.mirror]]
location = "127.0.0.1:1"
insecure = true
"""


class Own:
    """A source of one's own, which may break off the first time."""

    name = "own"

    def __init__(self, *, breaks: bool = False) -> None:
        self._breaks = breaks

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Any, None]:
        async for buffer in BytesSource(DATA).fetch(blob, offset, buffers):
            yield buffer
            if self._breaks:
                self._breaks = False
                raise TruncatedError("it broke off", url="own")


class Rocky(Registry):
    """A registry that refuses the first request for each thing; a token of it is good for a few requests."""

    def __init__(self) -> None:
        super().__init__(Bearer(USER, PASSWORD, uses=3))
        self.asked: set[str] = set()

    async def answer(self, request: Request, host: str) -> Answer:
        """What it says to a request."""
        answer = await super().answer(request, host)
        if answer.status == 200 and request.path not in self.asked and request.path != "/token":
            self.asked.add(request.path)
            return refusal(503, "UNAVAILABLE", "later")
        return answer


class Scene:
    """Registries, stores to begin with, and where a case may write."""

    def __init__(self, directory: Path, address: str, rocky: Rocky, images: dict[str, Image]) -> None:
        self.directory = directory
        self.address = address
        self.rocky = rocky
        self.images = images
        self.work = directory / "work"
        self.signer = Signer()
        self.layers: list[Path] = []
        self.waiting = asyncio.Event()
        self.pushes = 0

    def reference(self, name: str) -> str:
        return f"{self.address}/{name}:latest"

    def observe(self, event: Event) -> None:
        if isinstance(event, BlobWaiting):
            self.waiting.set()

    def options(self, verb: str) -> RegistryOptions:
        """How registries are asked: by credentials as they are, by a helper that has them, past a dead mirror."""
        if verb == "helper":
            return RegistryOptions(authfile=self.directory / "auth.json")
        conf = self.directory / "registries.conf" if verb == "mirror" else None
        return RegistryOptions(creds=(USER, PASSWORD), registries_conf=conf)

    def engine(self, verb: str = "") -> Engine:
        limits = Limits(memory=24 << 20, workers=2, connections=4, connect_s=5.0, read_s=5.0, holder_s=5.0)
        options, trust = self.options(verb), self.policy() if verb == "signed" else None
        return Engine(self.work / "store", limits=limits, registry=options, observer=self.observe, trust=trust)

    def policy(self) -> TrustPolicy:
        """One that demands a signature of each image."""
        key = self.signer.write(self.directory / "cosign.pub")
        return TrustPolicy.parse(policy(self.address, signed(key)))

    def renew(self, template: str) -> None:
        """An empty place to work in, with a store as it was left, and registries as they were."""
        self.waiting.clear()
        self.rocky.asked.clear()
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        if template:
            shutil.copytree(self.directory / template, self.work / "store")

    async def prepare(self) -> None:
        """Make the stores to begin with, one with an image, and one where that is damaged; and a helper's program."""
        program = self.directory / "docker-credential-hang"
        program.write_text(_HELPER)
        program.chmod(0o700)
        (self.directory / "auth.json").write_text(json.dumps({"credHelpers": {self.address: "hang"}}))
        (self.directory / "registries.conf").write_text(_CONF.format(address=self.address))
        self.renew("")
        async with self.engine() as engine:
            await engine.pull(self.reference("one"))
        shutil.copytree(self.work / "store", self.directory / "full")
        shutil.copytree(self.work / "store", self.directory / "damaged")
        for layer in self.images["one"].layers:
            _damage(self.directory / "damaged" / "blobs" / "sha256" / layer.descriptor.digest.hex)
            self.layers.append(self.directory / layer.descriptor.digest.hex)
            self.layers[-1].write_bytes(
                layer.content if isinstance(layer.content, bytes) else layer.content.read_bytes()
            )

        shutil.copytree(self.directory / "full", self.directory / "rotten")
        for path in (self.directory / "rotten" / "blobs" / "sha256").iterdir():
            _damage(path)
        await self._prepare_layers()

    async def _prepare_layers(self) -> None:
        """Make a store with layer files and without the blobs of layers, and one where they are damaged."""
        self.renew("full")
        async with self.engine() as engine:
            await engine.pull(self.reference("one"), layers=Layers("erofs", only=True))
        shutil.copytree(self.work / "store", self.directory / "layered")
        shutil.copytree(self.work / "store", self.directory / "spoilt")
        for path in (self.directory / "spoilt" / "layers").rglob("*.erofs"):
            _damage(path)


def _damage(blob: Path) -> None:
    size = blob.stat().st_size
    blob.chmod(0o600)
    blob.write_bytes(bytes(size))


Verb = Callable[[Engine, Scene], Awaitable[None]]


async def _pull(engine: Engine, scene: Scene) -> None:
    await engine.pull(scene.reference("one"))


async def _prefetch(engine: Engine, scene: Scene) -> None:
    wanted = [
        PrefetchRequest(scene.reference(name), rootfs=str(scene.work / f"of-{name}")) for name in ("one", "three")
    ]
    await engine.plan_prefetch(wanted)
    await engine.prefetch([*wanted, PrefetchRequest(scene.reference("absent"))])


async def _offline(engine: Engine, scene: Scene) -> None:
    await engine.pull(scene.reference("one"), policy="never", rootfs=scene.work / "root")


async def _rocky(engine: Engine, scene: Scene) -> None:
    await engine.pull(f"{scene.rocky.address}/three:latest")


async def _large(engine: Engine, scene: Scene) -> None:
    await engine.pull(scene.reference("large"))


async def _retrying(engine: Engine, scene: Scene) -> None:
    await engine.fetch([BLOB], RetryingSource(Own(breaks=True), RetryPolicy(first_s=0.001)))


async def _busy(engine: Engine, scene: Scene) -> None:
    """A pull of what another process has, which lets go of it after a while."""
    with await_points.victim(False):
        other = Store.at(scene.work / "store")
        ingest = await other.blobs.begin(scene.images["one"].layers[0].descriptor)
        assert ingest is not None
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(engine.pull(scene.reference("one")))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await scene.waiting.wait()
            with await_points.victim(False):
                await ingest.abort()
    finally:
        with await_points.victim(False):
            await ingest.abort()
            other.close()


async def _rootfs(engine: Engine, scene: Scene) -> None:
    await engine.pull(scene.reference("one"), rootfs=scene.work / "root")


async def _fetch(engine: Engine, scene: Scene) -> None:
    await engine.fetch([BLOB], Own())


async def _unpack(engine: Engine, scene: Scene) -> None:
    await (await engine.image(scene.reference("one"))).unpack(scene.work / "root")


async def _export(engine: Engine, scene: Scene) -> None:
    await engine.export(scene.work / "layout", [scene.reference("one")])


async def _export_one(engine: Engine, scene: Scene) -> None:
    await (await engine.image(scene.reference("one"))).export(scene.work / "layout")


async def _verify(engine: Engine, scene: Scene) -> None:
    await engine.verify()


async def _verify_one(engine: Engine, scene: Scene) -> None:
    await engine.verify([scene.reference("one")])


async def _repair(engine: Engine, scene: Scene) -> None:
    await engine.repair([scene.reference("one")])


async def _gc(engine: Engine, scene: Scene) -> None:
    await engine.gc(await engine.plan_gc(Retention(max_count=0)))
    await engine.gc()


async def _usage(engine: Engine, scene: Scene) -> None:
    await engine.usage()
    await engine.images()


async def _names(engine: Engine, scene: Scene) -> None:
    reference = scene.reference("one")
    await engine.pin(reference)
    await engine.pin(reference, False)
    await engine.remove(reference)


async def _ask(engine: Engine, scene: Scene) -> None:
    await engine.resolve(scene.reference("one"))
    with contextlib.suppress(Exception):  # the registry has no such list
        await engine.tags(f"{scene.address}/one")


async def _platforms(engine: Engine, scene: Scene) -> None:
    await engine.platforms(scene.reference("one"))
    await engine.pull_platforms(scene.reference("one"), ["all"])


async def _blobs(engine: Engine, scene: Scene) -> None:
    image = scene.images["one"]
    async with engine.hold([image.descriptor.digest]):
        data = await engine.read(image.descriptor.digest)
        os.close(await engine.open(image.descriptor.digest))
        await engine.path(image.descriptor.digest)
        await engine.record("localhost/mine:latest", data)


async def _mend(engine: Engine, scene: Scene) -> None:
    await engine.pull(scene.reference("one"), rootfs=scene.work / "root")


async def _apply(engine: Engine, scene: Scene) -> None:
    (scene.work / "applied").mkdir()
    await apply(scene.work / "applied", scene.layers)


async def _login(engine: Engine, scene: Scene) -> None:
    file = scene.work / "auth.json"
    await login(scene.address, USER, PASSWORD, authfile=file)
    await logged_in(scene.address, authfile=file)
    await access(scene.reference("one"), RegistryOptions(authfile=file))
    await logout(scene.address, authfile=file)


async def _layers_only(engine: Engine, scene: Scene) -> None:
    await engine.pull(scene.reference("one"), layers=Layers("erofs", only=True))


async def _layer_directories(engine: Engine, scene: Scene) -> None:
    image = await engine.pull(scene.reference("one"), layers=Layers("overlay"))
    await image.overlay_options()


async def _layers_of_blobs(engine: Engine, scene: Scene) -> None:
    image = await engine.image(scene.reference("one"))
    await image.check()
    for layers in (Layers("erofs-4k"), Layers("overlay"), Layers("rootfs")):
        await image.make_layers(layers)


async def _browse(engine: Engine, scene: Scene) -> None:
    image = await engine.image(scene.reference("one"))
    with await image.files() as files:
        name = next(entry.path for entry in files.walk() if entry.kind == "file")
    with await image.open(name) as file:
        file.read()
    with await image.tar() as tar:
        tar.read()


async def _bundle(engine: Engine, scene: Scene) -> None:
    await (await engine.image(scene.reference("one"))).bundle(scene.work / "bundle")


async def _pack(engine: Engine, scene: Scene) -> None:
    (scene.work / "tree").mkdir()
    (scene.work / "tree" / "file").write_bytes(DATA)
    await engine.pack(scene.work / "tree", "localhost/packed:1")
    await engine.pack(scene.work / "tree", "localhost/packed:2", base=scene.reference("one"), compression="zstd")


async def _publish(engine: Engine, scene: Scene) -> None:
    scene.pushes += 1
    await engine.publish(scene.reference("one"), f"{scene.address}/pushed-{scene.pushes}:1")


async def _push(engine: Engine, scene: Scene) -> None:
    scene.pushes += 1
    name = f"{scene.address}/pushed-{scene.pushes}"
    await engine.push(scene.reference("one"), f"{name}:1")
    await engine.tag(f"{name}:1", f"{name}:2")
    await engine.delete(f"{name}:1")


async def _lists(engine: Engine, scene: Scene) -> None:
    """Jobs of one list, the second of which no longer wants what the first brought, and lacks space."""
    await engine.prefetch([PrefetchRequest(scene.reference("one"))], WantedState(list_name="list"))
    with contextlib.suppress(StoreFullError):
        crowded = WantedState(list_name="list", prune=True, gc=True, keep_free=1 << 60)
        await engine.prefetch([PrefetchRequest(scene.reference("two"))], crowded)
    wanted, state = [PrefetchRequest(scene.reference("two"))], WantedState(list_name="list", prune=True, gc=True)
    await engine.plan_prefetch(wanted, state)
    await engine.prefetch(wanted, state)


async def _inspect(engine: Engine, scene: Scene) -> None:
    await engine.inspect(f"docker://{scene.reference('one')}", entries=True)
    async with engine.comparing(scene.reference("one"), f"docker://{scene.reference('three')}") as comparing:
        async for _ in comparing.files():
            pass


async def _open(engine: Engine, scene: Scene) -> None:
    async with scene.engine() as other:
        await other.images()


VERBS: Final[dict[str, tuple[Verb, str]]] = {
    "pull": (_pull, ""),
    "prefetch": (_prefetch, ""),
    "prefetch-again": (_prefetch, "full"),
    "rootfs": (_rootfs, ""),
    "mirror": (_pull, ""),
    "helper": (_pull, ""),
    "large": (_large, ""),
    "rocky": (_rocky, ""),
    "busy": (_busy, ""),
    "signed": (_pull, ""),
    "offline": (_offline, "full"),
    "retrying": (_retrying, ""),
    "fetch": (_fetch, ""),
    "unpack": (_unpack, "full"),
    "export": (_export, "full"),
    "export-one": (_export_one, "full"),
    "verify": (_verify, "full"),
    "verify-one": (_verify_one, "full"),
    "repair": (_repair, "damaged"),
    "repair-all": (_repair, "rotten"),
    "pull-all": (_pull, "rotten"),
    "mend": (_mend, "damaged"),
    "gc": (_gc, "full"),
    "usage": (_usage, "full"),
    "names": (_names, "full"),
    "ask": (_ask, ""),
    "platforms": (_platforms, ""),
    "blobs": (_blobs, "full"),
    "apply": (_apply, ""),
    "login": (_login, ""),
    "open": (_open, "full"),
    "layers-only": (_layers_only, ""),
    "layer-directories": (_layer_directories, ""),
    "layers-of-blobs": (_layers_of_blobs, "full"),
    "browse": (_browse, "full"),
    "inspect": (_inspect, "full"),
    "inspect-layers": (_inspect, "layered"),
    "browse-layers": (_browse, "layered"),
    "bundle": (_bundle, "full"),
    "pack": (_pack, "full"),
    "publish": (_publish, "full"),
    "push": (_push, "full"),
    "verify-layers": (_verify, "layered"),
    "repair-layers": (_repair, "spoilt"),
    "lists": (_lists, ""),
}


@contextlib.contextmanager
def scene_in(directory: Path) -> Iterator[Scene]:
    """Registries of images, of which each has layers of its own and two share one."""
    shared, host = _layer(1, 300_000, "gzip"), Platform.host()
    images = {
        "large": Image.build([_layer(8, 10_000_000, "none")], platform=host),
        "three": Image.build([_layer(6, 300_000, "gzip"), _layer(7, 1000, "none")], platform=host),
        "one": Image.build(
            [_layer(2, 2_500_000, "gzip"), shared, _layer(3, 600_000, "zstd"), _layer(5, 1000, "none")],
            platform=host,
            command=["/init"],
        ),
        "two": Image.build([_layer(4, 300_000, "zstd"), shared], platform=host),
    }
    other = Image.build([_layer(9, 1000, "none")], platform=Platform("linux", "riscv64"))
    (directory / "pushed").mkdir()
    registry = Registry(Bearer(USER, PASSWORD), cdn=Cdn(), uploads=Uploads(directory / "pushed"))
    rocky = Rocky()
    for name, image in images.items():
        registry.add_image(name, "latest", Index.build([other, image]) if name == "one" else image)
    rocky.add_image("three", "latest", images["three"])
    with serve(registry), serve(rocky):
        scene = Scene(directory, registry.address, rocky, images)
        for name, image in images.items():
            sign(registry, name, image.descriptor.digest, scene.signer)
        yield scene
