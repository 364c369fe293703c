"""An image that a store has by name: what the name led to, and which platforms of it are there. A pure value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from fastoci.image import document
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest

CONVERTED: Final = "io.fastoci.converted-from"  # of what a name leads to: the digest of what that was made of


class StoredImage(msgspec.Struct, frozen=True):
    """A name, what it led to, and what was fetched of it.

    ``name`` is ``str(Reference)``. ``descriptor`` is the index or manifest as resolved; ``images`` are the manifests
    that are held, by platform. ``pulled_at`` is RFC 3339, UTC. A ``pinned`` one stays whatever gc is asked to free.
    ``used_at`` is when it was used last, known to the hour; empty where nobody looked.
    ``size`` is of the configs and layers of ``images``, in bytes; None where nobody added it up.
    ``lists`` are the names of the lists that want the image, and whether it is pinned for the list's sake.
    ``layers_only`` says that its layers are kept unpacked, and their blobs are not needed where a layer file is there.
    ``signatures`` are those by which a policy let manifests in, by their digests, as ``trust.kept`` writes them.
    ``is_brought`` says that nothing but lists has recorded the name.
    """

    name: str
    descriptor: Descriptor
    images: Mapping[str, Descriptor]
    pulled_at: str
    pinned: bool = False
    size: int | None = None
    used_at: str = ""
    lists: Mapping[str, bool] = {}
    is_brought: bool = False
    layers_only: bool = False
    signatures: Mapping[str, str] = {}

    def __eq__(self, other: object) -> bool:
        """Whether they say the same, whenever each was used."""
        if not isinstance(other, StoredImage):
            return NotImplemented
        mine, its = (msgspec.structs.replace(each, used_at="") for each in (self, other))
        return msgspec.structs.astuple(mine) == msgspec.structs.astuple(its)

    def __hash__(self) -> int:
        return hash((self.name, self.descriptor, self.pulled_at, self.pinned, self.size))


def origin(descriptor: Descriptor) -> Digest:
    """The digest by which a registry knows what a name leads to here: of what was converted another one.

    Raises:
        FormatError: the annotation is no digest.
    """
    text = descriptor.annotations.get(CONVERTED)
    return descriptor.digest if text is None else document.digest(text, what=CONVERTED)
