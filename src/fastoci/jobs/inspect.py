"""Look at an image, wherever it is: what its documents say, and how many entries its layers have. Fetches no layer.

Spec: docs/inspect.md.
"""

from __future__ import annotations

from functools import partial

import msgspec

from fastoci.errors import FormatError, IntegrityError, PlatformError, UnpackError, UnsupportedError
from fastoci.image import config as config_document
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.inspection import InspectedEntry, InspectedImage, Inspection, entry_of, inspect_image
from fastoci.jobs.layers import Pairs, layers_of
from fastoci.jobs.pull import PullContext
from fastoci.jobs.resolve import Documents, Found, platform_of
from fastoci.jobs.subjects import Subject, Wanted
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.unpack.entry_count import EntryCount


class Looked(msgspec.Struct, frozen=True):
    """What was found, and the documents that say so, of each of its images."""

    inspection: Inspection
    found: tuple[Found, ...]


async def look(
    context: PullContext,
    subject: Subject,
    wanted: Wanted,
    *,
    entries: bool = False,
    strict: bool = False,
    top_only: bool = False,
) -> Looked:
    """Look at what a name leads to.

    Args:
        entries: count those of layers that are at hand.
        strict: an image there must be; else, where no platform is asked for and no index has one for this machine,
            there is none.
        top_only: look at no image.
    Raises:
        PlatformError: there is no image for the platform.
        FormatError, UnsupportedError: a document is not what it should be.
        FastociError: as the subject.
    """
    top, data = subject.top
    documents = Documents(subject, context.store, context.limits)
    documents.count(top)
    if top.media_type in mediatype.INDEXES and not top_only:
        documents.index(((top, data),))
    try:
        found = [] if top_only else await subject.images(documents, wanted)
    except PlatformError:
        if strict or wanted is not None:
            raise
        found = []
    known = {str(top.digest): data}
    images = tuple([await _image(context, subject, each, known, entries=entries) for each in found])
    inspection = Inspection(
        name=subject.name,
        media_type=top.media_type,
        digest=str(top.digest),
        size=top.size,
        entries=_entries(documents, top, set()),
        images=images,
        documents=known,
    )
    return Looked(inspection, tuple(found))


def _entries(documents: Documents, descriptor: Descriptor, seen: set[Digest]) -> tuple[InspectedEntry, ...]:
    """The entries of an index that was read, and of those in it; each index once, whoever names it again."""
    index = documents.known_index(descriptor.digest)
    if index is None or descriptor.digest in seen:
        return ()
    seen.add(descriptor.digest)
    return tuple(entry_of(each, _entries(documents, each, seen)) for each in index.manifests)


async def _image(
    context: PullContext, subject: Subject, found: Found, known: dict[str, bytes], *, entries: bool
) -> InspectedImage:
    """One image, whose documents are known then."""
    chain, manifest = found
    is_outline = manifest.media_type in mediatype.SCHEMA1
    config = chain[-1][1] if is_outline else await subject.document(manifest.config)
    known |= {str(chain[-1][0].digest): chain[-1][1], str(manifest.config.digest): config}
    if is_outline:
        from fastoci.image import schema1  # which few images are

        config = schema1.parse(config).config(())
    image = partial(inspect_image, chain[-1][0], manifest, config, platform=platform_of(chain))
    if not entries or not manifest.is_image:
        return image()
    try:
        pairs = layers_of(manifest, config_document.parse(config))
    except (FormatError, UnsupportedError):  # which layer is which nobody knows
        return image()
    counts, problems = await _counts(context, subject, found, pairs)
    return image(entries=counts, problems=problems)


async def _counts(
    context: PullContext, subject: Subject, found: Found, pairs: Pairs
) -> tuple[dict[Digest, int], list[str]]:
    """The entries of the layers that are at hand, and what is wrong with those that cannot be read."""
    layers, totals = (
        subject.layers(found, pairs),
        UnpackTotals(context.limits, subject.name, _unheard, base=False, owners=True),
    )
    counts: dict[Digest, int] = {}
    problems: list[str] = []
    for number, (blob, diff_id) in enumerate(pairs):
        if blob.digest in counts or not await subject.has(blob):
            continue

        def count(entries: int, size: int, name: str = str(diff_id)) -> EntryCount:
            return EntryCount(name)

        try:
            make = partial(totals.counted, number, count)
            counts[blob.digest] = (await layers.read(number, make, partial(totals.progress, number))).entries
        except (FormatError, UnsupportedError, UnpackError, IntegrityError) as error:
            problems.append(error.message)
    return counts, problems


def _unheard(event: object) -> None:
    """Nobody watches what is only looked at."""
