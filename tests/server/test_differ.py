"""The differ against a client that is containerd as far as it can see: trees, digests, statuses, what is handed over.

Covers: server/diff_service.py, server/requester.py, server/committing.py, server/served.py, jobs/apply.py,
jobs/diff.py.
"""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from fastoci.containerd import methods
from fastoci.containerd.messages import (
    Any,
    ApplyRequest,
    ApplyResponse,
    Descriptor,
    DiffRequest,
    DiffResponse,
    Mount,
    Timestamp,
)
from fastoci.containerd.rpc import Call, Code
from fastoci.errors import ContainerdError
from fastoci.image import mediatype
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.testing.layers import Entry, Layer, hardlink, tar, whiteout
from fastoci.testing.trees import differences, listing, overlay
from support.differ_scene import METADATA, Scene, scene
from support.disks import disk
from support.disks import mounted as mounted_at
from support.images import made
from support.odd_layers import ODD, Odd
from support.overlays import mounted, needs_mounts
from support.scratch import scratch

FILES = made(1, files=3, size=100_000)
OWNERS = os.geteuid() == 0
NOWHERE = [hardlink("new", "nowhere")]  # which no differ can make


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch("differ") as path:
        yield path


@pytest.fixture
async def running(home: Path) -> AsyncIterator[Scene]:
    async with scene(home) as found:
        yield found


def compressed(entries: list[Entry]) -> bytes:
    content = Layer.build(entries).content
    assert isinstance(content, bytes)
    return content


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (of a thread, or of files)
            await asyncio.sleep(0.001)


async def refused(running: Scene, request: ApplyRequest) -> ContainerdError:
    with pytest.raises(ContainerdError) as caught:
        await running.ask(request)
    return caught.value


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
async def test_layers_become_the_tree_of_their_image(running: Scene, odd: Odd) -> None:
    needs_mounts()
    for entries in odd.layers:
        layer = Layer.build(entries)
        applied = await running.apply(running.containerd.add(compressed(list(entries))))
        assert (applied.media_type, applied.digest) == (mediatype.OCI_LAYER, str(layer.diff_id))
    owner = [(info.st_uid, info.st_mode & 0o7777) for info in map(os.stat, running.directories)]
    assert owner == [(0, 0o755)] * len(owner)
    with mounted(running.directories[::-1], running.home / "at") as at:
        assert differences(odd.tree, listing(at)) == []


async def test_a_layer_whose_lower_layers_are_not_said_hides_what_it_deletes_all_the_same(running: Scene) -> None:
    """As containerd asks when it unpacks several layers of an image at a time: only an upper directory."""
    needs_mounts()
    below, above = ODD["a whiteout in what is not named"].layers
    await running.apply(running.containerd.add(compressed(list(below))))
    _, _, upper, _ = running.prepare()[0].options
    mounts = [Mount("overlay", "overlay", "", ("rw", upper))]
    await running.apply(running.containerd.add(compressed(list(above))), mounts)
    with mounted(running.directories[::-1], running.home / "at") as at:
        assert [node.path for node in listing(at)] == ["a", "a/c"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
async def test_the_digest_is_of_all_bytes_also_of_those_behind_the_end(running: Scene, compress: type[bytes]) -> None:
    data = b"".join(tar(FILES)) + bytes(20_000) + b"and more"
    applied = await running.apply(running.containerd.add(compress(data), "application/octet-stream"))
    assert (applied.digest, applied.size) == (str(Digest.of(data)), len(data))
    assert differences(overlay([FILES]), listing(running.directories[0]), owners=OWNERS) == []


async def test_a_blob_whose_file_is_not_seen_is_read_from_containerd(running: Scene) -> None:
    running.containerd.exports = {}
    large = made(2, files=2, size=3_000_000, compressibility=0.0)
    layer = running.containerd.add(compressed(large))
    await running.apply(layer)
    assert running.containerd.read == [layer.digest]
    assert differences(overlay([large]), listing(running.directories[0]), owners=OWNERS) == []


async def test_layers_are_applied_side_by_side(running: Scene) -> None:
    layers = [made(number, files=2, size=200_000) for number in range(12)]
    blobs = [running.containerd.add(compressed(layer)) for layer in layers]
    targets = [running.home / f"target{number}" for number in range(12)]
    for target in targets:
        target.mkdir()
    binds = [Mount("bind", str(target), "", ("rw", "rbind")) for target in targets]
    await asyncio.gather(*(running.apply(blob, [bind]) for blob, bind in zip(blobs, binds, strict=True)))
    for layer, target in zip(layers, targets, strict=True):
        assert differences(overlay([layer]), listing(target), owners=OWNERS) == []
    assert [(call.outcome, call.entries) for call in running.served] == [("done", len(layers[0]))] * 12


async def test_a_containerd_that_was_started_again_elsewhere_is_asked_again(home: Path) -> None:
    async with scene(home) as running:
        await running.apply(running.containerd.add(compressed(FILES)))
    async with scene(home) as running:
        running.containerd.root = home / "other"
        running.containerd.exports["root"] = str(home / "other")
        (home / "other" / "blobs" / "sha256").mkdir(parents=True)
        await running.apply(running.containerd.add(compressed(FILES)), [Mount("bind", str(home / "other"))])
        assert running.containerd.read == []


def unwritten(directory: Path) -> int:
    """Blocks of files of an ext4 that have no place on its disk yet; it gives them one when it is synced."""
    device = os.stat(directory).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    return int(Path(f"/sys/fs/ext4/{name}/delayed_allocation_blocks").read_text())


async def test_a_file_system_is_synced_before_the_answer_when_that_is_asked_for(running: Scene) -> None:
    needs_mounts()
    layer = running.containerd.add(compressed(FILES))
    with disk(running.home, "ext4", 64 << 20) as at:
        targets = [at / "one", at / "two"]
        for target in targets:
            target.mkdir()
        one, two = ([Mount("bind", str(target), "", ("rw", "rbind"))] for target in targets)
        await running.apply(layer, one)
        assert unwritten(at) > 0
        await running.apply(layer, two, sync_fs=True)
        assert unwritten(at) == 0


# -- what is refused --


@pytest.mark.parametrize(
    ("mount", "code"),
    [
        (Mount("bind", "/a/../b", "", ("rw",)), Code.INVALID_ARGUMENT),
        (Mount("bind", "relative", "", ("rw",)), Code.INVALID_ARGUMENT),
        (Mount("overlay", "overlay", "", ("upperdir=/a/..", "workdir=/w", "lowerdir=/l")), Code.INVALID_ARGUMENT),
        (Mount("overlay", "overlay", "", ("upperdir=/a", "nobody=knows")), Code.UNIMPLEMENTED),
        (Mount("bind", "/nowhere", "", ("rw", "uidmap=0:1:2")), Code.UNIMPLEMENTED),
        (Mount("moon", "/dev/moon"), Code.UNIMPLEMENTED),
        (Mount("bind", "/nowhere/at/all", "", ("rw",)), Code.INTERNAL),
    ],
    ids=["dots", "relative", "dots in an option", "an option", "an option of a bind", "a type", "nothing there"],
)
async def test_mounts_that_are_none_are_refused_in_words(running: Scene, mount: Mount, code: Code) -> None:
    layer = running.containerd.add(compressed(FILES))
    error = await refused(running, ApplyRequest(layer, (mount,)))
    assert error.code == code
    assert any(word in error.message for word in ("not an absolute path", "is not known here", "No such file"))


async def test_requests_that_cannot_be_done_have_statuses_that_say_why(running: Scene) -> None:
    mounts = tuple(running.prepare())
    layer = running.containerd.add(compressed(FILES))
    absent = Descriptor(layer.media_type, str(Digest.of(b"absent")), 6)
    longer = Descriptor(layer.media_type, layer.digest, layer.size + 1)
    damaged = running.containerd.add(compressed(FILES)[:-300])
    requests = [ApplyRequest(layer, mounts) for layer in (absent, longer, damaged, None)]
    codes = [(await refused(running, request)).code for request in requests]
    assert codes == [Code.NOT_FOUND, *[Code.INVALID_ARGUMENT] * 3]
    with pytest.raises(ContainerdError, match="not an ApplyRequest") as caught:
        await running.connection.call(methods.APPLY, b"\xff\xff", METADATA)
    assert caught.value.code == Code.INVALID_ARGUMENT
    assert [call.outcome for call in running.served] == ["refused"] * 4


async def test_a_layer_beyond_the_bounds_is_refused_and_handed_to_nobody(home: Path) -> None:
    async def unexpected(call: Call, request: bytes) -> bytes:
        raise AssertionError("handed over")

    async with scene(home, Limits(unpacked_size=1000, memory=32 << 20)) as running:
        running.containerd.own = unexpected
        request = ApplyRequest(running.containerd.add(compressed(FILES)), tuple(running.prepare()))
        assert (await refused(running, request)).code == Code.RESOURCE_EXHAUSTED


async def test_a_full_disk_is_told_as_one(running: Scene) -> None:
    needs_mounts()
    layer = running.containerd.add(compressed(FILES))
    small = running.home / "small"
    small.mkdir()
    with mounted_at(small, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        error = await refused(running, ApplyRequest(layer, (Mount("bind", str(small)),)))
    assert (error.code, "free space" in error.message) == (Code.RESOURCE_EXHAUSTED, True)


# -- what is handed over --


@pytest.mark.parametrize(
    "request_of",
    [
        lambda layer, mounts: ApplyRequest(layer, mounts, {"k": Any("t", b"v")}),
        lambda layer, mounts: ApplyRequest(replace(layer, media_type=f"{layer.media_type}+encrypted"), mounts),
    ],
    ids=["payloads", "encrypted"],
)
async def test_encrypted_layers_are_handed_over_or_unimplemented(running: Scene, request_of: object) -> None:
    layer, mounts = running.containerd.add(compressed(FILES)), tuple(running.prepare())
    request = request_of(layer, mounts)  # type: ignore[operator]
    assert (await refused(running, request)).code == Code.UNIMPLEMENTED
    handed: list[bytes] = []

    async def own(call: Call, data: bytes) -> bytes:
        handed.append(data)
        return ApplyResponse(layer).encode()

    running.containerd.own = own
    assert await running.ask(request) == layer
    assert handed == [request.encode()]
    assert running.served[-1].outcome == "handed over"


async def test_what_cannot_be_done_is_handed_over_with_the_snapshot_as_it_was(running: Scene) -> None:
    """The same request, which comes back where containerd's order begins with this differ, is left to others."""
    needs_mounts()
    await running.apply(running.containerd.add(compressed(FILES)))
    layer = running.containerd.add(compressed([*FILES, *NOWHERE]))
    seen: list[object] = []

    async def own(call: Call, data: bytes) -> bytes:
        seen.append(listing(running.directories[0]))
        seen.append((await refused(running, ApplyRequest.decode(data))).code)
        return ApplyResponse(layer).encode()

    running.containerd.own = own
    assert await running.apply(layer) == layer
    assert seen == [[], Code.UNIMPLEMENTED]
    assert [call.outcome for call in running.served] == ["done", "handed over"]
    assert "hard link" in running.served[-1].reason


async def test_what_containerd_refuses_too_is_told_with_both_reasons(running: Scene) -> None:
    async def own(call: Call, data: bytes) -> bytes:
        raise call.failure("nor can walking", Code.UNKNOWN)

    running.containerd.own = own
    request = ApplyRequest(running.containerd.add(compressed(NOWHERE)), tuple(running.prepare()))
    error = await refused(running, request)
    assert error.code == Code.INVALID_ARGUMENT
    assert "hard link" in error.message and "nor can walking" in error.message


# -- the way back: layers out of trees --


def view(directories: list[Path]) -> tuple[Mount, ...]:
    if len(directories) == 1:
        return (Mount("bind", str(directories[0]), "", ("ro", "rbind")),)
    return (Mount("overlay", "overlay", "", ("index=off", f"lowerdir={':'.join(map(str, directories))}")),)


def overlaid(top: Path, below: list[Path]) -> Mount:
    """A snapshot that is written to."""
    lowers = ":".join(map(str, below))
    return Mount(
        "overlay", "overlay", "", (f"workdir={top.parent}/work", f"upperdir={top}", f"lowerdir={lowers}", "index=off")
    )


async def diffed(running: Scene, request: DiffRequest) -> Descriptor:
    found = DiffResponse.decode(await running.connection.call(methods.DIFF, request.encode(), METADATA)).diff
    assert found is not None
    return found


@pytest.mark.parametrize("media_type", ["", mediatype.OCI_LAYER, mediatype.OCI_LAYER_GZIP, mediatype.OCI_LAYER_ZSTD])
async def test_what_differs_between_two_snapshots_becomes_a_blob_with_its_labels(
    running: Scene, media_type: str
) -> None:
    needs_mounts()
    changed = Entry("made1/0000/000001", data=b"other", mode=0o600, uid=7)
    for layer in (FILES, made(4, files=2, size=1000), [whiteout("made1/0000/000000"), changed, Entry("new")]):
        await running.apply(running.containerd.add(compressed(list(layer))))
    top, *below = running.directories
    found = await diffed(running, DiffRequest(view(below), (overlaid(top, below),), media_type, "ref", {"a": "b"}))
    assert found.media_type == (media_type or mediatype.OCI_LAYER_GZIP)
    running.prepare()
    copy = running.directories[0]
    applied = await running.apply(found, [overlaid(copy, below)])
    assert running.containerd.labels[found.digest] == {"a": "b", "containerd.io/uncompressed": applied.digest}
    with mounted([*below[::-1], top], running.home / "at") as at:
        expected = listing(at)
    with mounted([*below[::-1], copy], running.home / "again") as at:
        assert differences(expected, listing(at)) == []
    files = [node.path for node in listing(copy) if node.kind != "directory"]
    assert files == ["made1/0000/000000", "made1/0000/000001", "new"]


async def test_a_layer_that_is_there_already_gets_its_labels(running: Scene) -> None:
    await running.apply(running.containerd.add(compressed(FILES)))
    request = DiffRequest((), view(running.directories), source_date_epoch=Timestamp(1))
    first = await diffed(running, request)
    running.containerd.labels.clear()
    assert await diffed(running, request) == first
    assert list(running.containerd.labels[first.digest]) == ["containerd.io/uncompressed"]


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        (lambda right: DiffRequest((), right, "application/vnd.odd"), Code.UNIMPLEMENTED),
        (lambda right: DiffRequest((), ()), Code.UNIMPLEMENTED),
        (lambda right: DiffRequest((), (*right, *right)), Code.UNIMPLEMENTED),
        (lambda right: DiffRequest((), (Mount("bind", "/a/../b"),)), Code.INVALID_ARGUMENT),
        (lambda right: DiffRequest((), (Mount("bind", "/nowhere/at/all"),)), Code.INTERNAL),
    ],
    ids=["media type", "no mounts", "several mounts", "dots", "nothing there"],
)
async def test_trees_that_cannot_become_layers_are_refused(running: Scene, request_of: object, code: Code) -> None:
    await running.apply(running.containerd.add(compressed(FILES)))
    request = request_of(view(running.directories))  # type: ignore[operator]
    with pytest.raises(ContainerdError) as caught:
        await running.connection.call(methods.DIFF, request.encode(), METADATA)
    assert caught.value.code == code


# -- the end --


async def test_a_call_that_its_caller_leaves_writes_nothing_more(running: Scene) -> None:
    await running.apply(running.containerd.add(compressed(FILES)))
    before = set(os.listdir("/proc/self/fd"))
    entries = [Entry(f"{number:06}", data=b"x") for number in range(20_000)]
    request = ApplyRequest(running.containerd.add(compressed(entries)), tuple(running.prepare()))
    target = running.directories[0]
    stream = running.connection.stream(methods.APPLY, METADATA)
    await stream.send(request.encode(), last=True)
    await until(lambda: any(target.iterdir()))
    stream.cancel()
    await asyncio.sleep(0.1)
    written = len(os.listdir(target))
    await until(lambda: not running.differ.under_way)
    assert running.served[-1].outcome == "cancelled"
    assert 0 < len(os.listdir(target)) == written < 20_000
    assert set(os.listdir("/proc/self/fd")) - before == set()
