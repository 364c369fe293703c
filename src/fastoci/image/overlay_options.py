"""How overlayfs is told of layer directories: which layers are one by one, and the options of the mount. Pure.

Spec: Linux Documentation/filesystems/overlayfs.rst, "Multiple lower layers"; mount(2); docs/layer-directories.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from fastoci.image.config import chain_id
from fastoci.image.digest import Digest
from fastoci.image.layer_file import LayerDirectory

MAX_OPTIONS: Final = 4095  # bytes that mount(2) takes, of a page with a zero at its end
HARMLESS_AT_THE_BOTTOM: Final = frozenset({"implied-parent", "whiteout", "opaque-root"})  # nothing is below to differ
_ESCAPED: Final = str.maketrans({character: f"\\{character}" for character in "\\:,"})


def merged_layers(reasons: Sequence[Collection[str]]) -> int:
    """How many of the lowest layers count only as the tree that they make together: up to the highest with a reason.

    Args:
        reasons: why each layer is not exact on top of every stack, the lowest layer first.
    """
    merged = 0
    for number, found in enumerate(reasons):
        if set(found) - HARMLESS_AT_THE_BOTTOM if number == 0 else found:
            merged = number + 1
    return merged


def reasons_of(layer: LayerDirectory | None) -> tuple[str, ...]:
    """Why a layer is not exact on top of every stack; one that is refused alone has no directory."""
    return ("refused",) if layer is None else layer.reasons


def find_stack(
    diff_ids: Sequence[Digest], find: Callable[[Digest], LayerDirectory | None]
) -> list[LayerDirectory] | None:
    """The layer directories that show an image, the lowest first; None when not all are there.

    Args:
        diff_ids: of the image's layers, the lowest first.
        find: the layer directory of a ChainID.
    """
    found = [find(diff_id) for diff_id in diff_ids]
    merged = merged_layers([reasons_of(layer) for layer in found])
    stack = [layer for layer in found[merged:] if layer is not None]
    if not merged:
        return stack
    lowest = find(chain_id(diff_ids[:merged]))
    if lowest is None or merged_layers([lowest.reasons]):
        return None
    return [lowest, *stack]


def directories_of(stack: Sequence[LayerDirectory]) -> list[str]:
    """The directories that overlayfs puts on top of one another: trees, the lowest first, and perhaps an empty one.

    overlayfs gives its root the metadata of the topmost directory. When a lower layer was the last to name the root,
    an empty directory with that layer's metadata is on top. It wants two directories: one has an empty one below it.

    Args:
        stack: the lowest first; that may be several layers that are merged.
    """
    paths = [layer.path for layer in stack]
    naming = [layer for layer in stack if layer.names_root]
    if naming and naming[-1] is not stack[-1]:
        paths.append(naming[-1].root)
    return paths if len(paths) > 1 else [*(layer.root for layer in stack), *paths]


def lowerdir(directories: Sequence[str]) -> str:
    """The option that names all directories at once: the topmost first, apart by colons, escaped.

    Args:
        directories: absolute paths, the lowest first.
    """
    return "lowerdir=" + ":".join(path.translate(_ESCAPED) for path in reversed(directories))


def lowerdirs(directories: Sequence[str]) -> list[str]:
    """The same as options one by one, for fsconfig(2) from Linux 6.8 on: the topmost first, nothing is escaped.

    Args:
        directories: absolute paths, the lowest first.
    """
    return [f"lowerdir+={path}" for path in reversed(directories)]


def mount_options(directories: Sequence[str], *, user_xattrs: bool) -> list[str]:
    """The options of a mount of layer directories: all in one when mount(2) takes them, else one by one.

    Args:
        directories: absolute paths, the lowest first.
        user_xattrs: what overlayfs must know is in ``user.overlay.*``.
    """
    more = ["userxattr"] if user_xattrs else []
    at_once = [lowerdir(directories), *more]
    if len(",".join(at_once).encode("utf-8", "surrogateescape")) <= MAX_OPTIONS:
        return at_once
    return [*lowerdirs(directories), *more]
