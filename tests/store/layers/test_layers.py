"""Unpacked layers in a store: single flight, what is trusted, and what has which name.

Covers: store/layers/layers.py, store/layers/ingest.py, store/layers/places.py, store/layers/records.py,
image/layer_file.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from fastoci.errors import BlobNotFoundError, StoreBusyError, StoreError
from fastoci.image.config import chain_id
from fastoci.image.digest import Digest
from fastoci.image.layer_file import DirectoryFacts
from fastoci.store.layers import ingest as ingests
from fastoci.store.layers.ingest import LayerFile, LayerTree, MergedFile
from fastoci.store.store import Store
from fastoci.testing.suites.filling import proof_of
from support.layer_files import TREE, facts_of, file_of, put, put_merged, put_tree, tar_of, write
from support.store_shelf import Shelf

TAR = tar_of()
DIFF_ID = Digest.of(TAR)
MANIFEST = Digest.of(b"manifest")
OpenShelf = Callable[[Path], Shelf]


@pytest.fixture
def store(shelf: Shelf) -> Store:
    return shelf.store


def standalone(shelf: Shelf, diff_id: Digest = DIFF_ID) -> Path:
    return shelf.path / "layers" / diff_id.algorithm / diff_id.hex[:2] / f"{diff_id.hex}.erofs"


def merge_only(shelf: Shelf, diff_id: Digest = DIFF_ID) -> Path:
    return shelf.path / "layers" / "merge" / f"{diff_id.hex}.erofs"


def as_of_another_boot(record: Path) -> None:
    """What a reader finds after a boot."""
    fields = json.loads(record.read_bytes())
    record.write_text(json.dumps(fields | {"boot_id": "another"}))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_standalone_layer_is_where_containerd_looks_for_it(shelf: Shelf) -> None:
    layers = shelf.store.layers
    assert layers.find(DIFF_ID) is None
    with pytest.raises(BlobNotFoundError):
        layers.open(DIFF_ID)
    made = await put(layers, TAR)
    path = standalone(shelf)
    assert path.read_bytes() == file_of(TAR)
    assert [mode(each) for each in (path, *path.parents[:3])] == [0o444, 0o755, 0o755, 0o755]
    assert layers.find(DIFF_ID) == made
    assert layers.path(DIFF_ID) == path == Path(made.path)
    assert (made.synced, made.standalone, made.block, made.tar_part) == (True, True, 512, (4096, 4096 + len(TAR)))
    fd = layers.open(DIFF_ID)
    try:
        assert os.pread(fd, len(TAR), 4096) == TAR
    finally:
        os.close(fd)
    assert await layers.begin(DIFF_ID) is None
    assert os.listdir(shelf.path / "ingest") == []


async def test_a_layer_with_reasons_is_where_containerd_does_not_look(shelf: Shelf) -> None:
    made = await put(shelf.store.layers, TAR, reasons=["opaque root"])
    assert not standalone(shelf).exists()
    assert made.path == str(merge_only(shelf))
    found = shelf.store.layers.find(DIFF_ID)
    assert found is not None
    assert found.reasons == ("opaque root",)


async def test_a_layer_that_became_standalone_is_in_one_place(shelf: Shelf) -> None:
    layers = shelf.store.layers
    await put(layers, TAR, reasons=["opaque root"])
    await put(layers, TAR, form="4k")
    assert not merge_only(shelf).exists()
    assert not merge_only(shelf).with_suffix(".json").exists()
    found = layers.find(DIFF_ID)
    assert found is not None
    assert (found.form, found.tar_part) == ("4k", None)


async def test_the_digest_is_of_what_is_not_the_tar(shelf: Shelf) -> None:
    made = await put(shelf.store.layers, TAR)
    data = file_of(TAR)
    assert made.digest == Digest.of(data[:4096] + data[4096 + len(TAR) :])
    whole = await put(shelf.store.layers, TAR, form="4k")
    assert whole.digest == Digest.of(data)


async def test_no_other_proof_than_that_of_the_diff_id_gives_a_name(store: Store) -> None:
    other = tar_of(1)
    for proof, facts in ((proof_of(other), facts_of(TAR)), (proof_of(TAR), facts_of(other + b"1"))):
        ingest = await store.layers.begin(DIFF_ID)
        assert ingest is not None
        write(ingest, TAR)
        with pytest.raises(ValueError, match="proof is not of"):
            await ingest.commit(facts, proof)
        assert ingest.fd == -1
    tree = await store.layers.begin_directory(DIFF_ID, owners=True)
    assert tree is not None
    with pytest.raises(ValueError, match="proofs are not of"):
        await tree.commit(TREE, [proof_of(other)])
    assert store.layers.find(DIFF_ID) is None
    assert store.layers.find_directory(DIFF_ID, owners=True) is None
    assert os.listdir(store.path / "ingest") == []


async def test_facts_that_do_not_fit_the_file_give_no_name(store: Store) -> None:
    ingest = await store.layers.begin(DIFF_ID)
    assert ingest is not None
    with pytest.raises(ValueError, match="has 0 bytes"):
        await ingest.commit(facts_of(TAR), proof_of(TAR))
    with pytest.raises(ValueError, match="commit after abort"):
        await ingest.commit(facts_of(TAR), proof_of(TAR))
    assert store.layers.find(DIFF_ID) is None
    assert os.listdir(store.path / "ingest") == []


async def test_a_layer_that_somebody_makes_is_waited_for(shelf: Shelf, open_shelf: OpenShelf) -> None:
    layers, other = shelf.store.layers, open_shelf(shelf.path).store.layers
    ingest = await layers.begin(DIFF_ID)
    assert ingest is not None
    for attempt in (layers.begin(DIFF_ID), other.begin(DIFF_ID)):
        with pytest.raises(StoreBusyError, match=f"unpacks {DIFF_ID}"):
            await attempt
    seen: list[int] = []
    came = asyncio.Event()

    def progressed(size: int) -> None:
        seen.append(size)
        came.set()

    waiting = asyncio.create_task(other.wait(DIFF_ID, progressed))
    write(ingest, TAR)
    await came.wait()
    await ingest.commit(facts_of(TAR), proof_of(TAR))
    assert await waiting
    assert seen[-1] in (0, len(file_of(TAR)))
    assert other.find(DIFF_ID) is not None


@pytest.mark.parametrize("kind", ["layer", "merged", "directory"])
async def test_who_waits_goes_on_when_the_other_gives_up(store: Store, kind: str) -> None:
    layers = store.layers
    begin: Callable[[], Awaitable[LayerFile | MergedFile | LayerTree | None]]
    wait: Callable[[], Awaitable[bool]]
    if kind == "layer":
        begin, wait = partial(layers.begin, DIFF_ID), partial(layers.wait, DIFF_ID, lambda size: None)
    elif kind == "merged":
        begin, wait = partial(layers.begin_merged, DIFF_ID), partial(layers.wait_merged, DIFF_ID)
    else:
        begin, wait = (
            partial(layers.begin_directory, DIFF_ID, owners=True),
            partial(layers.wait_directory, DIFF_ID, owners=True),
        )
    first = await begin()
    assert first is not None
    waiting = asyncio.ensure_future(wait())
    await first.abort()
    await first.abort()
    assert not await waiting
    assert os.listdir(store.path / "ingest") == []


async def test_of_another_boot_only_what_was_synced_is_there(shelf: Shelf) -> None:
    lazy = Shelf(shelf.path, "batch")
    try:
        layers = lazy.store.layers
        tars = [tar_of(seed) for seed in range(3)]
        await put(layers, tars[0])
        await put(layers, tars[1], reasons=["opaque root"])
        await put_tree(layers, tars[2])
        digests = [Digest.of(tar) for tar in tars]
        await put_merged(layers, MANIFEST, digests[:2])
        assert layers.find_merged(MANIFEST) is not None
        records = [path for path in shelf.path.rglob("*.json") if path.parent != shelf.path]
        records.append(shelf.path / "layers/overlay" / digests[2].hex / "done")
        for record in records:
            as_of_another_boot(record)
        assert layers.find(digests[0]) is not None
        assert layers.find(digests[1]) is None
        assert layers.find_directory(digests[2], owners=True) is None
        assert layers.find_merged(MANIFEST) is None
        await put(layers, tars[1], reasons=["opaque root"])
        await put_tree(layers, tars[2])
        await put_merged(layers, MANIFEST, digests[:2])
        assert layers.find_merged(MANIFEST) is not None
    finally:
        lazy.store.close()


async def test_a_level_that_syncs_all_keeps_merge_only_layers_over_a_boot(shelf: Shelf) -> None:
    await put(shelf.store.layers, TAR, reasons=["opaque root"])
    as_of_another_boot(merge_only(shelf).with_suffix(".json"))
    assert shelf.store.layers.find(DIFF_ID) is not None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_bytes(b""),
        lambda path: path.with_suffix(".json").write_bytes(b'{"diff_id": "sha256:' + b"0" * 64 + b'"}'),
        lambda path: path.unlink(),
        lambda path: (path.chmod(0o644), path.write_bytes(path.read_bytes()[:5000])),
        lambda path: (path.unlink(), path.symlink_to("/etc/hostname")),
    ],
    ids=["no record", "empty record", "other record", "no file", "short file", "link"],
)
async def test_a_file_and_a_record_that_do_not_fit_are_absent_and_made_again(
    shelf: Shelf, damage: Callable[[Path], object]
) -> None:
    await put(shelf.store.layers, TAR)
    damage(standalone(shelf))
    assert shelf.store.layers.find(DIFF_ID) is None
    await put(shelf.store.layers, TAR)
    assert standalone(shelf).read_bytes() == file_of(TAR)
    assert not standalone(shelf).is_symlink()


async def test_a_directory_in_the_place_of_a_layer_file_is_an_error(shelf: Shelf) -> None:
    standalone(shelf).mkdir(parents=True)
    ingest = await shelf.store.layers.begin(DIFF_ID)
    assert ingest is not None
    write(ingest, TAR)
    with pytest.raises(StoreError, match="is a directory where a file belongs"):
        await ingest.commit(facts_of(TAR), proof_of(TAR))
    assert os.listdir(shelf.path / "ingest") == []


async def test_merged_metadata_is_there_while_its_layer_files_are(shelf: Shelf) -> None:
    layers = shelf.store.layers
    tars = [tar_of(seed) for seed in range(2)]
    devices = [Digest.of(tar) for tar in tars]
    await put(layers, tars[0])
    await put(layers, tars[1], reasons=["opaque root"])
    await put_merged(layers, MANIFEST, devices)
    found = layers.find_merged(MANIFEST)
    assert found is not None
    assert (found.devices, found.path) == (tuple(devices), str(shelf.path / f"images/{MANIFEST.hex}.erofs"))
    assert await layers.begin_merged(MANIFEST) is None
    with os.fdopen(layers.open_merged(MANIFEST), "rb") as file:
        assert file.read() == b"merged metadata"
    merge_only(shelf, devices[1]).unlink()
    assert layers.find_merged(MANIFEST) is None
    with pytest.raises(BlobNotFoundError, match="no merged metadata"):
        layers.open_merged(MANIFEST)
    await put(layers, tars[1], form="4k")
    assert layers.find_merged(MANIFEST) is None, "it points into the tar, which is not in this form"


async def test_a_layer_directory_says_what_its_maker_said(shelf: Shelf) -> None:
    facts = DirectoryFacts(entries=3, size=5, reasons=("hard-link",), owners=False, user_xattrs=True, names_root=True)
    layers = shelf.store.layers
    ingest = await layers.begin_directory(DIFF_ID, owners=False)
    assert ingest is not None
    made = await ingest.commit(facts, [proof_of(TAR)])
    assert made == layers.find_directory(DIFF_ID, owners=False)
    assert {name: getattr(made, name) for name in facts.__struct_fields__} == msgspec.structs.asdict(facts)
    assert (made.path, made.root) == tuple(
        f"{shelf.path}/layers/overlay/{DIFF_ID.hex}/{name}" for name in ("tree", "root")
    )
    assert layers.find_directory(DIFF_ID, owners=True) is None
    await put_tree(layers, TAR)
    assert layers.find_directory(DIFF_ID, owners=False) is None
    assert layers.find_directory(DIFF_ID, owners=True) is not None


async def test_merged_layers_have_one_directory_by_their_chain_id(store: Store) -> None:
    tars = [tar_of(number) for number in range(3)]
    diff_ids = [Digest.of(tar) for tar in tars]
    chain = Digest.of(f"{Digest.of(f'{diff_ids[0]} {diff_ids[1]}'.encode())} {diff_ids[2]}".encode())
    assert chain_id(diff_ids) == chain
    for proofs in ([], [proof_of(tar) for tar in reversed(tars)], [proof_of(tar) for tar in tars[:2]]):
        ingest = await store.layers.begin_directory(chain, owners=True)
        assert ingest is not None
        with pytest.raises(ValueError, match="proofs are not of"):
            await ingest.commit(TREE, proofs)
    ingest = await store.layers.begin_directory(chain, owners=True)
    assert ingest is not None
    await ingest.commit(TREE, [proof_of(tar) for tar in tars])
    found = store.layers.find_directory(chain, owners=True)
    assert found is not None
    assert found.chain_id == chain


async def test_a_layer_directory_is_for_its_owner_alone(shelf: Shelf) -> None:
    layers = shelf.store.layers
    await put_tree(layers, TAR)
    found = layers.find_directory(DIFF_ID, owners=True)
    assert found is not None
    assert sorted(os.listdir(found.path)) == ["app", "etc"]
    assert mode(shelf.path / "layers/overlay") == 0o700
    assert await layers.begin_directory(DIFF_ID, owners=True) is None
    assert os.listdir(shelf.path / "ingest") == []


async def test_merged_metadata_fits_layer_files_of_its_own_layout(shelf: Shelf) -> None:
    layers = shelf.store.layers
    await put(layers, TAR)
    await put_merged(layers, MANIFEST, [DIFF_ID])
    record = standalone(shelf).with_suffix(".json")
    record.write_text(json.dumps(json.loads(record.read_bytes()) | {"layout": 0}))
    assert layers.find(DIFF_ID) is not None
    assert layers.find_merged(MANIFEST) is None


async def test_what_was_found_bad_is_deleted(shelf: Shelf) -> None:
    layers = shelf.store.layers
    for _ in range(2):
        await put(layers, TAR)
        await put_merged(layers, MANIFEST, [DIFF_ID])
        await layers.discard_merged(MANIFEST)
        await layers.discard(DIFF_ID)
        await layers.discard(DIFF_ID)
        await layers.discard_merged(MANIFEST)
        assert [path for path in shelf.path.rglob("*.erofs")] == []
    assert os.listdir(shelf.path / "ingest") == []


async def test_a_sidecar_belongs_to_its_file(shelf: Shelf) -> None:
    layers = shelf.store.layers
    sidecar = standalone(shelf).with_suffix(".erofs.dmverity")
    ingest = await layers.begin(DIFF_ID, form="4k")
    assert ingest is not None
    write(ingest, TAR)
    made = await ingest.commit(facts_of(TAR, form="4k"), proof_of(TAR), fs_verity="sha256:1", dm_verity=b"{}")
    assert sidecar.read_bytes() == b"{}"
    assert layers.find(DIFF_ID) == made
    assert made.fs_verity == "sha256:1"
    await put(layers, TAR)
    assert not sidecar.exists()


async def test_what_others_may_write_is_refused(shelf: Shelf) -> None:
    await put(shelf.store.layers, TAR)
    standalone(shelf).parent.chmod(0o777)
    with pytest.raises(StoreError, match="can be written by everyone"):
        shelf.store.layers.find(DIFF_ID)


async def test_a_file_of_the_size_of_no_piece_is_hashed_whole(tmp_path: Path) -> None:
    data = tar_of(5, 2_500_001)
    (tmp_path / "file").write_bytes(data)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert ingests.digest_of(fd, [(0, 7), (100, len(data))]) == Digest.of(data[:7] + data[100:])
        with pytest.raises(OSError, match="ends after"):
            ingests.digest_of(fd, [(0, len(data) + 1)])
    finally:
        os.close(fd)
