"""Names in a registry: another tag for what one names, and what is taken away. No blob is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastoci.errors import ReferenceSyntaxError
from fastoci.image.descriptor import Descriptor
from fastoci.image.reference import Reference

if TYPE_CHECKING:
    from fastoci.registry.push.repository import PushRepository


async def tag(repository: PushRepository, source: Reference, target: Reference) -> Descriptor:
    """Give what ``source`` names another tag of the same repository.

    Raises:
        NotFoundError, FormatError, UnsupportedError, IntegrityError: it names nothing, or what cannot be read.
        RegistryError, TransportError: the registry does not take it.
    """
    descriptor, data = await repository.reading.resolve(source)
    await repository.put_manifest(descriptor, data, target.target)
    return descriptor


def tag_target(source: Reference, text: str) -> Reference:
    """The new name of an image in its repository: in full, or the tag alone.

    Raises:
        ReferenceSyntaxError: it does not parse, is of another repository, or is no tag.
    """
    if not any(mark in text for mark in "/:@") and text:
        return _tagged(source, text)
    target = Reference.parse(text)
    if target.name != source.name:
        what = f"{text} is in {target.name}, and a tag stays in its repository, {source.name}"
        raise ReferenceSyntaxError(f"{what}: `fastoci copy docker://{source} docker://{target}` brings the image there")
    if target.digest is not None:
        raise ReferenceSyntaxError(f"{text}: a tag is given, and no digest")
    return target


def _tagged(source: Reference, tag: str) -> Reference:
    """A tag of the repository; the repository's own name would be one, and is meant for ``latest`` of it."""
    if tag == source.path.rpartition("/")[2]:
        both = f"{source.name}:latest or {source.name}:{tag}"
        raise ReferenceSyntaxError(f"{tag} may be the repository or a new tag in it: write {both}")
    return Reference.parse(f"{source.name}:{tag}")


def delete_target(text: str) -> Reference:
    """What is to be taken away: a tag, or a digest, which is said.

    Raises:
        ReferenceSyntaxError: it does not parse, or says neither, or both.
    """
    reference = Reference.parse(text)
    if reference.digest is None and not text.endswith(f":{reference.tag}"):
        raise ReferenceSyntaxError(f"{text}: name the tag, as {reference.name}:TAG, or the digest, that is to go")
    if reference.digest is not None and reference.tag is not None:
        raise ReferenceSyntaxError(
            f"{text}: name the tag or the digest; by a digest the manifest goes with all its tags"
        )
    return reference
