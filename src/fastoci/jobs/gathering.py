"""All that is copied of an image: its documents, each behind what it names, and the blobs that they name.

Spec: image-spec v1.1 image-index.md, manifest.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from fastoci.errors import FormatError
from fastoci.image import index as indexes
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.convert import Format, form_of
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.jobs.resolve import Chain, Documents, Link
from fastoci.limits import Limits


class Gathered(msgspec.Struct, frozen=True):
    """Documents, each behind what it names, and the blobs that they name."""

    documents: tuple[Link, ...]
    blobs: tuple[Descriptor, ...]

    @property
    def top(self) -> Descriptor:
        """What the name stands for."""
        return self.documents[-1][0]

    @property
    def named(self) -> Descriptor:
        """The same, without what an index that it was in said of it."""
        return Descriptor(self.top.media_type, self.top.digest, self.top.size, artifact_type=self.top.artifact_type)

    def has_other_form(self, native: Format | None) -> bool:
        """Whether one of its documents has another form than this one."""
        forms = {form_of(descriptor.media_type) for descriptor, _ in self.documents} - {None, native}
        return native is not None and bool(forms)

    @property
    def parts(self) -> list[Descriptor]:
        """Everything."""
        return [*self.blobs, *self.described]

    @property
    def described(self) -> list[Descriptor]:
        """What names the documents."""
        return [descriptor for descriptor, _ in self.documents]

    @property
    def below(self) -> Gathered:
        """All but what the name stands for."""
        return Gathered(self.documents[:-1], self.blobs)

    @property
    def distributable(self) -> Gathered:
        """All but the layers that are at addresses of their own, and that registries may not distribute."""
        blobs = (blob for blob in self.blobs if not (blob.urls and blob.media_type in mediatype.FOREIGN))
        return Gathered(self.documents, tuple(blobs))

    def beside(self, others: Iterable[Gathered]) -> Gathered:
        """This image behind all that is brought with it."""
        every = [*others, self]
        blobs = {blob.digest: blob for each in every for blob in each.blobs}
        return Gathered(tuple(link for each in every for link in each.documents), tuple(blobs.values()))


async def gather(documents: Documents, chains: Iterable[Chain], limits: Limits) -> Gathered:
    """Read everything below the last documents of chains, and them.

    Raises:
        FormatError: an index has entries that cannot be read; there is too much of something.
        UnsupportedError: something is neither a manifest nor an index.
    """
    read: dict[Digest, Link] = {}
    blobs: dict[Digest, Descriptor] = {}

    async def descend(chain: Chain) -> None:
        descriptor, data = chain[-1]
        if descriptor.digest in read:
            return
        if descriptor.media_type not in mediatype.INDEXES:
            manifest = manifests.parse(data, descriptor.media_type)
            if len(manifest.layers) > limits.layers:
                raise FormatError(f"the manifest has {len(manifest.layers)} layers, more than {limits.layers}")
            blobs.update({blob.digest: blob for blob in (manifest.config, *manifest.layers)})
        else:
            index = documents.index(chain)
            if index.unread:
                raise FormatError(f"{descriptor.digest}: not all entries can be copied: {index.unread[0]}")
            for entry in index.manifests:
                if entry.media_type in mediatype.INDEXES | mediatype.MANIFESTS:
                    await descend(await documents.step(chain, entry))
                else:
                    blobs[entry.digest] = entry
        read[descriptor.digest] = descriptor, data

    for chain in chains:
        await descend(chain)
    return Gathered(tuple(read.values()), tuple(blob for blob in blobs.values() if blob.digest not in read))


def gathered_of(documents: Sequence[Link]) -> Gathered:
    """What documents name that were converted."""
    blobs: dict[Digest, Descriptor] = {}
    for descriptor, data in documents:
        if descriptor.media_type in mediatype.INDEXES:
            blobs |= {each.digest: each for each in indexes.parse(data, descriptor.media_type).manifests}
        else:
            manifest = manifests.parse(data, descriptor.media_type)
            blobs |= {blob.digest: blob for blob in (manifest.config, *manifest.layers)}
    known = {descriptor.digest for descriptor, _ in documents}
    return Gathered(tuple(documents), tuple(blob for blob in blobs.values() if blob.digest not in known))
