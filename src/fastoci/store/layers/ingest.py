"""A layer file, merged metadata or a layer directory on its way into a store: held under its lock until it is whole.

Nothing of it is resumed: what a killed process left is deleted by whoever comes next. Hashes no layer: ``Verified`` is
the proof. Spec: docs/store-format.md 9.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from fastoci import files
from fastoci.directory import Directory
from fastoci.image.config import chain_id
from fastoci.image.digest import Digest
from fastoci.image.layer_file import (
    TREE,
    DirectoryFacts,
    LayerDirectory,
    LayerFacts,
    LayerInfo,
    MergedInfo,
    ranges_beside,
)
from fastoci.store.ingest.ingest import Held
from fastoci.store.layers import places, records
from fastoci.store.layout import StoreLayout
from fastoci.stream.verify import Verified
from fastoci.threads import Threads, check

_PIECE: Final = 1 << 20  # bytes that are hashed at a time

T = TypeVar("T")


class _Making:
    """Something on its way; ``fd`` is where it grows.

    Args:
        held: its ingest, locked: passes to this one.
        boot_id: this boot.
    """

    def __init__(self, paths: StoreLayout, held: Held, threads: Threads, boot_id: str) -> None:
        self.fd = -1
        self._paths = paths
        self._held = held
        self._threads = threads
        self._boot_id = boot_id

    async def abort(self) -> None:
        """Let go of it and delete it. Idempotent."""
        if self._held.lock >= 0:
            await self._threads.run(self.drop)

    def drop(self) -> None:
        """``abort`` for a thread of the store's."""
        if self._held.lock < 0:
            return
        try:
            with files.translated("delete", self._held.directory.path):
                places.clear(self._held)
        finally:
            self._close()

    async def _finish(self, path: str, work: Callable[[], T]) -> T:
        """Run the commit in a thread. Closes, also on error: then nothing is kept."""

        def commit() -> T:
            if self._held.lock < 0:
                raise ValueError(f"{path}: commit after abort")
            with files.translated("commit", path):
                made = work()
            with suppress(OSError):  # it is there; a rest of the ingest is swept later
                places.clear(self._held)
            self._close()
            return made

        try:
            return await self._threads.run(commit)
        except BaseException:
            with suppress(OSError):
                await self.abort()
            raise

    def _create(self) -> int:
        """The file that grows, empty."""
        return self._held.directory.open("data", os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def _publish(self, directory: Directory, name: str, record: bytes, *, sync: bool) -> None:
        """Give the file and its record their names: never a record beside a file that it is not of.

        The record goes last. An old one goes first; and what will be trusted after a power cut has each step durable
        before the next, when there was something old.
        """
        places.expect_nothing(directory, f"{name}.erofs")
        if sync:
            os.fsync(self.fd)
        write(self._held.directory, "record", record, sync=sync)
        replaced = directory.has(f"{name}.json") or directory.has(f"{name}.erofs")
        with suppress(FileNotFoundError):
            directory.unlink(f"{name}.json")
        if replaced and sync:
            directory.sync()
        self._held.directory.rename("data", directory, f"{name}.erofs")
        if replaced and sync:
            directory.sync()
        self._held.directory.rename("record", directory, f"{name}.json")
        if sync:
            directory.sync()

    def _close(self) -> None:
        """Close everything, the lock last."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            files.close(fd)
        self._held.close()


class LayerFile(_Making):
    """``LayerIngest`` on a file; made in one of the store's threads.

    Args:
        sync: also a file that only this program reads.
    """

    def __init__(
        self, paths: StoreLayout, diff_id: Digest, *, held: Held, threads: Threads, boot_id: str, sync: bool
    ) -> None:
        super().__init__(paths, held, threads, boot_id)
        self.diff_id = diff_id
        self._sync = sync
        self.fd = self._create()

    async def commit(
        self, facts: LayerFacts, proof: Verified, *, fs_verity: str = "", dm_verity: bytes = b""
    ) -> LayerInfo:
        """As ``interfaces.LayerIngest.commit``; raises as it says."""
        if type(proof) is not Verified or (proof.digest, proof.size) != (self.diff_id, facts.tar_size):
            await self.abort()
            raise ValueError(f"the proof is not of {self.diff_id}, {facts.tar_size} bytes")
        name = self.diff_id.hex
        return await self._finish(
            f"{self._paths.root}/layers/{name}.erofs", lambda: self._name(facts, fs_verity, dm_verity)
        )

    def _name(self, facts: LayerFacts, fs_verity: str, dm_verity: bytes) -> LayerInfo:
        size = os.fstat(self.fd).st_size
        if size != facts.size or facts.metadata_offset > size:
            raise ValueError(f"{self._held.directory.path}: the file has {size} bytes, and the facts say {facts.size}")
        os.fchmod(self.fd, 0o444)
        sync = self._sync or facts.standalone
        places.make(self._paths, self.diff_id, standalone=facts.standalone)
        with places.at(self._paths, self.diff_id, standalone=facts.standalone) as directory:
            info = self._info(facts, directory, fs_verity=fs_verity, synced=sync)
            self._put_verity(directory, dm_verity)
            self._publish(directory, self.diff_id.hex, records.encode(info), sync=sync)
        with (
            suppress(FileNotFoundError),
            places.at(self._paths, self.diff_id, standalone=not facts.standalone) as other,
        ):
            places.delete_file(other, self.diff_id.hex)
        return info

    def _info(self, facts: LayerFacts, directory: Directory, *, fs_verity: str, synced: bool) -> LayerInfo:
        fields = {name: getattr(facts, name) for name in LayerFacts.__struct_fields__}
        return LayerInfo(
            **fields,
            diff_id=self.diff_id,
            path=directory.at(f"{self.diff_id.hex}.erofs"),
            digest=digest_of(self.fd, ranges_beside(facts)),
            fs_verity=fs_verity,
            boot_id=self._boot_id,
            synced=synced,
        )

    def _put_verity(self, directory: Directory, dm_verity: bytes) -> None:
        """The sidecar has its name before the file has, and an old one is not left beside another file."""
        name = f"{self.diff_id.hex}.erofs.dmverity"
        with suppress(FileNotFoundError):
            directory.unlink(name)
        if dm_verity:
            write(self._held.directory, "dmverity", dm_verity, sync=True)
            self._held.directory.rename("dmverity", directory, name)


class MergedFile(_Making):
    """``MergedIngest`` on a file; made in one of the store's threads."""

    def __init__(self, paths: StoreLayout, manifest: Digest, *, held: Held, threads: Threads, boot_id: str) -> None:
        super().__init__(paths, held, threads, boot_id)
        self.manifest = manifest
        self.fd = self._create()

    async def commit(self, devices: Sequence[Digest]) -> MergedInfo:
        """As ``interfaces.MergedIngest.commit``; raises as it says."""
        name = self.manifest.hex
        return await self._finish(f"{self._paths.root}/images/{name}.erofs", lambda: self._name(tuple(devices)))

    def _name(self, devices: tuple[Digest, ...]) -> MergedInfo:
        size = os.fstat(self.fd).st_size
        os.fchmod(self.fd, 0o444)
        directory = self._paths.make(places.IMAGES, places.OPEN)
        info = MergedInfo(
            manifest=self.manifest,
            path=directory.at(f"{self.manifest.hex}.erofs"),
            devices=devices,
            size=size,
            digest=digest_of(self.fd, [(0, size)]),
            boot_id=self._boot_id,
        )
        self._publish(directory, self.manifest.hex, records.encode(info), sync=False)
        return info


class LayerTree(_Making):
    """``DirectoryIngest`` on a directory; made in one of the store's threads."""

    def __init__(self, paths: StoreLayout, chain_id: Digest, *, held: Held, threads: Threads, boot_id: str) -> None:
        super().__init__(paths, held, threads, boot_id)
        self.chain_id = chain_id
        held.directory.mkdir("data", places.PRIVATE)
        self.fd = held.directory.open("data", files.DIRECTORY)

    async def commit(self, facts: DirectoryFacts, proofs: Sequence[Verified]) -> LayerDirectory:
        """As ``interfaces.DirectoryIngest.commit``; raises as it says."""
        held = all(type(proof) is Verified for proof in proofs)
        if not proofs or not held or chain_id([proof.digest for proof in proofs]) != self.chain_id:
            await self.abort()
            raise ValueError(f"the proofs are not of {self.chain_id}")
        path = f"{self._paths.root}/{places.TREES}/{self.chain_id.hex}"
        return await self._finish(path, lambda: self._name(facts))

    def _name(self, facts: DirectoryFacts) -> LayerDirectory:
        self._paths.make(places.LAYERS, places.OPEN)
        trees = self._paths.make(places.TREES, places.PRIVATE)
        name = self.chain_id.hex
        info = LayerDirectory(
            **{field: getattr(facts, field) for field in DirectoryFacts.__struct_fields__},
            chain_id=self.chain_id,
            path=f"{trees.path}/{name}/{TREE}",
            boot_id=self._boot_id,
            synced=False,
        )
        with self._held.directory.enter("data") as data:
            write(data, "done", records.encode(info), sync=False)
        places.delete_tree(trees, name)  # of another boot, without its owners, or not whole
        self._held.directory.rename("data", trees, name)
        return info


def write(directory: Directory, name: str, data: bytes, *, sync: bool) -> None:
    """Write a small file, which others may read."""
    fd = directory.open(name, files.CREATE)
    try:
        files.write_all(fd, data)
        os.fchmod(fd, 0o644)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def digest_of(fd: int, ranges: Sequence[tuple[int, int]]) -> Digest:
    """Hash parts of a file.

    Raises:
        OSError: the disk refused, or the file ends before.
    """
    hasher = hashlib.sha256()
    for offset, end in ranges:
        while offset < end:
            check()
            piece = os.pread(fd, min(_PIECE, end - offset), offset)
            if not piece:
                raise OSError(f"ends after {offset} of {end} bytes")
            hasher.update(piece)
            offset += len(piece)
    return Digest("sha256", hasher.hexdigest())
