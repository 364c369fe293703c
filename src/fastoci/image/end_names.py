"""What images are called at the place that they are copied to, in its words. Text, no files and no network.

Spec: docs/copy.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from fastoci.errors import EndSyntaxError
from fastoci.image.attachments import Attachment
from fastoci.image.end import End
from fastoci.image.reference import Reference

_MANY: Final = frozenset({"oci", "oci-archive", "docker-archive"})  # where several images come at once


def demand_place_for(count: int, end: End, additional: Sequence[str]) -> None:
    """Refuse a destination that several images cannot go to at once.

    Raises:
        EndSyntaxError: the place takes one at a time, or would call all of them the same.
    """
    if count == 1:
        return
    if not count:
        raise EndSyntaxError(f"{end}: no image is named that goes there")
    if end.transport not in _MANY:
        raise EndSyntaxError(f"{end}: one image at a time goes there; several go to a layout or an archive")
    if end.name or additional:
        text = f"{end}: {count} images cannot all be called {end.name or additional[0]!r}"
        raise EndSyntaxError(f"{text}: give no name, and each keeps its own")


def kept_names(called: Sequence[str], end: End) -> list[str]:
    """The names of several images at one destination: those that they had, in the words of the place; "" for none.

    Raises:
        EndSyntaxError: two have the same, or one cannot be a name there.
    """
    kept = [names(End.parse(f"{end.transport}:{end.path}:{name}"), ())[0] if name else "" for name in called]
    for name in kept:
        if name and kept.count(name) > 1:
            raise EndSyntaxError(f"{end}: two of the images are called {name!r}: copy one of them alone")
    return kept


def names(end: End, additional: Sequence[str]) -> tuple[str, ...]:
    """What an image is called at its destination, in the words of the place: one name, or several.

    Args:
        additional: tags of the same repository; of a layout names, of an archive of docker references.
    Raises:
        EndSyntaxError: one is none; or the place gives no names.
    """
    match end.transport:
        case "docker" | "store":
            reference = Reference.parse(end.name)
            return (str(reference), *(_tagged(reference, tag) for tag in additional))
        case "docker-archive":
            return (end.name, *(str(Reference.parse(each)) for each in additional))
        case "dir" if additional:
            raise EndSyntaxError(f"{end}: a directory has one image, and gives it no name")
        case _:
            return (end.name, *(End.parse(f"{end.transport}:{end.path}:{each}").name for each in additional))


def _tagged(reference: Reference, text: str) -> str:
    """Another name in the repository: a tag alone, or in full.

    Raises:
        EndSyntaxError: it is of another repository, or no tag.
    """
    if not any(mark in text for mark in "/:@"):
        return str(Reference.parse(f"{reference.name}:{text}"))
    other = Reference.parse(text)
    if other.name != reference.name or other.digest is not None:
        raise EndSyntaxError(f"{text}: another tag is one of {reference.name}, as {reference.name}:TAG or TAG alone")
    return str(other)


def attachment_names(end: End) -> Callable[[Attachment], str | None]:
    """What that which hangs on an image is called at a destination.

    A registry lists it by its subject, or has it under its tag; a layout has entries without names; the store keeps
    nothing without a name.
    """

    def named(attachment: Attachment) -> str | None:
        match end.transport:
            case "docker" | "store":
                name, tag = Reference.parse(end.name).name, attachment.tag
                by_digest = None if end.transport == "docker" else f"{name}@{attachment.descriptor.digest}"
                return f"{name}:{tag}" if tag else by_digest
            case _:
                return attachment.tag

    return named
