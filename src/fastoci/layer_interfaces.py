"""Where unpacked layers are kept: layer files, merged metadata, layer directories. Beside ``interfaces``.

Control is async, on the event loop. Spec: docs/store-format.md 9.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fastoci.image.digest import Digest
from fastoci.stream.verify import Verified

if TYPE_CHECKING:
    from fastoci.image.containers_storage import Record, StorageLayer, TarFacts
    from fastoci.image.layer_file import DirectoryFacts, Form, LayerDirectory, LayerFacts, LayerInfo, MergedInfo


class LayerIngest(Protocol):
    """A layer file on its way into a store: invisible until ``commit``. Held by one owner, under a lock."""

    fd: int  # the file, empty, for reading and writing; closed by ``commit`` and ``abort``

    async def commit(
        self, facts: LayerFacts, proof: Verified, *, fs_verity: str = "", dm_verity: bytes = b""
    ) -> LayerInfo:
        """Make the file durable where others trust it, and give it its name. Closes, also on error.

        Args:
            proof: that the tar it was made of has the diff_id.
            dm_verity: the sidecar that has its name before the file has.
        Raises:
            StoreError: the disk refused.
            ValueError: ``proof`` or ``facts`` are of another file.
        """

    async def abort(self) -> None:
        """Let go and delete it. Idempotent."""


class MergedIngest(Protocol):
    """Merged metadata on its way into a store, as ``LayerIngest``."""

    fd: int

    async def commit(self, devices: Sequence[Digest]) -> MergedInfo:
        """Give the file its name; ``devices`` are the diff_ids of its layer files, in order. As ``LayerIngest``."""

    async def abort(self) -> None:
        """Let go and delete it. Idempotent."""


class DirectoryIngest(Protocol):
    """A layer directory on its way into a store; ``fd`` is the directory, empty, that gets its tree."""

    fd: int

    async def commit(self, facts: DirectoryFacts, proofs: Sequence[Verified]) -> LayerDirectory:
        """Give the directory its name. Closes, also on error.

        Args:
            proofs: of its layers, the lowest first.
        Raises:
            StoreError: the disk refused.
            ValueError: ``proofs`` are of other layers.
        """

    async def abort(self) -> None:
        """Let go and delete it. Idempotent."""


class Split(NamedTuple):
    """What a layer's tar has beside the content of its files, in an open file, and what is known of the tar."""

    fd: int
    tar: TarFacts


class ImageStore(Protocol):
    """Shows images out of layer directories to containers/storage, as an additional image store. For threads.

    ``path`` is what its configuration names.
    """

    path: str

    def images(self) -> list[Record]:
        """The records of all images."""

    def known_layers(self) -> set[str]:
        """The ids of layers of which it is known how their tars are made again."""

    def new_split(self) -> int:
        """An empty file without a name, for a ``Split``; the caller closes it. Raises: ``StoreError``."""

    def add(
        self,
        layers: Sequence[StorageLayer],
        splits: Mapping[str, Split],
        image: Record,
        kept: Mapping[str, bytes],
        list_name: str = "",
    ) -> None:
        """Let an image be found; the layer directories that its layers show are there and durable.

        Args:
            splits: by the ids of layers; of a layer that has none, nothing but its id is said.
            kept: what is kept beside the image, by name.
            list_name: of the list that wants its name.
        Raises:
            StoreError: the disk refused; the records are broken.
        """

    def leave(self, list_name: str, wanted: Collection[str]) -> list[str]:
        """Take a list away from the names that it does not want any more; which of them nothing wants from then on."""

    def withdraw(self, name: str) -> bool:
        """Let a name go, or an image by its id, and an image that has no other name; whether there was one.

        Raises:
            StoreError: the disk refused.
            StoreBusyError: a container has the image mounted, as far as this process sees it.
        """


class LayerStore(Protocol):
    """Keeps unpacked layers by diff_id, and merged metadata by the digest of a manifest. As ``BlobStore``.

    A job that makes or uses them enters ``keep``; nothing else protects them from a gc that runs meanwhile. What a
    power cut may have damaged is absent. ``begin...`` is None when it is there by then, and raises ``StoreBusyError``
    while somebody else makes it; ``wait...`` waits for that one, holding nothing, and tells whether it is there.
    """

    def keep(self, digests: Collection[Digest]) -> AbstractAsyncContextManager[None]:
        """Keep layers from gc, those that are there and those to come: by diff_id, and directories by ChainID."""

    def find(self, diff_id: Digest) -> LayerInfo | None:
        """The layer file of a diff_id. May be called from any thread, as all that finds and opens."""

    def open(self, diff_id: Digest) -> int:
        """A read-only descriptor of a layer file, which the caller closes. Raises: ``BlobNotFoundError``."""

    def path(self, diff_id: Digest) -> Path:
        """Where a layer file is, for the kernel and for people; raises as ``open``."""

    async def begin(self, diff_id: Digest, *, form: Form | None = None) -> LayerIngest | None:
        """Begin a layer file; one of another ``form`` is replaced."""

    async def wait(self, diff_id: Digest, progressed: Callable[[int], None], *, form: Form | None = None) -> bool:
        """Wait for who makes a layer file; ``progressed`` is called with the bytes that it has."""

    async def discard(self, diff_id: Digest) -> None:
        """Delete a layer file: its bytes are not what its name says."""

    async def enforce(self, diff_id: Digest) -> bool:
        """Have the kernel hold each read of a layer file against its recorded digest; False where it cannot.

        Raises:
            BlobNotFoundError, DigestMismatchError: it is not there; it is not what was written.
        """

    async def enforce_merged(self, manifest: Digest) -> bool:
        """As ``enforce``, of merged metadata."""

    def find_merged(self, manifest: Digest) -> MergedInfo | None:
        """The merged metadata of an image, when all its layer files are there."""

    def open_merged(self, manifest: Digest) -> int:
        """As ``open``, of merged metadata whose layer files are all there."""

    async def begin_merged(self, manifest: Digest) -> MergedIngest | None:
        """Begin merged metadata."""

    async def wait_merged(self, manifest: Digest) -> bool:
        """Wait for who makes it."""

    def make_tree_place(self, manifest: Digest) -> Path:
        """Where the tree of an image belongs, in a directory for its owner alone, which is made when it is absent.

        Raises:
            StoreError: the disk refused.
        """

    def tree_size(self, manifest: Digest) -> int | None:
        """The bytes of an image's tree, as they were recorded; None when they were not."""

    async def record_tree(self, manifest: Digest, size: int) -> None:
        """Record the bytes of an image's tree, which is in its place.

        Raises:
            StoreBusyError: another process deletes it. StoreError: the disk refused.
        """

    def find_directory(self, chain_id: Digest, *, owners: bool) -> LayerDirectory | None:
        """The layer directory of a diff_id, or of several layers by their chain_id, with owners or without."""

    async def begin_directory(self, chain_id: Digest, *, owners: bool) -> DirectoryIngest | None:
        """Begin a layer directory; one with other ``owners`` is replaced."""

    async def wait_directory(self, chain_id: Digest, *, owners: bool) -> bool:
        """Wait for who makes it."""

    async def sync_directories(self, chain_ids: Collection[Digest]) -> None:
        """Make layer directories durable, as far as they are there: from then on a power cut leaves them.

        Raises:
            StoreError: the disk refused.
        """

    @property
    def image_store(self) -> ImageStore:
        """What podman and CRI-O are shown of layer directories."""
