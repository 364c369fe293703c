"""What every ``LayerStore`` holds to: each layer is made once, is invisible before it is whole, and needs its proof."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from fastoci.errors import BlobNotFoundError, StoreBusyError
from fastoci.image.config import chain_id
from fastoci.image.digest import Digest
from fastoci.image.layer_file import TAR_OFFSET, DirectoryFacts, LayerFacts
from fastoci.layer_interfaces import LayerIngest, LayerStore
from fastoci.testing.suites.filling import finish, proof_of, raises

_TREE: Final = DirectoryFacts(entries=1, size=0, owners=True, user_xattrs=False, names_root=False)


class LayerStoreSuite:
    """Subclass it and define ``open``."""

    def open(self, directory: Path) -> AbstractAsyncContextManager[LayerStore]:
        """Open the store in a directory; again, also while it is open, as another process would."""
        raise NotImplementedError

    def test_a_layer_file_is_invisible_until_it_is_committed_and_then_whole(self, tmp_path: Path) -> None:
        async def run() -> None:
            for number, reasons in enumerate([(), ("opaque root",)]):
                tar = _tar(number)
                diff_id = Digest.of(tar)
                async with self.open(tmp_path) as store, store.keep([diff_id]):
                    ingest = await _begin(store, tar)
                    _demand_absent(store, diff_id)
                    made = await ingest.commit(_facts(tar, reasons), proof_of(tar))
                    assert store.find(diff_id) == made
                    assert (made.diff_id, made.reasons, made.tar_size) == (diff_id, reasons, len(tar))
                    assert str(store.path(diff_id)) == made.path
                    assert _read(store.open(diff_id)) == _content(tar), "other bytes than were written"
                    assert await store.begin(diff_id) is None, "what is there is not made again"
                async with self.open(tmp_path) as store:
                    assert store.find(diff_id) == made, "another process finds it"

        finish(run())

    def test_nothing_gets_a_name_without_the_proof_of_its_layers(self, tmp_path: Path) -> None:
        async def run() -> None:
            tar, other = _tar(0), _tar(1)
            diff_id = Digest.of(tar)
            async with self.open(tmp_path) as store:
                ingest = await _begin(store, tar)
                with raises(ValueError, "a proof of another layer"):
                    await ingest.commit(_facts(tar), proof_of(other))
                ingest = await _begin(store, tar)
                with raises(ValueError, "facts of another file"):
                    await ingest.commit(_facts(tar + b"more"), proof_of(tar))
                chain = chain_id([diff_id, Digest.of(other)])
                for proofs in ([], [proof_of(tar)], [proof_of(other), proof_of(tar)]):
                    tree = await store.begin_directory(chain, owners=True)
                    assert tree is not None, "what was given up can be begun again"
                    with raises(ValueError, "proofs of other layers"):
                        await tree.commit(_TREE, proofs)
                _demand_absent(store, diff_id)
                assert store.find_directory(chain, owners=True) is None

        finish(run())

    def test_the_kernel_holds_what_is_there_against_a_digest_or_nothing_changes(self, tmp_path: Path) -> None:
        async def run() -> None:
            tar = _tar(0)
            diff_id = Digest.of(tar)
            async with self.open(tmp_path) as store:
                with raises(BlobNotFoundError, "a layer that is not there"):
                    await store.enforce(diff_id)
                with raises(BlobNotFoundError, "merged metadata that is not there"):
                    await store.enforce_merged(diff_id)
                made = await (await _begin(store, tar)).commit(_facts(tar), proof_of(tar))
                held, found = await store.enforce(diff_id), store.find(diff_id)
                assert found is not None
                assert bool(found.fs_verity) == held
                assert _read(store.open(diff_id)) == _content(tar)
                assert held or found == made

        finish(run())

    def test_a_layer_that_was_given_up_is_absent_and_can_be_begun_again(self, tmp_path: Path) -> None:
        async def run() -> None:
            tar = _tar(0)
            async with self.open(tmp_path) as store:
                ingest = await _begin(store, tar)
                await ingest.abort()
                await ingest.abort()
                _demand_absent(store, Digest.of(tar))
                again = await store.begin(Digest.of(tar))
                assert again is not None
                assert os.fstat(again.fd).st_size == 0, "something of the first attempt is left"
                await again.abort()

        finish(run())

    def test_of_several_who_want_a_layer_one_makes_it_and_the_others_wait(self, tmp_path: Path) -> None:
        async def run() -> None:
            tar = _tar(0)
            diff_id = Digest.of(tar)
            async with self.open(tmp_path) as store, self.open(tmp_path) as other:
                ingest = await _begin(store, tar)
                for each in (store, other):
                    with raises(StoreBusyError, "somebody else makes it"):
                        await each.begin(diff_id)
                waiting = asyncio.create_task(other.wait(diff_id, lambda size: None))
                await ingest.commit(_facts(tar), proof_of(tar))
                assert await waiting, "it is there"
                tree = await store.begin_directory(diff_id, owners=True)
                assert tree is not None, "a layer file and a layer directory are two things"
                with raises(StoreBusyError, "somebody else makes it"):
                    await other.begin_directory(diff_id, owners=True)
                giving_up = asyncio.create_task(other.wait_directory(diff_id, owners=True))
                await tree.abort()
                assert not await giving_up, "who made it gave up"

        finish(run())

    def test_merged_metadata_is_there_while_its_layer_files_are(self, tmp_path: Path) -> None:
        async def run() -> None:
            tars = [_tar(0), _tar(1)]
            manifest, devices = Digest.of(b"manifest"), [Digest.of(tar) for tar in tars]
            async with self.open(tmp_path) as store:
                for number in (0, 1):
                    ingest = await store.begin_merged(manifest)
                    assert ingest is not None, "without all layer files it is made again"
                    os.write(ingest.fd, b"metadata")
                    made = await ingest.commit(devices)
                    assert store.find_merged(manifest) is None
                    layer = await _begin(store, tars[number])
                    await layer.commit(_facts(tars[number]), proof_of(tars[number]))
                assert store.find_merged(manifest) == made
                assert (made.devices, made.size) == (tuple(devices), 8)
                assert await store.begin_merged(manifest) is None

        finish(run())


def _tar(number: int) -> bytes:
    return random.Random(number).randbytes(5000 + number)


def _content(tar: bytes) -> bytes:
    return bytes(TAR_OFFSET) + tar + b"metadata"


def _facts(tar: bytes, reasons: tuple[str, ...] = ()) -> LayerFacts:
    end = TAR_OFFSET + len(tar)
    size = len(_content(tar))
    return LayerFacts(form="tar", tar_size=len(tar), metadata_offset=end, size=size, entries=1, reasons=reasons)


async def _begin(store: LayerStore, tar: bytes) -> LayerIngest:
    """Begin a layer file that is absent, and write it."""
    ingest = await store.begin(Digest.of(tar))
    assert ingest is not None, "what is absent can be begun"
    os.pwrite(ingest.fd, _content(tar), 0)
    return ingest


def _demand_absent(store: LayerStore, diff_id: Digest) -> None:
    assert store.find(diff_id) is None, "visible before its commit"
    with raises(BlobNotFoundError, "opening what is absent"):
        os.close(store.open(diff_id))


def _read(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()
