"""Image configs, as far as a pull needs them: the platform, and the diff_ids that the layers must unpack to.

What a container is started with (``config``, ``history``) stays in ``raw``.

Spec: image-spec v1.1 config.md; Docker image specification v1.2 for ``DOCKER_CONFIG``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from fastoci.errors import FormatError
from fastoci.image import document
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform

_WHAT: Final = "config"


class ImageConfig(msgspec.Struct, frozen=True):
    """The config of one image; ``created`` is as written, perhaps RFC 3339. ``raw`` are the bytes of its digest."""

    os: str
    architecture: str
    variant: str
    diff_ids: tuple[Digest, ...]
    created: str
    raw: bytes

    @property
    def platform(self) -> Platform:
        """What the image runs on, normalised; its fields may be empty."""
        return Platform(self.os, self.architecture, self.variant).normalised()

    def check_layers(self, layers: int) -> None:
        """Hold the number of diff_ids against the number of layers of the manifest.

        Raises:
            FormatError: they differ.
        """
        if len(self.diff_ids) != layers:
            raise FormatError(f"{_WHAT}: the manifest has {layers} layers, the config {len(self.diff_ids)} diff_ids")


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """The digest of layers on top of one another, the lowest first; of one layer its diff_id.

    Spec: image-spec v1.1 config.md, "Layer ChainID".
    """
    return chain_ids(diff_ids)[-1]


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """The ChainIDs of each layer with all that are below it, the lowest first."""
    chains = list(diff_ids[:1])
    for diff_id in diff_ids[1:]:
        chains.append(Digest.of(f"{chains[-1]} {diff_id}".encode()))
    return chains


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...] | None = None  # Go writes null for no layers
    type: Literal["layers"] = "layers"


class _Form(msgspec.Struct, frozen=True):
    rootfs: _RootFs | None = None  # absent in ``{}``, which stands for the config of what is no container
    os: str | None = None  # old builders leave out what nothing here depends on
    architecture: str | None = None
    variant: str | None = None
    created: object = None


def parse(data: bytes) -> ImageConfig:
    """Parse an image config exactly as its digest covers it.

    Raises:
        FormatError: not strict JSON, or a field of another type.
        UnsupportedError: a diff_id's algorithm is not supported.
    """
    form = document.decode(data, _Form, what=_WHAT)
    return ImageConfig(
        os=form.os or "",
        architecture=form.architecture or "",
        variant=form.variant or "",
        diff_ids=tuple(
            document.digest(text, what=f"{_WHAT}: diff_ids[{index}]")
            for index, text in enumerate((form.rootfs and form.rootfs.diff_ids) or ())
        ),
        created=form.created if isinstance(form.created, str) else "",
        raw=data,
    )
