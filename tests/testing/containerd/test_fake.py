"""What a containerd says, the fake one and a real one alike.

Covers: testing/containerd/fake.py, testing/containerd/state.py, testing/containerd/content.py,
testing/containerd/snapshots.py, testing/containerd/records.py, testing/containerd/collect.py.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from fastoci.containerd import messages as m
from fastoci.containerd import methods
from fastoci.containerd.codec import Message
from fastoci.containerd.rpc import Code, Connection
from fastoci.errors import ContainerdError
from fastoci.testing.containerd import FakeContainerd
from support.containerd import daemon
from support.scratch import scratch

M = TypeVar("M", bound=Message)
DATA = bytes(range(256)) * 10_000
CONFIG = "application/vnd.oci.image.config.v1+json"
_NAMES = itertools.count()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Client:
    """Calls of a test in a namespace of its own. A real containerd collects whenever it likes: ``leased`` are safe."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.metadata = {"containerd-namespace": namespace}
        self.lease = ""

    @property
    def _metadata(self) -> dict[str, str]:
        return {**self.metadata, **({"containerd-lease": self.lease} if self.lease else {})}

    async def ask(self, method: str, request: Message, kind: type[M]) -> M:
        return kind.decode(await self.connection.call(method, request.encode(), self._metadata))

    async def leased(self) -> Client:
        """The same, with a lease for all that is made."""
        await self.ask(methods.LEASE_CREATE, m.CreateLeaseRequest("base"), m.LeaseResponse)
        self.lease = "base"
        return self

    async def do(self, method: str, request: Message) -> None:
        await self.ask(method, request, m.Empty)

    async def refused(self, method: str, request: Message, code: int) -> None:
        with pytest.raises(ContainerdError) as caught:
            await self.do(method, request)
        assert caught.value.code == code, caught.value

    async def each(self, method: str, request: Message, kind: type[M]) -> list[M]:
        found = []
        async with self.connection.stream(method, self._metadata) as stream:
            await stream.send(request.encode(), last=True)
            while (data := await stream.receive()) is not None:
                found.append(kind.decode(data))
        return found

    async def write(self, *requests: m.WriteRequest) -> list[m.WriteResponse]:
        """The answers to these requests, and what comes after them."""
        found = []
        async with self.connection.stream(methods.CONTENT_WRITE, self._metadata) as stream:
            for request in requests:
                await stream.send(request.encode())
                data = await stream.receive()
                assert data is not None
                found.append(m.WriteResponse.decode(data))
            stream.end()
            while (data := await stream.receive()) is not None:
                found.append(m.WriteResponse.decode(data))
        return found

    async def put(self, data: bytes, labels: Mapping[str, str] | None = None) -> str:
        """Bring a blob by its bytes."""
        digest = digest_of(data)
        request = m.WriteRequest(m.COMMIT, f"put-{digest}", len(data), digest, data=data, labels=labels or {})
        assert (await self.write(request))[0].digest == digest
        return digest

    async def collect(self) -> None:
        """Have it collect, and wait for that."""
        await self.ask(methods.LEASE_CREATE, m.CreateLeaseRequest("short"), m.LeaseResponse)
        await self.put(b"dirt")
        await self.do(methods.CONTENT_DELETE, m.NameRequest(digest_of(b"dirt")))
        await self.do(methods.LEASE_DELETE, m.DeleteLeaseRequest("short", sync=True))

    async def blobs(self) -> set[str]:
        found = await self.each(methods.CONTENT_LIST, m.FiltersRequest(), m.ListContentResponse)
        return {info.digest for part in found for info in part.info}

    async def snapshots(self) -> set[str]:
        found = await self.each(methods.SNAPSHOT_LIST, m.ListSnapshotsRequest("native"), m.ListSnapshotsResponse)
        return {info.name for part in found for info in part.info}


@pytest.fixture(scope="module")
def real(peer: Callable[[str], str]) -> Iterator[Path]:
    """A containerd, which all tests of this file share."""
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    with scratch("containerd") as home, daemon(home, peer("containerd"), peer("ctr")) as running:
        yield running.socket


@pytest.fixture(params=["fake", "containerd"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    namespace = f"n{next(_NAMES)}"
    if request.param == "fake":
        fake = FakeContainerd(tmp_path)
        async with fake.serving(tmp_path / "s"), await Connection.open(str(tmp_path / "s")) as connection:
            yield await Client(connection, namespace).leased()
    else:
        async with await Connection.open(str(request.getfixturevalue("real"))) as connection:
            yield await Client(connection, namespace).leased()


async def content_root(client: Client) -> Path:
    plugins = (await client.ask(methods.PLUGINS, m.FiltersRequest(), m.PluginsResponse)).plugins
    (root,) = (each.exports["root"] for each in plugins if each.type == "io.containerd.content.v1")
    return Path(root)


async def test_it_says_what_it_is_and_where_it_keeps_content(client: Client) -> None:
    assert (await client.ask(methods.VERSION, m.Empty(), m.Version)).version
    assert (await client.ask(methods.SERVER, m.Empty(), m.ServerResponse)).uuid
    plugins = (await client.ask(methods.PLUGINS, m.FiltersRequest(), m.PluginsResponse)).plugins
    found = {(each.type, each.id): each for each in plugins if each.init_err is None}
    assert found["io.containerd.metadata.v1", "bolt"].exports["policy"] == "shared"
    assert ("io.containerd.snapshotter.v1", "native") in found


async def test_a_blob_is_written_read_listed_and_deleted(client: Client) -> None:
    digest, middle = digest_of(DATA), 1_000_000
    request = m.WriteRequest(m.STAT, "layer-1", len(DATA), digest)
    first = m.WriteRequest(m.WRITE, "layer-1", len(DATA), digest, 0, DATA[:middle])
    second = m.WriteRequest(m.WRITE, "layer-1", len(DATA), digest, middle, DATA[middle:])
    commit = m.WriteRequest(m.COMMIT, "layer-1", len(DATA), digest, len(DATA), labels={"a": "b"})
    answers = await client.write(request, first, second, commit)
    assert [each.offset for each in answers] == [0, middle, len(DATA), len(DATA), len(DATA)], "the last comes twice"
    assert answers[1].digest == digest_of(DATA[:middle])
    info = (await client.ask(methods.CONTENT_INFO, m.NameRequest(digest), m.InfoResponse)).info
    assert info is not None
    assert (info.digest, info.size, info.labels) == (digest, len(DATA), {"a": "b"})
    for offset, size in ((0, 0), (5, 0), (7, 1_500_000), (len(DATA), 0)):
        parts = await client.each(methods.CONTENT_READ, m.ReadRequest(digest, offset, size), m.ReadResponse)
        assert b"".join(part.data for part in parts) == DATA[offset : offset + size if size else None]
    assert await client.blobs() == {digest}
    await client.do(methods.CONTENT_DELETE, m.NameRequest(digest))
    await client.refused(methods.CONTENT_INFO, m.NameRequest(digest), Code.NOT_FOUND)
    await client.refused(methods.CONTENT_DELETE, m.NameRequest(digest), Code.NOT_FOUND)


async def test_a_blob_that_is_there_exists_already(client: Client) -> None:
    digest = await client.put(b"a")
    for action in (m.STAT, m.COMMIT):
        with pytest.raises(ContainerdError) as caught:
            await client.write(m.WriteRequest(action, "again", 1, digest))
        assert caught.value.code == Code.ALREADY_EXISTS


async def test_a_write_goes_on_where_it_ended_until_it_is_aborted(client: Client) -> None:
    answers = await client.write(m.WriteRequest(m.WRITE, "r", 4, digest_of(b"abcd"), 0, b"ab"))
    assert [each.offset for each in answers] == [2, 2]
    status = (await client.ask(methods.CONTENT_STATUS, m.NameRequest("r"), m.StatusResponse)).status
    assert status is not None
    assert (status.ref, status.offset, status.total) == ("r", 2, 4)
    everything = await client.ask(methods.CONTENT_STATUSES, m.FiltersRequest(), m.ListStatusesResponse)
    assert [each.ref for each in everything.statuses] == ["r"]
    answers = await client.write(m.WriteRequest(m.STAT, "r", 4, digest_of(b"abcd")))
    assert answers[0].offset == 2
    await client.do(methods.CONTENT_ABORT, m.NameRequest("r"))
    await client.refused(methods.CONTENT_STATUS, m.NameRequest("r"), Code.NOT_FOUND)
    await client.refused(methods.CONTENT_ABORT, m.NameRequest("r"), Code.NOT_FOUND)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(m.WriteRequest(m.STAT), Code.INVALID_ARGUMENT, id="no ref"),
        pytest.param(m.WriteRequest(m.WRITE, "r", offset=5, data=b"a"), Code.OUT_OF_RANGE, id="a hole"),
        pytest.param(m.WriteRequest(m.COMMIT, "r", 5, data=b"a"), Code.FAILED_PRECONDITION, id="too short"),
        pytest.param(m.WriteRequest(m.COMMIT, "r", 1, digest_of(b"b"), data=b"a"), 9, id="other bytes"),
        pytest.param(m.WriteRequest(m.COMMIT, "r", data=b"a", labels={"k": "v" * 4096}), 3, id="a long label"),
    ],
)
async def test_a_wrong_write_is_refused(client: Client, request_: m.WriteRequest, code: int) -> None:
    with pytest.raises(ContainerdError) as caught:
        await client.write(request_)
    assert caught.value.code == code, caught.value
    assert await client.blobs() == set()


async def test_a_ref_has_one_writer_at_a_time(client: Client) -> None:
    async with client.connection.stream(methods.CONTENT_WRITE, client.metadata) as stream:
        await stream.send(m.WriteRequest(m.STAT, "r").encode())
        assert await stream.receive() is not None
        with pytest.raises(ContainerdError) as caught:
            await client.write(m.WriteRequest(m.STAT, "r"))
        assert caught.value.code == Code.UNAVAILABLE


async def test_a_file_that_was_linked_there_is_recorded_without_a_byte(client: Client) -> None:
    data = b"linked" + client.metadata["containerd-namespace"].encode()
    digest = digest_of(data)
    blobs = await content_root(client) / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest.partition(":")[2]).write_bytes(data)
    ask = m.WriteRequest(m.STAT, f"layer-{digest}", len(data), digest)
    commit = m.WriteRequest(m.COMMIT, f"layer-{digest}", len(data), digest, len(data), labels={"a": "b"})
    answers = await client.write(ask, commit)
    assert [each.offset for each in answers] == [len(data)] * 3
    info = (await client.ask(methods.CONTENT_INFO, m.NameRequest(digest), m.InfoResponse)).info
    assert info is not None
    assert (info.size, info.labels) == (len(data), {"a": "b"})


async def test_what_one_namespace_has_another_records_by_its_digest(client: Client) -> None:
    digest = await client.put(DATA)
    other = await Client(client.connection, f"{client.metadata['containerd-namespace']}-other").leased()
    await other.refused(methods.CONTENT_INFO, m.NameRequest(digest), Code.NOT_FOUND)
    answers = await other.write(m.WriteRequest(m.STAT, "r", len(DATA), digest))
    assert answers[0].offset == len(DATA)
    answers = await other.write(m.WriteRequest(m.STAT, "short", len(DATA) - 1, digest))
    assert answers[0].offset == 0, "of another size it is another blob"
    await other.write(m.WriteRequest(m.COMMIT, "r", len(DATA), digest, len(DATA)))
    assert await other.blobs() == {digest}


async def test_a_call_needs_a_namespace(client: Client) -> None:
    client.metadata, client.lease = {}, ""
    await client.refused(methods.CONTENT_INFO, m.NameRequest(digest_of(b"")), Code.FAILED_PRECONDITION)
    await client.refused(methods.LEASE_LIST, m.FiltersRequest(), Code.FAILED_PRECONDITION)


async def test_labels_are_updated_as_the_mask_says(client: Client) -> None:
    digest = await client.put(b"a", {"keep": "1", "change": "1", "drop": "1"})

    async def updated(labels: dict[str, str], *paths: str) -> Mapping[str, str]:
        request = m.UpdateContentRequest(m.ContentInfo(digest, labels=labels), m.FieldMask(paths) if paths else None)
        info = (await client.ask(methods.CONTENT_UPDATE, request, m.InfoResponse)).info
        assert info is not None
        return info.labels

    given = {"change": "2", "new": "2", "other": "2"}
    paths = ("labels.change", "labels.new", "labels.drop")
    assert await updated(given, *paths) == {"keep": "1", "change": "2", "new": "2"}
    assert await updated({"all": "3"}, "labels") == {"all": "3"}
    assert await updated({"none": "4"}) == {"none": "4"}
    info = m.ContentInfo(digest, labels={"k": "v" * 4096})
    request = m.UpdateContentRequest(info, m.FieldMask(("labels.k",)))
    await client.refused(methods.CONTENT_UPDATE, request, Code.INVALID_ARGUMENT)
    request = m.UpdateContentRequest(info, m.FieldMask(("size",)))
    await client.refused(methods.CONTENT_UPDATE, request, Code.INVALID_ARGUMENT)
    gone = m.UpdateContentRequest(m.ContentInfo(digest_of(b"gone")), m.FieldMask(("labels.k",)))
    await client.refused(methods.CONTENT_UPDATE, gone, Code.NOT_FOUND)


async def test_a_lease_holds_what_its_calls_make_until_it_ends(client: Client) -> None:
    lease = await client.ask(methods.LEASE_CREATE, m.CreateLeaseRequest("l", {"a": "b"}), m.LeaseResponse)
    assert lease.lease is not None
    assert (lease.lease.id, lease.lease.labels) == ("l", {"a": "b"})
    await client.refused(methods.LEASE_CREATE, m.CreateLeaseRequest("l"), Code.ALREADY_EXISTS)
    client.lease = "l"
    held = await client.put(b"held")
    client.lease = "base"
    added = await client.put(b"added")
    client.lease = ""
    await client.do(methods.LEASE_ADD, m.LeaseResourceRequest("l", m.Resource(added, "content")))
    found = await client.ask(methods.LEASE_RESOURCES, m.NameRequest("l"), m.ListResourcesResponse)
    assert {(each.id, each.type) for each in found.resources} == {(held, "content"), (added, "content")}
    await client.put(b"nobody's")
    listed = await client.ask(methods.LEASE_LIST, m.FiltersRequest(), m.ListLeasesResponse)
    assert {each.id for each in listed.leases} == {"base", "l"}
    await client.do(methods.LEASE_DELETE, m.DeleteLeaseRequest("base", sync=True))
    await client.collect()
    assert await client.blobs() == {held, added}
    await client.do(methods.LEASE_TAKE, m.LeaseResourceRequest("l", m.Resource(added, "content")))
    await client.collect()
    assert await client.blobs() == {held}
    await client.do(methods.LEASE_DELETE, m.DeleteLeaseRequest("l", sync=True))
    assert await client.blobs() == set()
    await client.refused(methods.LEASE_DELETE, m.DeleteLeaseRequest("l"), Code.NOT_FOUND)
    client.lease = "l"
    with pytest.raises(ContainerdError) as caught:
        await client.put(b"more")
    assert caught.value.code == Code.NOT_FOUND


async def test_a_lease_that_is_over_holds_nothing(client: Client) -> None:
    labels = {"containerd.io/gc.expire": "2020-01-01T00:00:00Z"}
    await client.ask(methods.LEASE_CREATE, m.CreateLeaseRequest("l", labels), m.LeaseResponse)
    client.lease = "l"
    await client.put(b"held")
    client.lease = ""
    await client.collect()
    assert await client.blobs() == set()


async def test_an_image_is_created_changed_and_deleted(client: Client) -> None:
    first, second = await client.put(b"1"), await client.put(b"2")
    image = m.ImageRecord("docker.io/library/a:1", {"a": "1"}, m.Descriptor(CONFIG, first, 1))
    await client.do(methods.IMAGE_CREATE, m.CreateImageRequest(image))
    await client.refused(methods.IMAGE_CREATE, m.CreateImageRequest(image), Code.ALREADY_EXISTS)
    found = (await client.ask(methods.IMAGE_GET, m.NameRequest(image.name), m.ImageResponse)).image
    assert found is not None
    assert (found.name, found.labels, found.target) == (image.name, image.labels, image.target)
    other = m.ImageRecord(image.name, {"b": "2"}, m.Descriptor(CONFIG, second, 1))
    for paths, labels, digest in (
        (("labels.b",), {"a": "1", "b": "2"}, first),
        (("target",), {"a": "1", "b": "2"}, second),
        ((), {"b": "2"}, second),
    ):
        request = m.UpdateImageRequest(other, m.FieldMask(paths) if paths else None)
        found = (await client.ask(methods.IMAGE_UPDATE, request, m.ImageResponse)).image
        assert found is not None
        assert found.target is not None
        assert (found.labels, found.target.digest) == (labels, digest)
    listed = await client.ask(methods.IMAGE_LIST, m.FiltersRequest(), m.ListImagesResponse)
    assert [each.name for each in listed.images] == [image.name]
    await client.do(methods.IMAGE_DELETE, m.DeleteImageRequest(image.name, sync=True))
    await client.refused(methods.IMAGE_GET, m.NameRequest(image.name), Code.NOT_FOUND)
    await client.refused(methods.IMAGE_DELETE, m.DeleteImageRequest(image.name), Code.NOT_FOUND)
    await client.refused(methods.IMAGE_UPDATE, m.UpdateImageRequest(other), Code.NOT_FOUND)
    nowhere = m.ImageRecord("x", target=m.Descriptor(CONFIG))  # without any target 2.3.4 itself dies
    await client.refused(methods.IMAGE_CREATE, m.CreateImageRequest(nowhere), Code.INVALID_ARGUMENT)


async def test_snapshots_are_stacked_and_taken_away_from_the_top(client: Client) -> None:
    async def prepare(key: str, parent: str = "") -> tuple[m.Mount, ...]:
        request = m.PrepareRequest("native", key, parent)
        return (await client.ask(methods.SNAPSHOT_PREPARE, request, m.MountsResponse)).mounts

    (mount,) = await prepare("a1")
    assert mount.type == "bind"
    assert "rw" in mount.options
    Path(mount.source, "file").write_text("a")
    (again,) = (await client.ask(methods.SNAPSHOT_MOUNTS, m.SnapshotRequest("native", "a1"), m.MountsResponse)).mounts
    assert again.source == mount.source
    child = m.PrepareRequest("native", "c", "a1")
    await client.refused(methods.SNAPSHOT_PREPARE, child, Code.INVALID_ARGUMENT)
    await client.do(methods.SNAPSHOT_COMMIT, m.CommitRequest("native", "a", "a1", {"l": "1"}))
    (mount,) = await prepare("b1", "a")
    assert Path(mount.source, "file").read_text() == "a"
    await client.do(methods.SNAPSHOT_COMMIT, m.CommitRequest("native", "b", "b1"))
    info = (await client.ask(methods.SNAPSHOT_STAT, m.SnapshotRequest("native", "b"), m.SnapshotResponse)).info
    assert info is not None
    assert (info.name, info.parent, info.kind) == ("b", "a", m.COMMITTED)
    assert await client.snapshots() == {"a", "b"}
    known = {"containerd.io/snapshot.ref": "b"}
    await client.refused(methods.SNAPSHOT_PREPARE, m.PrepareRequest("native", "b2", "a", known), Code.ALREADY_EXISTS)
    await client.refused(methods.SNAPSHOT_PREPARE, m.PrepareRequest("native", "x", "gone"), Code.NOT_FOUND)
    await client.refused(methods.SNAPSHOT_PREPARE, m.PrepareRequest("other", "x"), Code.INVALID_ARGUMENT)
    await client.refused(methods.SNAPSHOT_COMMIT, m.CommitRequest("native", "c", "gone"), Code.NOT_FOUND)
    await client.refused(methods.SNAPSHOT_REMOVE, m.SnapshotRequest("native", "a"), Code.FAILED_PRECONDITION)
    await prepare("c1", "b")
    await client.refused(methods.SNAPSHOT_PREPARE, m.PrepareRequest("native", "c1"), Code.ALREADY_EXISTS)
    await client.refused(methods.SNAPSHOT_COMMIT, m.CommitRequest("native", "b", "c1"), Code.ALREADY_EXISTS)
    for key in ("c1", "b", "a"):
        await client.do(methods.SNAPSHOT_REMOVE, m.SnapshotRequest("native", key))
    assert await client.snapshots() == set()
    await client.refused(methods.SNAPSHOT_STAT, m.SnapshotRequest("native", "a"), Code.NOT_FOUND)


async def test_a_collection_keeps_what_images_lead_to_and_sweeps_the_rest(client: Client) -> None:
    for key, parent in (("1", ""), ("2", "1"), ("3", "2"), ("stray", "")):
        await client.do(methods.SNAPSHOT_PREPARE, m.PrepareRequest("native", f"{key}-active", parent))
        await client.do(methods.SNAPSHOT_COMMIT, m.CommitRequest("native", key, f"{key}-active"))
    layer, stray = await client.put(b"layer"), await client.put(b"stray")
    config = await client.put(b"config", {"containerd.io/gc.ref.snapshot.native": "2"})
    labels = {"containerd.io/gc.ref.content.config": config, "containerd.io/gc.ref.content.l.0": layer}
    manifest = await client.put(b"manifest", labels)
    rooted = await client.put(b"rooted", {"containerd.io/gc.root": "yes"})
    image = m.ImageRecord("i", target=m.Descriptor(CONFIG, manifest, 8))
    await client.do(methods.IMAGE_CREATE, m.CreateImageRequest(image))
    client.lease = ""
    await client.collect()
    assert await client.blobs() == {layer, stray, config, manifest, rooted}
    blobs = await content_root(client) / "blobs" / "sha256"
    orphan = blobs / digest_of(b"orphan")[7:]
    orphan.write_bytes(b"orphan")
    await client.do(methods.LEASE_DELETE, m.DeleteLeaseRequest("base", sync=True))
    assert await client.blobs() == {layer, config, manifest, rooted}
    assert await client.snapshots() == {"1", "2"}
    assert not (blobs / stray[7:]).exists()
    assert not orphan.exists(), "a file that nothing records is swept, too"
    await client.do(methods.IMAGE_DELETE, m.DeleteImageRequest("i", sync=True))
    assert await client.blobs() == {rooted}
    assert await client.snapshots() == set()


# what a fake may be that a test's machine may not


async def test_a_fake_that_isolates_namespaces_takes_bytes(tmp_path: Path) -> None:
    fake = FakeContainerd(tmp_path, policy="isolated")
    async with fake.serving(tmp_path / "s"), await Connection.open(str(tmp_path / "s")) as connection:
        client = Client(connection, "a")
        digest = await client.put(DATA)
        other = Client(connection, "b")
        answers = await other.write(m.WriteRequest(m.STAT, "r", len(DATA), digest))
        assert answers[0].offset == 0
        assert await other.put(DATA) == digest
        plugins = (await client.ask(methods.PLUGINS, m.FiltersRequest(), m.PluginsResponse)).plugins
        assert {each.exports.get("policy") for each in plugins} == {None, "isolated"}


@pytest.mark.parametrize(("version", "rebases"), [("1.6.20", False), ("2.1.4", False), ("2.2.0", True)])
async def test_a_fake_takes_a_parent_at_commit_as_its_version_does(tmp_path: Path, version: str, rebases: bool) -> None:
    fake = FakeContainerd(tmp_path, version=version)
    async with fake.serving(tmp_path / "s"), await Connection.open(str(tmp_path / "s")) as connection:
        client = Client(connection, "a")
        assert (await client.ask(methods.VERSION, m.Empty(), m.Version)).version == version
        for key in ("1", "2"):
            request = m.PrepareRequest("overlayfs", f"{key}-active")
            (mount,) = (await client.ask(methods.SNAPSHOT_PREPARE, request, m.MountsResponse)).mounts
            assert (mount.type, Path(mount.source).name) == ("bind", "fs")
        await client.do(methods.SNAPSHOT_COMMIT, m.CommitRequest("overlayfs", "1", "1-active"))
        await client.do(methods.SNAPSHOT_COMMIT, m.CommitRequest("overlayfs", "2", "2-active", parent="1"))
        info = (await client.ask(methods.SNAPSHOT_STAT, m.SnapshotRequest("overlayfs", "2"), m.SnapshotResponse)).info
        assert info is not None
        assert info.parent == ("1" if rebases else "")
        request = m.PrepareRequest("overlayfs", "3", "2")
        (mount,) = (await client.ask(methods.SNAPSHOT_PREPARE, request, m.MountsResponse)).mounts
        lowers = mount.options[-1].removeprefix("lowerdir=").split(":")
        assert (mount.type, len(lowers)) == ("overlay", 2 if rebases else 1)
        assert all(Path(lower).is_dir() for lower in lowers)


async def test_a_fake_that_is_served_again_has_what_it_had(tmp_path: Path) -> None:
    fake = FakeContainerd(tmp_path)
    for expected in (set(), {digest_of(b"a")}):
        async with fake.serving(tmp_path / "s"), await Connection.open(str(tmp_path / "s")) as connection:
            client = Client(connection, "a")
            assert await client.blobs() == expected
            if not expected:
                await client.put(b"a")
    fake.collect()
    assert not list(fake.state.blobs.iterdir())
