"""Which lists want an image, as its reference remembers it: so that what a list brought can go when no list wants it.

Rules, in the order in which they decide:
1. What anybody recorded without a list is theirs, and no list takes it away.
2. What one list leaves stays while another one wants it, and its pin while another one pinned it.
3. Who pins by hand, or lets go by hand, takes the pin from the lists.

Pure. Spec: docs/store-format.md 6.
"""

from __future__ import annotations

from msgspec.structs import replace

from fastoci.image.stored_image import StoredImage


def merged(old: StoredImage | None, new: StoredImage) -> StoredImage:
    """What a name has when ``new`` is recorded: of the same descriptor all platforms stay, and a pin stays."""
    if old is None:
        return new
    if old.descriptor.digest == new.descriptor.digest:
        images, signatures = {**old.images, **new.images}, {**old.signatures, **new.signatures}
        new = replace(new, images=images, signatures=signatures)
    is_brought = old.is_brought and new.is_brought
    image = replace(new, pinned=old.pinned, lists=old.lists, is_brought=is_brought)
    for name, pins in new.lists.items():
        image = joined(image, name, pinned=pins)
    return pinned(image, True) if new.pinned and not new.lists else image


def joined(image: StoredImage, name: str, *, pinned: bool) -> StoredImage:
    """The image when a list wants it.

    Args:
        pinned: the list wants it pinned, and answers for that unless the image was pinned by hand.
    """
    is_theirs = not image.pinned or any(image.lists.values())
    pins = image.lists.get(name, False) or (pinned and is_theirs)
    return replace(image, pinned=image.pinned or pinned, lists={**image.lists, name: pins})


def released(image: StoredImage, name: str) -> StoredImage:
    """The image when a list wants it, but not pinned any more."""
    if not image.lists.get(name):
        return image
    lists = {**image.lists, name: False}
    return replace(image, pinned=any(lists.values()), lists=lists)


def left(image: StoredImage, name: str) -> StoredImage | None:
    """The image when a list does not want it any more; None when it goes, because only lists ever did."""
    if name not in image.lists:
        return image
    image = released(image, name)
    lists = {other: pins for other, pins in image.lists.items() if other != name}
    goes = image.is_brought and not lists and not image.pinned
    return None if goes else replace(image, lists=lists)


def pinned(image: StoredImage, pinned: bool) -> StoredImage:
    """The image when somebody pins it by hand, or lets it go."""
    return replace(image, pinned=pinned, lists=dict.fromkeys(image.lists, False))
