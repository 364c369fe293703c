"""What hangs on another document, told to a registry that keeps no list of it: by the tag that lists such.

Nobody locks that tag. Who writes it reads it again afterwards: an entry that another writer lost is added again, a few
times.

Spec: distribution-spec v1.1, "Pushing Manifests with Subject", "Referrers Tag Schema", "Deleting Manifests".
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from fastoci.errors import FormatError, RegistryError
from fastoci.image import mediatype
from fastoci.image.attachments import referrer_of, referrers_tag, with_referrer
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest

_LOG: Final = logging.getLogger(__name__)
_ROUNDS: Final = 8
_PAUSE_S: Final = 0.3

Tagged = Callable[[str], Awaitable[tuple[Descriptor, bytes] | None]]
Put = Callable[[Descriptor, bytes, str], Awaitable[None]]


async def keep_listed(
    subject: Digest,
    descriptor: Descriptor,
    data: bytes,
    tagged: Tagged,
    put: Put,
    *,
    listing: bool = True,
    pause_s: float = _PAUSE_S,
) -> None:
    """Have the tag of a subject's referrers list a document, beside what others put there.

    Args:
        tagged: reads a tag.
        put: writes one.
        listing: False takes the document out.
        pause_s: before a list is held against what was written: at most that, as long as another may be at it.
    Raises:
        FormatError: what has the tag is no list.
        RegistryError: others write it all the time; or as ``tagged`` and ``put``. TransportError: as these.
    """
    tag, entry = referrers_tag(subject), referrer_of(descriptor, data)
    for count in range(_ROUNDS):
        found = await tagged(tag)
        if found is not None and found[0].media_type not in mediatype.INDEXES:
            raise FormatError(f"{tag}: the tag that lists what hangs on {subject} is no index")
        changed = with_referrer(None if found is None else found[1], entry, listing=listing)
        if changed is None:
            return
        if count:
            _LOG.debug("%s: another wrote it, too", tag)
        await put(Descriptor.of(changed, mediatype.OCI_INDEX), changed, tag)
        await asyncio.sleep(random.uniform(0, pause_s) * min(count, 4))
    text = f"{tag}: others write the list of what hangs on {subject} all the time, and {descriptor.digest} is not in it"
    raise RegistryError(text, url=tag)
