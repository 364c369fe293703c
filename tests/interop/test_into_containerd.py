"""Images into a containerd that runs, Debian's and each newer one on PATH: it has them, and fetches nothing again.

Covers: containerd/client.py, containerd/content.py, containerd/images.py, containerd/namespaces.py,
containerd/rpc/peer.py, jobs/containerd.py, jobs/containerd_images.py, jobs/destination.py, jobs/outputs.py,
jobs/prefetch_running.py, cli/containerd_options.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import fastoci
from conftest import Cli
from fastoci import Containerd, Engine, Into, PrefetchRequest, RegistryOptions, WantedState
from fastoci.cli.formatting import size
from fastoci.containerd import labels, methods
from fastoci.containerd.client import Client
from fastoci.containerd.ingest import PIECE, Ingest
from fastoci.containerd.rpc import Code, Connection
from fastoci.errors import ContainerdError, StoreFullError
from fastoci.events import BlobDone, Event, ImageRecorded, Warned
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry, serve
from support.containerd import Daemon, Wire, daemon, facts, labels_of, programs
from support.disks import disk, mounted
from support.images import image_of, made, same
from support.other_user import other_user
from support.scratch import scratch

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containerd"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LARGE = 3_000_000
APP = image_of(made(1, files=2, size=50_000), made(2, files=2, size=LARGE))
OTHER = image_of(made(1, files=2, size=50_000), made(3, files=1, size=40_000))
ARM = Image.build([Layer.build(made(4, files=1, size=30_000), "zstd")], platform=Platform("linux", "arm64"))
S390 = Image.build([Layer.build(made(5, files=1, size=30_000), "gzip")], platform=Platform("linux", "s390x"))
MANY = Index.build((APP, ARM, S390))
PROGRAMS = programs()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", APP)
        registry.add_image("team/other", "1", OTHER)
        registry.add_image("many", "1", MANY)
        yield registry


@pytest.fixture(scope="module", params=range(max(1, len(PROGRAMS))), ids=lambda number: f"containerd{number}")
def running(request: pytest.FixtureRequest, peer: Callable[[str], str]) -> Iterator[Daemon]:
    pair = PROGRAMS[request.param] if PROGRAMS else (peer("containerd"), peer("ctr"))
    with scratch("c") as home, daemon(home, *pair) as started:
        yield started


@pytest.fixture
def place(running: Daemon) -> Iterator[Path]:
    with scratch("into") as place:
        assert place.stat().st_dev == running.home.stat().st_dev
        yield place


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """One for each test."""
    return f"n{abs(hash(request.node.name)) % 10**9}"


class Pulls:
    """Pulls into a daemon's namespace, and what was told of them."""

    def __init__(self, store: Path, registry: Registry, into: Into) -> None:
        self.store, self.registry, self.into = store, registry, into
        self.events: list[Event] = []

    def __call__(self, name: str = "app:1", **options: Any) -> fastoci.Image:
        async def pull() -> fastoci.Image:
            async with self.engine() as engine:
                return await engine.pull(self.name(name), into=self.into, **options)

        return asyncio.run(pull())

    def name(self, name: str) -> str:
        return f"{self.registry.address}/{name}"

    def engine(self, observer: Callable[[Event], object] | None = None) -> Engine:
        def observe(event: Event) -> None:
            self.events.append(event)
            if observer is not None:
                observer(event)

        return Engine(self.store, registry=RegistryOptions(tls_verify=False), observer=observe)

    def run(self, work: Callable[[Engine], Coroutine[Any, Any, Any]]) -> Any:
        async def job() -> Any:
            async with self.engine() as engine:
                return await work(engine)

        return asyncio.run(job())

    @property
    def recorded(self) -> ImageRecorded:
        return next(event for event in reversed(self.events) if isinstance(event, ImageRecorded))

    @property
    def warnings(self) -> str:
        return "\n".join(event.message for event in self.events if isinstance(event, Warned))


@pytest.fixture
def pulls(place: Path, registry: Registry, running: Daemon, namespace: str) -> Iterator[Pulls]:
    into = Into(namespace=namespace, address=str(running.socket), unpack=False)
    yield Pulls(place / "store", registry, into)
    running.clear(namespace)  # or other namespaces have its blobs


def fetched(registry: Registry, since: int) -> list[str]:
    """The blobs that were asked for."""
    return [record.path for record in registry.log[since:] if "/blobs/" in record.path and record.method == "GET"]


def test_a_plan_leaves_out_the_layers_that_containerd_has(
    pulls: Pulls, registry: Registry, running: Daemon, namespace: str, cli: Cli
) -> None:
    running.pull(pulls.name("app:1"), namespace)
    there: list[str | Path] = ["--into", f"containerd:{namespace}", "--containerd-address", running.socket]
    here: list[str | Path] = ["--store", pulls.store, "--tls-verify=false", *there]
    before = len(registry.log)
    planned = cli("prefetch", "--dry-run", "--format", "json", pulls.name("app:1"), *here)
    shown = cli("pull", "--dry-run", pulls.name("app:1"), *here)
    assert (planned.returncode, shown.returncode) == (0, 0), planned.stderr + shown.stderr
    assert [each["digest"] for each in json.loads(planned.stdout)["missing"]] == [str(Digest.of(APP.config))]
    assert shown.stdout.splitlines()[1].split("  ")[-2].strip() == size(len(APP.config))
    assert fetched(registry, before) == []


def digests(image: Image) -> set[str]:
    return {descriptor.digest.hex for descriptor, _ in image.blobs()} | {image.descriptor.digest.hex}


def leases(running: Daemon, namespace: str) -> set[str]:
    return running.names(namespace, "leases")


def check(running: Daemon, namespace: str) -> str:
    lines = running.run("images", "check", "--snapshotter", "native", namespace=namespace).splitlines()
    return next((line for line in lines if line.startswith("127.0.0.1")), "")


def test_a_pull_shares_the_files_sends_no_blob_and_a_pull_of_containerds_own_fetches_none(
    pulls: Pulls, running: Daemon, registry: Registry, namespace: str, place: Path
) -> None:
    with Wire(place / "wire", running.socket) as wire:
        pulls.into = Into(namespace=namespace, address=str(wire.path), unpack=False)
        pulls()
    assert wire.sent < 30_000 < LARGE
    for hexadecimal in digests(APP):
        mine, there = (path / hexadecimal for path in (pulls.store / "blobs/sha256", running.blobs))
        assert mine.stat().st_ino == there.stat().st_ino
        assert mine.stat().st_mode & 0o777 == 0o444
    assert pulls.recorded.blobs == {"link": 4}
    assert (pulls.recorded.sent, pulls.recorded.why) == (0, "")
    assert "complete (3/3)" in check(running, namespace)
    assert leases(running, namespace) == set()
    since = len(registry.log)
    running.pull(pulls.name("app:1"), namespace)
    assert fetched(registry, since) == []
    assert "true" in check(running, namespace)  # unpacked


def test_blobs_have_the_labels_that_keep_them_and_say_where_they_are_from(
    pulls: Pulls, running: Daemon, namespace: str
) -> None:
    pulls()
    pulls("team/other:1")
    listed = running.run("content", "ls", namespace=namespace)
    shared, config = APP.layers[0].descriptor.digest, "containerd.io/gc.ref.content.config"
    assert labels_of(listed, str(shared)) == {"containerd.io/distribution.source.127.0.0.1": "app"} | {}
    manifest = labels_of(listed, str(APP.descriptor.digest))
    assert manifest[config] in {str(descriptor.digest) for descriptor, _ in APP.blobs()}
    assert [manifest[f"containerd.io/gc.ref.content.l.{number}"] for number in range(2)] == [
        str(layer.descriptor.digest) for layer in APP.layers
    ]


def test_an_index_is_there_with_the_platforms_that_were_asked_for(
    pulls: Pulls, running: Daemon, namespace: str
) -> None:
    platforms = ["linux/amd64", "linux/arm64"]
    pulls.run(lambda engine: engine.pull_platforms(pulls.name("many:1"), platforms, into=pulls.into))
    top = labels_of(running.run("content", "ls", namespace=namespace), str(MANY.descriptor.digest))
    assert [top.get(f"containerd.io/gc.ref.content.m.{number}") for number in range(3)] == [
        str(APP.descriptor.digest),
        str(ARM.descriptor.digest),
        None,
    ]
    assert "complete (3/3)" in check(running, namespace)
    assert not (running.blobs / S390.layers[0].descriptor.digest.hex).exists()


def test_for_kubernetes_the_image_has_a_name_by_its_digest_and_a_pin(pulls: Pulls, running: Daemon) -> None:
    pulls.into = Into(namespace="k8s.io", address=str(running.socket), unpack=False, pin=True)
    pulls()
    name = pulls.name("app:1")
    by_digest = f"{pulls.name('app')}@{APP.descriptor.digest}"
    assert running.names("k8s.io") == {name, by_digest}
    assert running.run("images", "ls", namespace="k8s.io").count("io.cri-containerd.pinned=pinned") == 2

    async def look() -> None:
        async with Containerd(pulls.into) as there:
            assert [(image.pinned, image.is_whole) for image in await there.images()] == [(True, True)] * 2
            assert await there.remove(name) == (name, by_digest)
            assert await there.images() == ()

    asyncio.run(look())


def test_the_kubelet_has_the_image_and_fetches_nothing(place: Path, registry: Registry, running: Daemon) -> None:
    with scratch("k") as home, daemon(home, running._program, running._ctr, cri=True) as node:
        pulls = Pulls(place / "store", registry, Into(namespace="k8s.io", address=str(node.socket), unpack=False))
        pulls()
        since, name = len(registry.log), pulls.name("app:1").encode()

        async def ask() -> tuple[bytes, bytes]:
            spec = b"\n" + bytes([len(name) + 2]) + b"\n" + bytes([len(name)]) + name  # ImageSpec, as the first field
            async with await Connection.open(str(node.socket)) as kubelet:
                pulled = await kubelet.call("/runtime.v1.ImageService/PullImage", spec)
                return pulled, await kubelet.call("/runtime.v1.ImageService/ImageStatus", spec)

        pulled, status = asyncio.run(ask())
        config = next(descriptor.digest for descriptor, _ in APP.blobs() if "config" in descriptor.media_type)
        assert str(config).encode() in pulled
        assert f"{pulls.name('app')}@{APP.descriptor.digest}".encode() in status
        assert fetched(registry, since) == []


def test_a_tag_that_moved_takes_its_pin_along(pulls: Pulls, running: Daemon, registry: Registry) -> None:
    pulls.into = Into(namespace="k8s.io", address=str(running.socket), unpack=False, pin=True)
    registry.add_image("moved", "1", APP)
    pulls("moved:1")
    registry.add_image("moved", "1", OTHER)
    pulls("moved:1")

    async def look() -> dict[str, bool]:
        async with Containerd(pulls.into) as there:
            return {image.digest: image.pinned for image in await there.images()}

    assert asyncio.run(look()) == {str(APP.descriptor.digest): False, str(OTHER.descriptor.digest): True}
    running.clear("k8s.io")


def test_the_kubelet_may_take_labels_away_and_the_list_still_knows_what_it_brought(
    pulls: Pulls, running: Daemon
) -> None:
    pulls.into = Into(namespace="k8s.io", address=str(running.socket), unpack=False)
    state = WantedState(list_name="node", prune=True, allow_empty=True)
    app, other = pulls.name("app:1"), pulls.name("team/other:1")

    def prefetch(*names: str) -> Any:
        requests = [PrefetchRequest(name, pinned=True) for name in names]
        return pulls.run(lambda engine: engine.prefetch(requests, state, into=pulls.into))

    prefetch(app, other)
    for name in (app, other):
        running.run("images", "label", name, "fastoci.list/node=", "io.cri-containerd.pinned=", namespace="k8s.io")
    assert prefetch(app).pruned.in_containerd == (f"{pulls.name('team/other')}@{OTHER.descriptor.digest}",)
    assert set(prefetch().pruned.in_containerd) == {app, f"{pulls.name('app')}@{APP.descriptor.digest}"}
    running.clear("k8s.io")


def test_a_blob_that_containerd_is_fetching_is_recorded_and_found_so_at_its_end(
    pulls: Pulls, running: Daemon, namespace: str
) -> None:
    layer = APP.layers[0]

    async def read(offset: int) -> bytes:
        return bytes(layer.content)[offset : offset + PIECE]

    async def fetch_beside(engine: Engine) -> int:
        """As containerd's own client is at the layer while the job runs."""
        async with (
            Client.open(str(running.socket), namespace) as client,
            client.lease(),
            await client.stream(methods.CONTENT_WRITE) as stream,
        ):
            theirs = Ingest(stream, layer.descriptor, labels.ref(layer.descriptor))
            assert await theirs.begin() == 0
            await engine.pull(pulls.name("app:1"), into=pulls.into)
            with pytest.raises(ContainerdError) as caught:
                await theirs.send(0, read)
                await theirs.commit({})
            return caught.value.code

    assert pulls.run(fetch_beside) == Code.ALREADY_EXISTS
    assert pulls.recorded.blobs == {"link": 4}


def test_a_namespace_that_is_not_there_is_made_and_told_of(pulls: Pulls, running: Daemon, namespace: str) -> None:
    pulls()
    assert f"no namespace {namespace} yet" in pulls.warnings
    assert namespace in running.run("namespaces", "ls", "-q").split()
    pulls.events.clear()
    pulls()
    assert pulls.warnings == ""
    assert pulls.recorded.blobs == {"present": 4}


def test_what_containerd_has_is_not_fetched_and_can_be_read_in_the_same_job(
    pulls: Pulls, running: Daemon, registry: Registry, namespace: str, place: Path
) -> None:
    running.pull(pulls.name("app:1"), namespace)
    since = len(registry.log)
    pulls(rootfs=place / "tree")
    config = next(descriptor.digest for descriptor, _ in APP.blobs() if "config" in descriptor.media_type)
    assert {path.rpartition("/")[2] for path in fetched(registry, since)} <= {str(config)}
    assert same(place / "tree", made(1, files=2, size=50_000), made(2, files=2, size=LARGE))
    assert pulls.recorded.blobs == {"present": 4}
    assert not (pulls.store / "blobs/sha256" / APP.layers[1].descriptor.digest.hex).exists()


def test_an_image_of_the_store_goes_into_containerd_offline(pulls: Pulls, running: Daemon, namespace: str) -> None:
    into, pulls.into = pulls.into, None  # type: ignore[assignment]
    pulls()
    pulls.into = into
    pulls(policy="never")
    assert "complete (3/3)" in check(running, namespace)


def test_a_policy_that_isolates_namespaces_gets_the_bytes_and_that_is_said(
    place: Path, registry: Registry, running: Daemon
) -> None:
    with scratch("i") as home, daemon(home, running._program, running._ctr, policy="isolated") as isolated:
        pulls = Pulls(place / "store", registry, Into(address=str(isolated.socket), unpack=False))
        pulls()
        assert pulls.recorded.blobs == {"sent": 4}
        assert pulls.recorded.sent > LARGE
        assert "isolates" in pulls.warnings
        assert "complete (3/3)" in check(isolated, "default")


def test_another_file_system_gets_a_copy_and_that_is_said(place: Path, registry: Registry, running: Daemon) -> None:
    with scratch("x") as home:
        (home / "root").mkdir()
        with mounted(home / "root", "-t", "tmpfs", "tmpfs"), daemon(home, running._program, running._ctr) as other:
            pulls = Pulls(place / "store", registry, Into(address=str(other.socket), unpack=False))
            pulls()
            assert pulls.recorded.blobs == {"copy": 4}
            assert "another file system" in pulls.recorded.why
            assert "complete (3/3)" in check(other, "default")


def test_a_file_that_another_user_could_change_is_linked_by_reference(
    registry: Registry, running: Daemon, place: Path
) -> None:
    with disk(place, "xfs", 400 << 20) as top:
        (top / "c").mkdir()
        with scratch("r") as home:
            (home / "root").symlink_to(top / "c")
            with daemon(home, running._program, running._ctr) as other:
                into = Into(address=str(other.socket), unpack=False)
                pulls = Pulls(top / "store", registry, into)
                pulls.into = None  # type: ignore[assignment]
                pulls()
                for blob in (top / "store/blobs/sha256").iterdir():
                    os.chown(blob, 12345, 12345)
                pulls.into = into
                pulls(policy="never")
                assert pulls.recorded.blobs == {"reflink": 4}
                assert "belongs to user 12345" in pulls.recorded.why


def test_a_full_disk_is_an_error_and_nothing_leads_to_half_an_image(
    place: Path, registry: Registry, running: Daemon
) -> None:
    with scratch("f") as home:
        (home / "root/io.containerd.content.v1.content").mkdir(parents=True)
        content = mounted(
            home / "root/io.containerd.content.v1.content", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"
        )
        with content, daemon(home, running._program, running._ctr) as small:
            pulls = Pulls(place / "store", registry, Into(address=str(small.socket), unpack=False))
            with pytest.raises(StoreFullError):
                pulls()
            assert small.names("default") == set()
            assert leases(small, "default") == set()
    assert (place / "store/blobs/sha256" / APP.layers[1].descriptor.digest.hex).exists()


def test_a_root_that_is_read_only_is_containerds_error(place: Path, registry: Registry, running: Daemon) -> None:
    with scratch("o") as home:
        content = home / "root/io.containerd.content.v1.content"
        content.mkdir(parents=True)
        with (
            mounted(content, "-t", "tmpfs", "-o", "mode=700", "tmpfs"),
            daemon(home, running._program, running._ctr) as frozen,
        ):
            os.system(f"mount -o remount,ro {content}")
            pulls = Pulls(place / "store", registry, Into(address=str(frozen.socket), unpack=False))
            with pytest.raises(ContainerdError, match="read-only file system"):
                pulls()
            assert frozen.names("default") == set()
            assert leases(frozen, "default") == set()
            os.system(f"mount -o remount,rw {content}")
            pulls()
            assert "complete (3/3)" in check(frozen, "default")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked", "killed"])
def test_a_containerd_that_restarts_meanwhile_is_waited_for(
    pulls: Pulls, running: Daemon, namespace: str, number: int
) -> None:
    restarting: list[threading.Thread] = []

    def restart() -> None:
        running.stop(number)
        running.start()

    def observe(event: Event) -> None:
        if isinstance(event, BlobDone) and not restarting:
            restarting.append(threading.Thread(target=restart))
            restarting[0].start()

    async def pull() -> None:
        async with pulls.engine(observe) as engine:
            await engine.pull(pulls.name("app:1"), into=pulls.into)

    asyncio.run(pull())
    restarting[0].join()
    assert "complete (3/3)" in check(running, namespace)
    assert leases(running, namespace) == set()


def test_a_containerd_that_does_not_come_back_is_an_error(running: Daemon, namespace: str) -> None:
    async def ask() -> None:
        async with Client.open(str(running.socket), namespace, away_s=0.2) as client:
            running.stop()
            with pytest.raises(ContainerdError, match="is containerd running"):
                await client.namespaces()
            running.start()
            assert namespace not in await client.namespaces()

    asyncio.run(ask())


def test_who_is_not_root_is_told_so(running: Daemon, registry: Registry) -> None:
    with other_user(with_ids=False) as user:
        running.home.chmod(0o711)
        said = user.fastoci(
            *("pull", f"{registry.address}/app:1", "--into", "containerd", "--tls-verify=false"),
            *("--store", user.place / "store", "--containerd-address", running.socket),
            code=10,
        )
        assert "this user may not connect" in said


def test_nobody_at_the_address_is_an_error_before_anything_is_fetched(
    pulls: Pulls, registry: Registry, place: Path
) -> None:
    pulls.into = Into(address=str(place / "none"), unpack=False)
    since = len(registry.log)
    with pytest.raises(ContainerdError, match="is containerd running"):
        pulls()
    assert registry.log[since:] == []


def test_a_list_prunes_there_what_it_brought_and_nothing_else(pulls: Pulls, running: Daemon, namespace: str) -> None:
    app, other, many = (pulls.name(name) for name in ("app:1", "team/other:1", "many:1"))
    running.pull(many, namespace)

    def prefetch(*names: str, pinned: bool = False) -> Any:
        requests = [PrefetchRequest(name, pinned=pinned) for name in names]
        state = WantedState(list_name="node", prune=True)
        return pulls.run(lambda engine: engine.prefetch(requests, state, into=pulls.into))

    first = prefetch(app, other, many, pinned=True)
    assert [image.recorded.namespace for image in first.images] == [namespace] * 3
    assert running.names(namespace) == {app, other, many}
    second = prefetch(app)
    assert second.pruned.in_containerd == (other,)
    assert running.names(namespace) == {app, many}
    listed = running.run("images", "ls", namespace=namespace)
    assert "pinned" not in listed
    assert listed.count("fastoci.list/node") == 1


def test_ls_and_rm_look_into_containerd(pulls: Pulls, running: Daemon, namespace: str, cli: Cli) -> None:
    pulls()
    where = ("--in", f"containerd:{namespace}", "--containerd-address", f"unix://{running.socket}")
    listed = facts(cli("ls", *where, "--format", "json").stdout)
    size = sum(descriptor.size for descriptor, _ in APP.blobs()) + APP.descriptor.size
    (image,) = listed["images"]  # type: ignore[misc]
    assert (image["name"], image["size"], image["whole"]) == (pulls.name("app:1"), size, True)  # type: ignore[has-type]
    assert "whole" in cli("ls", *where).stdout
    assert cli("ls", *where, "-q").stdout == f"{pulls.name('app:1')}\n"
    running.run("images", "label", pulls.name("app:1"), "io.cri-containerd.pinned=pinned", namespace=namespace)
    assert "this image is pinned" in cli("rm", pulls.name("app:1"), *where).stderr
    assert cli("rm", "--yes", pulls.name("app:1"), *where).returncode == 0
    assert cli("ls", *where, "-q").stdout == ""
    gone = cli("rm", pulls.name("app:1"), *where)
    assert (gone.returncode, "containerd has no image" in gone.stderr) == (10, True)
    nowhere = cli("ls", "--in", "containerd:typo", "--containerd-address", running.socket)
    assert (nowhere.returncode, namespace in nowhere.stderr) == (10, True)


def test_the_program_finds_containerd_by_the_variables_of_ctr(
    pulls: Pulls, running: Daemon, namespace: str, cli: Cli, place: Path
) -> None:
    environ = {**os.environ, "CONTAINERD_ADDRESS": str(running.socket), "CONTAINERD_NAMESPACE": namespace}
    pull = ("pull", pulls.name("app:1"), "--tls-verify=false", "--store", place / "store")
    done = cli(*pull, "--into", "containerd", "--no-unpack", "--pin", "--progress", "log", environ=environ)
    assert done.returncode == 0, done.stderr
    assert f"4 blobs in containerd ({namespace}): 4 linked" in done.stderr
    assert "io.cri-containerd.pinned=pinned" in running.run("images", "ls", namespace=namespace)
    assert "pinned" in cli("ls", "--store", place / "store").stdout


def test_a_pull_that_is_cancelled_leaves_no_lease_and_no_name(pulls: Pulls, running: Daemon, namespace: str) -> None:
    async def pull() -> None:
        task: asyncio.Task[object]

        def observe(event: Event) -> None:
            if isinstance(event, BlobDone):
                task.cancel()

        async with pulls.engine(observe) as engine:
            task = asyncio.create_task(engine.pull(pulls.name("app:1"), into=pulls.into))
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(pull())
    assert leases(running, namespace) == set()
    assert running.names(namespace) == set()
