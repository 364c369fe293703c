"""How much disk a store uses, and for whom: from descriptors, without a stat of each blob.

Only blobs that no reference reaches are looked at, because nothing else says how large they are. A blob counts as there
when its name is. Synchronous, for threads. Spec: docs/store-format.md 6 and 8.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from fastoci import files
from fastoci.errors import FastociError, FormatError, StoreError
from fastoci.image.digest import Digest
from fastoci.image.graph import tops_of
from fastoci.image.links import Link
from fastoci.limits import DOCUMENT
from fastoci.store.graph import Read, names, reached, reader
from fastoci.store.index_json import foreign
from fastoci.store.layers.unpacked import Unpacked
from fastoci.store.layout import StoreLayout
from fastoci.store.refs import Refs
from fastoci.threads import Check, go_on

_SIZE_BITS: Final = 63  # a size, and above it who has the blob


class Amount(msgspec.Struct, frozen=True):
    """Some blobs and their bytes."""

    blobs: int = 0
    size: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.blobs + other.blobs, self.size + other.size)


class RefUsage(msgspec.Struct, frozen=True):
    """One reference: all that it reaches, what nobody else reaches, what it needs and is not there."""

    name: str
    held: Amount
    unique: Amount
    missing: Amount


class Usage(msgspec.Struct, frozen=True):
    """What the blobs of a store are there for.

    ``unique`` belong to one reference, ``shared`` to several, ``reclaimable`` to none. What other tools listed in
    ``index.json`` and is not a reference counts as one more, without a name. ``elsewhere`` are in additional
    stores, ``missing`` are needed and nowhere. ``partial`` are downloads that were begun. ``layers`` is what is
    unpacked: layer files, merged metadata and layer directories. ``broken`` are files that should be references, and
    references that lead to more than is looked at.
    """

    unique: Amount
    shared: Amount
    reclaimable: Amount
    elsewhere: Amount
    missing: Amount
    partial: Amount
    layers: Amount
    references: tuple[RefUsage, ...]
    broken: tuple[StoreError, ...]

    @property
    def total(self) -> Amount:
        """All that is in this store itself."""
        return self.unique + self.shared + self.reclaimable + self.partial + self.layers


class _Count:
    """Blobs by digest, in as little memory as it goes: a number each, of the size and of the one who has the blob."""

    def __init__(self) -> None:
        self._users: dict[str, int] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._users

    def add(self, digest: str, size: int, user: int) -> None:
        """One more user, from 1 on; 0 stands for several."""
        before = self._users.get(digest)
        if before is None:
            self._users[digest] = user << _SIZE_BITS | size
        elif before >> _SIZE_BITS != user:
            self._users[digest] = before & ((1 << _SIZE_BITS) - 1)

    def sums(self, users: int) -> list[Amount]:
        """What each user has alone; at 0, what several have."""
        blobs, sizes = [0] * (users + 1), [0] * (users + 1)
        for value in self._users.values():
            user = value >> _SIZE_BITS
            blobs[user] += 1
            sizes[user] += value & ((1 << _SIZE_BITS) - 1)
        return [Amount(*each) for each in zip(blobs, sizes, strict=True)]


class _Walk:
    """Where each blob is that a reference reaches. ``unreached`` are those of the store that none has so far."""

    def __init__(self, own: StoreLayout, additional: Sequence[StoreLayout], read: Read) -> None:
        self.unreached = set(names(own))
        self.broken: list[StoreError] = []
        self.count = _Count()
        self.elsewhere: dict[str, int] = {}
        self.missing: dict[str, int] = {}
        self._own = own
        self._additional = additional
        self._read = read

    def follow(
        self, tops: Sequence[Link], user: int, *, name: str = "", spared: Container[str] = ()
    ) -> tuple[Amount, Amount]:
        """Count what a reference reaches; what of it is here, and what it needs and is nowhere.

        Args:
            spared: blobs that it does without.
        """
        blobs = size = 0
        lacking = Amount()
        for link, needed in self._reached(tops, name):
            digest = link.digest
            if digest in self.unreached or digest in self.count:
                self.unreached.discard(digest)
                found = link.size if needed else _stat(self._own, digest)  # an index may claim any
                self.count.add(digest, found, user)
                blobs += 1
                size += found
            elif digest in self.elsewhere or _is_in(self._additional, digest):
                self.elsewhere[digest] = link.size
            elif needed and digest not in spared:
                self.missing[digest] = link.size
                lacking += Amount(1, link.size)
        return Amount(blobs, size), lacking

    def _reached(self, tops: Sequence[Link], name: str) -> Iterator[tuple[Link, bool]]:
        try:
            yield from reached(tops, self._read, self._holds)
        except FormatError as error:
            self.broken.append(StoreError(f"{name or 'index.json'} {error.message}", path=self._own.root))

    def _holds(self, link: Link) -> bool:
        digest = link.digest
        if digest in self.unreached or digest in self.count or digest in self.elsewhere:
            return True
        return _is_in(self._additional, digest)

    def follow_foreign(self, user: int) -> None:
        """Count what other tools listed, which gc keeps."""
        try:
            tops = foreign(self._own)
        except StoreError as error:
            self.broken.append(error)
            return
        missing = dict(self.missing)
        for top in tops:
            self.follow([top], user)
        self.missing = missing  # what they lack, nobody here was asked for


def usage(
    own: StoreLayout, additional: Sequence[StoreLayout] = (), *, limit: int = DOCUMENT, check: Check = go_on
) -> Usage:
    """Add up what is there.

    Args:
        limit: bytes of one document.
        check: called now and then; what it raises ends the work.
    Raises:
        StoreError: the disk refused.
    """
    refs, broken = Refs(own).list(check=check)
    walk = _Walk(own, additional, reader((own, *additional), limit=limit, check=check))
    unpacked = Unpacked(own, additional, limit=limit, check=check)
    each = [
        (ref.name, *walk.follow(tops_of(ref), user, name=ref.name, spared=unpacked.spared(ref)))
        for user, ref in enumerate(refs, start=1)
    ]
    walk.follow_foreign(len(refs) + 1)
    shared, *alone = walk.count.sums(len(refs) + 1)
    return Usage(
        unique=sum(alone, Amount()),
        shared=shared,
        reclaimable=_stat_all(own, walk.unreached, check),
        elsewhere=_sum(walk.elsewhere),
        missing=_sum(walk.missing),
        partial=_partial(own),
        layers=Amount(len(unpacked.items), sum(item.size for item in unpacked.items)),
        references=tuple(
            RefUsage(name, held, unique, missing)
            for (name, held, missing), unique in zip(each, alone[:-1], strict=True)
        ),
        broken=(*broken, *walk.broken),
    )


def _sum(sizes: dict[str, int]) -> Amount:
    return Amount(len(sizes), sum(sizes.values()))


def _is_in(places: Sequence[StoreLayout], digest: str) -> bool:
    with suppress(FastociError):  # no digest that a blob is named by
        return any(place.holds(Digest.parse(digest)) for place in places)
    return False


def _stat(paths: StoreLayout, digest: str) -> int:
    algorithm, _, name = digest.partition(":")
    with suppress(OSError):  # gone meanwhile
        return paths.blobs(algorithm).stat(name).st_size
    return 0


def _stat_all(paths: StoreLayout, digests: set[str], check: Check) -> Amount:
    blobs = size = 0
    for digest in digests:
        check()
        algorithm, _, name = digest.partition(":")
        with suppress(OSError):  # gone meanwhile
            size += paths.blobs(algorithm).stat(name).st_size
            blobs += 1
    return Amount(blobs, size)


def _partial(paths: StoreLayout) -> Amount:
    blobs = size = 0
    with suppress(OSError):  # another user's store: nobody else sees its downloads
        for name in paths.ingests.names():
            with suppress(OSError), paths.ingests.enter(name) as directory:
                size += files.held_size(directory.stat("data"))
                blobs += 1
    return Amount(blobs, size)
