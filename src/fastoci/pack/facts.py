"""What a name in a tree is, as far as a layer can say it, and whether two of them are the same. Pure.

Spec: image-spec v1.1 layer.md, "File Attributes"; overlayfs.rst for what is overlay's own.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fastoci.stream.tar_headers import Kind, TarEntry

_SECOND: Final = 1_000_000_000
WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
# What a layer may have, as the extractor takes it: labels and hashes of files are a machine's own.
_ATTRIBUTES: Final = (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
_OWN: Final = (b"overlay.", b"fastoci.")  # behind ``user.`` and ``trusted.``


class Facts(msgspec.Struct, frozen=True):
    """What a name is. ``overlay`` are overlayfs's attributes of it; ``identity`` and ``links`` are of its inode."""

    kind: Kind | Literal["socket"]
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    overlay: tuple[tuple[bytes, bytes], ...] = ()
    identity: tuple[int, int] = (0, 0)
    links: int = 1

    def entry(self, path: bytes) -> TarEntry:
        """The entry of a layer for it."""
        assert self.kind != "socket"
        return TarEntry(
            path,
            self.kind,
            mode=self.mode,
            uid=self.uid,
            gid=self.gid,
            mtime_ns=self.mtime_ns,
            size=self.size,
            link=self.link,
            device=self.device,
            xattrs=self.xattrs,
        )


IMPLIED_ROOT: Final = Facts("directory", 0o755, 0, 0, 0)  # of layers that do not name it


def is_packed(attribute: bytes) -> bool:
    """Whether a layer may have an extended attribute of this name."""
    space, _, name = attribute.partition(b".")
    return attribute in _ATTRIBUTES or (space in (b"user", b"trusted") and not name.startswith(_OWN))


def overlay_name(attribute: bytes) -> bytes | None:
    """The name that overlayfs has for an attribute of its own, ``opaque``; None for all others."""
    space, _, name = attribute.partition(b".")
    return name.removeprefix(b"overlay.") if space in (b"user", b"trusted") and name.startswith(b"overlay.") else None


def is_equal(new: Facts, old: Facts) -> bool:
    """Whether nothing but the content can differ.

    Times of directories do not count: they change with what is in them. The number of an inode's names does: a name
    more, or less, is a change of all of them.
    """
    if (new.kind, new.uid, new.gid, new.xattrs) != (old.kind, old.uid, old.gid, old.xattrs):
        return False
    if new.kind == "directory":
        return new.mode == old.mode
    if new.kind != "symlink" and new.mode != old.mode:
        return False
    mine = (new.mtime_ns, new.size, new.link, new.device, new.links)
    return mine == (old.mtime_ns, old.size, old.link, old.device, old.links)


def is_content_open(facts: Facts) -> bool:
    """Whether content may differ though all else is equal: a time of whole seconds says little, as tars have it."""
    return facts.kind == "file" and facts.size > 0 and facts.mtime_ns % _SECOND == 0


def whiteout(directory: bytes, name: bytes) -> TarEntry:
    """The deletion of what lower layers have under a name of a directory."""
    return _marker(directory, WHITEOUT + name)


def opaque(directory: bytes) -> TarEntry:
    """The deletion of all that lower layers have in a directory."""
    return _marker(directory, _OPAQUE)


def _marker(directory: bytes, name: bytes) -> TarEntry:
    return TarEntry(below(directory, name), "file", mode=0)


def below(directory: bytes, name: bytes) -> bytes:
    """The path of a name in a directory, whose path is empty for the root."""
    return directory + b"/" + name if directory else name
