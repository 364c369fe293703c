"""What others implement: places that whole images come from and go to.

Control is async, on the event loop. Each contract has one conformance suite in ``fastoci.testing.suites``, run on every
implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec

from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.interfaces import BlobSource


class ImageSource(Protocol):
    """A place that holds whole images and can be asked for one by name."""

    async def resolve(
        self, reference: Reference, held: tuple[Descriptor, bytes] | None = None
    ) -> tuple[Descriptor, bytes]:
        """The manifest or index that the reference names, as served.

        The bytes hash to the descriptor's digest; for a reference with a digest, to that one.

        Args:
            held: what it named before, verified; given back when it still does.
        Raises:
            NotFoundError, RegistryError, TransportError, IntegrityError
        """

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest that a descriptor names, verified against it.

        Raises:
            NotFoundError, RegistryError, TransportError, IntegrityError
        """


class NamedImage(msgspec.Struct, frozen=True):
    """An image of an ``ImageCollection``: its name, empty for one without, and the manifest or index it stands for.

    ``also``: more names of it, where the place gives one image several.
    """

    name: str
    top: Descriptor
    also: tuple[str, ...] = ()


class ImageCollection(Protocol):
    """A place without a registry that holds whole images, and says which: a layout, an archive, a directory."""

    async def names(self) -> tuple[NamedImage, ...]:
        """Its images, in its own order. A name is there once; images without one may be many.

        Raises:
            FormatError, UnsupportedError, IntegrityError, StoreError: nobody can say.
        """

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest that a descriptor names, as of ``ImageSource``.

        Raises:
            BlobNotFoundError, FormatError, IntegrityError, StoreError
        """


class AttachmentSource(Protocol):
    """A place that says what hangs on an image of it."""

    async def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """The manifests and indexes that say of themselves that they hang on this one, as the place lists them.

        Args:
            artifact_type: of this type alone.
        Raises:
            FormatError, UnsupportedError, RegistryError, TransportError, StoreError: nobody can say.
        """

    async def tagged(self, tag: str) -> tuple[Descriptor, bytes] | None:
        """The manifest or index under a tag beside the image's own; None when there is none.

        Raises:
            FormatError, UnsupportedError, IntegrityError, RegistryError, TransportError, StoreError
        """

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index, verified, as of ``ImageSource``."""


class WholeImage(msgspec.Struct, frozen=True):
    """An image that an ``ImageWriter`` has all of.

    ``name`` is empty for an image without a name. ``top`` is the manifest or index that the name stands for, ``blobs``
    everything the image needs: ``top``, the manifests below it, configs and layers.
    """

    name: str
    top: Descriptor
    blobs: Sequence[Descriptor]


# How a blob came into a place: it was there, the place took it from another of its own, by a link, or by its bytes.
Way = Literal["there", "mounted", "linked", "sent"]


class ImageWriter(Protocol):
    """Who brings images into an ``ImageSink``: ``missing``, ``put_blob`` each, then ``put_document``, then ``name``."""

    @property
    def at_once(self) -> int:
        """How many ``put_blob`` may run at a time. In a place that is written in one go it is 1."""

    async def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Which of these are not there, or not right; each digest once, in the order given. Documents, too.

        Raises:
            StoreError, RegistryError, TransportError: the place does not say.
        """

    async def put_blob(self, blob: Descriptor, source: BlobSource) -> Way:
        """Bring one blob, verified on its way: from a ``LinkableSource`` by a link, where that can be.

        Raises:
            IntegrityError: the source has other bytes under the name; none of them has it here.
            StoreError, RegistryError, TransportError: the place does not take it, or the source does not give it.
        """

    async def put_document(self, descriptor: Descriptor, data: bytes) -> None:
        """Bring a manifest or index, after all that it names. ``data`` are the bytes of the descriptor.

        Raises:
            StoreError, RegistryError, TransportError: the place does not take it.
        """

    async def name(self, image: WholeImage) -> None:
        """Let the image have its name when the writer ends; all of it was put, or was not ``missing``.

        Raises:
            UnsupportedError: the place cannot hold such an image.
            StoreError, RegistryError, TransportError: the place does not take it.
        """


class ImageSink(Protocol):
    """A place that whole images are brought to: an OCI layout, an archive, a registry.

    A ``BlobStore`` is filled by its sessions instead.
    """

    def begin(self) -> AbstractAsyncContextManager[ImageWriter]:
        """Bring images. At its end all have their names at once, where the place can; after an error none has.

        An image replaces what has its name; all others stay, unless the place is written anew as a whole.

        Raises:
            StoreBusyError: another process extends the place, and did not end.
            StoreError: the place cannot be written, or is another kind of thing.
        """
