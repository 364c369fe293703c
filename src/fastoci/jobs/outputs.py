"""What a job makes of its images beside their blobs in the store."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fastoci.arguments import expect
from fastoci.jobs.destination import NOWHERE, Destination, IntoPodman
from fastoci.jobs.plan import Layers
from fastoci.unpack.marker import Contents


class Outputs(msgspec.Struct, frozen=True):
    """What a pull makes of an image's layers: what the store keeps, and a tree of the user's; and where else it goes.

    Args:
        rootfs: where a finished tree of the image may be already; of one platform only.
        same_owner: as ``jobs.pull.contents`` takes it.
    """

    rootfs: Path | None = None
    same_owner: bool | None = None
    layers: Layers = Layers()
    into: Destination = NOWHERE


class Making(msgspec.Struct, frozen=True):
    """What is still to be made of an image's layers: what the store keeps, and the user's tree; and where it goes."""

    layers: Layers = Layers()
    tree: tuple[Path, Contents] | None = None
    into: Destination = NOWHERE

    @property
    def has_layers(self) -> bool:
        """The store keeps layers one by one."""
        return self.layers.form not in ("none", "rootfs")

    @property
    def reads(self) -> bool:
        """Anything at all, here."""
        return self.layers.form != "none" or self.tree is not None

    @property
    def tees(self) -> int | None:
        """How many of the lowest layers are used while they arrive; None: all."""
        if self.has_layers:
            return None
        return 1 if self.reads else self.into.tees


class Terms(msgspec.Struct, frozen=True):
    """How a job of many images is done: what the store keeps of layers, whether the first failure ends it, and where
    images go beside the store.

    ``fail_fast``: what is not there when the first image fails is skipped.
    """

    layers: Layers = Layers()
    fail_fast: bool = False
    into: Destination = NOWHERE


def kept_layers(given: Layers | None, into: object) -> Layers:
    """What the store keeps of layers: at least what podman is shown of them."""
    layers = Layers() if given is None else expect(Layers, given, "layers")
    return Layers("overlay") if layers.form == "none" and isinstance(into, IntoPodman) else layers
