"""What a store says of an unpacked layer: a layer file, merged metadata, a layer directory. Pure values.

Spec: docs/store-format.md 9.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fastoci.image.digest import Digest

Form = Literal["tar", "4k"]  # of a layer file: the layer's tar as it is, or the content of its files in blocks

TAR_OFFSET: Final = 4096  # of the tar in a layer file of the tar form
TREE: Final = "tree"  # in a layer directory: the files
ROOT: Final = "root"  # and an empty directory with the metadata of the tree's root
LAYOUT: Final = 1  # of the files that the writer makes of a tar: the same tar, form and layout give the same bytes


class LayerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a layer file when its last byte is written. Sizes and offsets are bytes.

    Args:
        tar_size: of the layer's tar, whatever the form.
        entries: of the layer.
        reasons: why a mount of it alone is not exact in an overlay; none when it is.
    """

    form: Form
    tar_size: int
    metadata_offset: int
    size: int
    entries: int
    reasons: tuple[str, ...] = ()

    @property
    def standalone(self) -> bool:
        """Whether a mount of it alone is exact in an overlay."""
        return not self.reasons

    @property
    def block(self) -> int:
        """Bytes of a block."""
        return 512 if self.form == "tar" else 4096

    @property
    def tar_part(self) -> tuple[int, int] | None:
        """Where in the file the tar begins and ends; None when it is not in it."""
        return (TAR_OFFSET, TAR_OFFSET + self.tar_size) if self.form == "tar" else None


class LayerInfo(LayerFacts, frozen=True, kw_only=True):
    """A layer file that a store has.

    ``digest`` is of all bytes beside the tar part, in the order of the file: of the tar part it is ``diff_id``.
    ``fs_verity`` is the file's fs-verity digest, empty when nobody computed it. A file that is not ``synced`` means
    nothing after the boot ``boot_id``.
    """

    diff_id: Digest
    path: str
    digest: Digest
    layout: int = LAYOUT
    fs_verity: str = ""
    boot_id: str
    synced: bool


class MergedInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The merged metadata of an image that a store has, as ``LayerInfo``.

    ``devices`` are the diff_ids of its layer files, in order; ``digest`` is of the whole file.
    """

    manifest: Digest
    path: str
    devices: tuple[Digest, ...]
    size: int
    digest: Digest
    layout: int = LAYOUT
    fs_verity: str = ""
    boot_id: str


class DirectoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a layer directory when it is whole.

    Args:
        entries, size: of the layers; bytes of files.
        reasons: why it is not exact on top of every stack of layers; none when it is, or is of several layers.
        owners: files have the owners that entries name; else all are of who made them.
        user_xattrs: overlayfs is told by ``user.overlay.*``, so a mount has the option ``userxattr``.
        names_root: an entry gives the root its metadata.
    """

    entries: int
    size: int
    reasons: tuple[str, ...] = ()
    owners: bool
    user_xattrs: bool
    names_root: bool


class LayerDirectory(DirectoryFacts, frozen=True, kw_only=True):
    """A layer directory that a store has: one layer in the form of overlayfs, or several merged into one tree.

    ``chain_id`` is of its layers: of one layer the diff_id. ``path`` is the tree. One that is not ``synced`` means
    nothing after the boot ``boot_id``.
    """

    chain_id: Digest
    path: str
    boot_id: str
    synced: bool

    @property
    def root(self) -> str:
        """An empty directory with the metadata of the tree's root, for stacks that need one more."""
        return f"{self.path.removesuffix(TREE)}{ROOT}"


def ranges_beside(facts: LayerFacts) -> list[tuple[int, int]]:
    """The bytes of a layer file of which ``LayerInfo.digest`` is, as begins and ends."""
    part = facts.tar_part
    return [(0, facts.size)] if part is None else [(0, part[0]), (part[1], facts.size)]
