"""What is kept of a large upload while it is under way, for the process after this one: where it goes on, and how far
its bytes are hashed.

The address of an upload is a secret between the registry and who began it. What cannot be kept, or read, is done
without. Knows no disk: that is the store's (``UploadNotes``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from yarl import URL

from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import HashPoint, UploadNotes
from fastoci.registry.http.urls import parse_url

_LOG: Final = logging.getLogger(__name__)
_WORTH: Final = 8 << 20  # bytes of a blob
_POINTS: Final = 8  # the registry may be some way behind what was sent


class _Note(msgspec.Struct, frozen=True):
    place: str
    size: int
    points: tuple[HashPoint, ...]


class Remembered:
    """The note of one blob's upload to one repository.

    Args:
        notes: where it is kept; None: nowhere.
        name: the repository, ``domain/path``.
    """

    def __init__(self, notes: UploadNotes | None, name: str, blob: Descriptor) -> None:
        self._notes = notes if blob.size >= _WORTH else None
        self._name = name
        self._blob = blob
        self._server = ""

    async def take(self, server: str) -> tuple[URL, tuple[HashPoint, ...]] | None:
        """Where an earlier process's upload to a server goes on: it is this one's from now on, and no other's."""
        if self._notes is None:
            return None
        try:
            data = await self._notes.take(self._key(server))
            if data is None:
                return None
            note = msgspec.json.decode(data, type=_Note)
            return (parse_url(note.place), note.points) if note.size == self._blob.size else None
        except (StoreError, ValueError) as error:
            _LOG.debug("%s: what is kept of an upload cannot be read: %s", self._blob.digest, error)
            return None

    async def keep(self, server: str, place: URL, points: Sequence[HashPoint]) -> None:
        """Keep where the upload goes on."""
        if self._notes is not None:
            self._server = server
            note = _Note(str(place), self._blob.size, tuple(points[-_POINTS:]))
            try:
                await self._notes.keep(self._key(server), msgspec.json.encode(note))
            except StoreError as error:
                _LOG.debug("%s: where its upload goes on is not kept: %s", self._blob.digest, error)

    async def drop(self) -> None:
        """The upload is over."""
        if self._notes is not None and self._server:
            try:
                await self._notes.drop(self._key(self._server))
            except StoreError as error:
                _LOG.debug("%s: what is kept of its upload stays: %s", self._blob.digest, error)

    def _key(self, server: str) -> str:
        return f"{server} {self._name} {self._blob.digest}"
