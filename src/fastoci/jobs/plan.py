"""What a pull is about to do, as a frozen value: costed in bytes, made before the first layer is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, get_args

import msgspec
from msgspec.structs import replace

from fastoci.arguments import expect, one_of
from fastoci.image import mediatype
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage

_PLAIN: Final = frozenset(
    {mediatype.OCI_LAYER, mediatype.OCI_FOREIGN, mediatype.DOCKER_LAYER, mediatype.DOCKER_FOREIGN}
)
_RATIO: Final = 2

Wanted = tuple[Platform, ...] | None  # platforms as the user asked; None: this machine's, empty: all that there are


LayerForm = Literal["none", "erofs", "erofs-4k", "overlay", "rootfs"]


class Layers(msgspec.Struct, frozen=True):
    """What the store keeps of an image's layers beside their blobs, for mounts.

    ``form`` is "erofs" (layer files and merged metadata), "erofs-4k" (layer files in blocks of 4096 bytes, without the
    tar: for containerd with dm-verity, and kernels before 6.4), "overlay" (layer directories), "rootfs" (a tree of the
    image), or "none". ``only``: the compressed blobs of layers go when their layer files are there. ``verity``: the
    kernel holds each read of these files against their fs-verity digests, where it can; "erofs-4k" has a hash tree of
    dm-verity.

    Raises:
        ValueError: ``only`` with another form than "erofs"; ``verity`` with one that makes no layer files.
    """

    form: LayerForm = "none"
    only: bool = False
    verity: bool = False

    def __post_init__(self) -> None:
        one_of(get_args(LayerForm), self.form, "form")
        if expect(bool, self.only, "only") and self.form != "erofs":
            raise ValueError(f"only: the blobs of layers can be dropped beside layer files, not with {self.form!r}")
        if expect(bool, self.verity, "verity") and not self.form.startswith("erofs"):
            raise ValueError(f"verity: layer files can be held against digests, not {self.form!r}")


class Resolved(msgspec.Struct, frozen=True):
    """A reference, followed from its name to one manifest.

    ``chain`` holds the documents passed on the way, the top first and the manifest last, with their bytes.
    ``signatures`` are those by which a policy let the manifest in, to be kept.
    """

    reference: Reference
    chain: tuple[tuple[Descriptor, bytes], ...]
    manifest: Manifest
    platform: Platform | None  # as the index has it, or the config when there is no index
    signatures: str = ""

    @property
    def top(self) -> Descriptor:
        """What the name points to: an index or a manifest."""
        return self.chain[0][0]

    @property
    def descriptor(self) -> Descriptor:
        """The manifest's."""
        return self.chain[-1][0]

    @property
    def documents(self) -> tuple[Descriptor, ...]:
        """Those of the chain."""
        return tuple(descriptor for descriptor, _ in self.chain)

    @property
    def is_outline(self) -> bool:
        """Whether it is Docker's schema 1, of which nobody knows what it becomes before its layers were read."""
        return self.manifest.media_type in mediatype.SCHEMA1

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers, each digest once, the config first; schema 1 is its own config, and no blob."""
        blobs = self.manifest.layers if self.is_outline else (self.manifest.config, *self.manifest.layers)
        return tuple({blob.digest: blob for blob in blobs}.values())

    @property
    def unpacked_estimate(self) -> int:
        """Bytes of files that its layers give, about."""
        return estimate_unpacked(self.manifest.layers)


class PullPlan(msgspec.Struct, frozen=True):
    """One image of a job: what it needs, what of it the store lacks, and which of the platforms asked for it is for."""

    resolved: Resolved
    missing: tuple[Descriptor, ...]
    wanted: Wanted = None

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.resolved.blobs)


def estimate_unpacked(layers: Sequence[Descriptor]) -> int:
    """Bytes of files that layers give, before one of them is here.

    Twice the compressed size, which nearly every layer takes (2 to 4 times are common): so a refusal is hardly ever
    wrong, and a disk may all the same turn out to be too small.
    """
    return sum(layer.size * (1 if layer.media_type in _PLAIN else _RATIO) for layer in layers)


def stored_image(resolved: Resolved, config: ImageConfig | None) -> StoredImage:
    """What a name led to, as the store records it when all of it is there."""
    platform = resolved.platform or (config.platform if config and config.os else None)
    return StoredImage(
        name=str(resolved.reference),
        descriptor=replace(resolved.top, platform=None),
        images={str(platform) if platform else "unknown": replace(resolved.descriptor, platform=platform)},
        pulled_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        signatures={str(resolved.descriptor.digest): resolved.signatures} if resolved.signatures else {},
    )


def stored_together(plans: Sequence[PullPlan], configs: Sequence[ImageConfig | None]) -> StoredImage:
    """What one name led to for several platforms."""
    stored = [stored_image(plan.resolved, config) for plan, config in zip(plans, configs, strict=True)]
    images = {platform: manifest for each in stored for platform, manifest in each.images.items()}
    signatures = {digest: text for each in stored for digest, text in each.signatures.items()}
    return replace(stored[0], images=images, signatures=signatures)
