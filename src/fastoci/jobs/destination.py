"""Where a job's images go beside the store: an engine of containers that has them from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from fastoci.events import ImageRecorded
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.reference import Reference
from fastoci.jobs.layers import Arriving
from fastoci.jobs.plan import Resolved


class IntoPodman(msgspec.Struct, frozen=True):
    """Podman and CRI-O of this machine, which find images in the store: it is one of their additional image stores."""


class Keeping(msgspec.Struct, frozen=True):
    """How an image is kept there: whether its own gc may take it, and for which list it is."""

    pinned: bool = False
    list_name: str = ""


class Destination(Protocol):
    """Takes the blobs of a job as soon as they are in the store, and then its images."""

    @property
    def tees(self) -> int | None:
        """How many of an image's lowest layers it reads while they arrive; None: all."""

    @property
    def unpacks_at(self) -> Path | None:
        """A directory on whose disk it unpacks layers; None: it does not, or nobody knows."""

    async def unpack(self, resolved: Resolved, config: ImageConfig, arriving: Arriving) -> None:
        """Make of an image's layers what is wanted of them there, before it is recorded.

        Raises:
            ContainerdError: it refused, or is gone.
            UnpackError, FormatError, UnsupportedError, IntegrityError, StoreError: as ``Layering.make``.
        """

    def check(self, images: Sequence[Resolved]) -> None:
        """Before anything is fetched: look whether an image can be taken, for each of these platforms.

        Raises:
            UnsupportedError: it cannot.
        """

    async def claim(self, layers: Sequence[Descriptor]) -> None:
        """Hold those of these layers that are there already: the store counts them as its own until the job ends.

        Raises:
            ContainerdError: it is gone.
        """

    def arrived(self, blob: Descriptor, reference: Reference) -> None:
        """A blob is in the store; it is taken meanwhile. What fails, fails ``record``."""

    async def record(self, asked: str, images: Sequence[Resolved], keeping: Keeping) -> ImageRecorded | None:
        """Take an image whose blobs and documents are in the store, for each of these platforms.

        Args:
            asked: what the user called it, in events.
        Returns:
            what observers were told.
        Raises:
            ContainerdError: it refused, or is gone; nothing leads to the image.
            StoreError: the disk refused.
        """

    async def prune(self, list_name: str, wanted: Mapping[str, bool]) -> tuple[str, ...]:
        """Let go what the list brought there and does not want any more; their names.

        Args:
            wanted: names of references, and whether pinned.
        Raises:
            ContainerdError: as ``record``.
        """


class _Nowhere:
    """The store is enough."""

    tees = 0
    unpacks_at = None

    async def unpack(self, resolved: Resolved, config: ImageConfig, arriving: Arriving) -> None:
        """Nothing is made of it."""

    def check(self, images: Sequence[Resolved]) -> None:
        """All can be taken."""

    async def claim(self, layers: Sequence[Descriptor]) -> None:
        """Nothing is there."""

    def arrived(self, blob: Descriptor, reference: Reference) -> None:
        """It is enough in the store."""

    async def record(self, asked: str, images: Sequence[Resolved], keeping: Keeping) -> ImageRecorded | None:
        """It is recorded in the store."""
        return None

    async def prune(self, list_name: str, wanted: Mapping[str, bool]) -> tuple[str, ...]:
        """Nothing is there."""
        return ()


NOWHERE: Final[Destination] = _Nowhere()
