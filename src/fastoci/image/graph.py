"""The graph of documents: everything that can be reached from an image's documents, and what of it the image needs.

Pure: whoever walks says what a document names, and what is there. One document may be called several things, and one
of them is right, so each is followed once under each type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from fastoci.image.links import Link, has_links
from fastoci.image.mediatype import INDEXES
from fastoci.image.stored_image import StoredImage


def tops_of(image: StoredImage) -> tuple[Link, ...]:
    """Where the walks of an image begin: its manifests, and the document that its name leads to."""
    return tuple(map(Link.of, (*image.images.values(), image.descriptor)))


def walk(
    tops: Iterable[Link],
    children: Callable[[Link, bool], Sequence[Link] | None],
    present: Callable[[Link], Link | None],
    *,
    strict: bool = False,
) -> Iterator[tuple[Link, bool]]:
    """Yield what can be reached from ``tops``, and whether they need it; first what they need.

    Needed are the tops themselves, and what a manifest among them names: a config and layers, whatever types it gives
    them. What else an index names belongs to platforms that nobody asked for, and its types are claims of whoever made
    it: that is reached as far as it is present. A blob comes as often as it is named.

    Args:
        children: what a document names, and whether it is one of ``tops``; None when it is not followed.
        present: the link with the size that it has; None when it is absent.
        strict: what the indexes name counts as ``tops`` do: nobody has said which of it is needed.
    """
    unique = {(link.digest, link.media_type): link for link in tops}
    queued = set(unique)
    left = sorted(
        reversed([(link, True) for link in unique.values()]), key=lambda each: each[0].media_type not in INDEXES
    )
    while left:
        link, top = left.pop()
        yield link, top
        found = children(link, top) if has_links(link.media_type) else None
        is_index = link.media_type in INDEXES
        for child in found or ():
            if top and not is_index:
                yield child, True
            elif (there := present(child)) is None:
                continue
            elif not is_index or not has_links(there.media_type):
                yield there, False
            elif (there.digest, there.media_type) not in queued:
                queued.add((there.digest, there.media_type))
                left.append((there, strict))
