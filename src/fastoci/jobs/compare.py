"""Compare two images, wherever they are: their documents, their layers, and the files that the layers make.

Layers are read when files are asked for, each once for the names and metadata of all files, and once more when files of
one size are in different layers: their content is hashed on its way. Nothing is unpacked. What was found is held for a
batch of files at a time.
Spec: docs/inspect.md.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence, Set
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import Final, Literal, get_args

import msgspec

from fastoci.errors import FormatError
from fastoci.image import config as config_document
from fastoci.image.comparison import Comparison, compare_images
from fastoci.image.platform import Platform
from fastoci.jobs.browse import TAG
from fastoci.jobs.inspect import Looked, look
from fastoci.jobs.layers import Pairs, layers_of
from fastoci.jobs.pull import PullContext
from fastoci.jobs.subjects import ReadableLayers, Subject
from fastoci.transfer.workers import WorkerPool
from fastoci.unpack.content_hashes import ContentHashes
from fastoci.unpack.erofs_difference import Difference, Facet, Place, differences, places
from fastoci.unpack.erofs_files import ImageFile, file_of
from fastoci.unpack.erofs_reader import ErofsReader, Inode

_BATCH: Final = 1 << 15  # files of which all that differs is held, about a kilobyte each

Change = Literal["added", "removed", "changed"]


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """A file that two images do not have alike, of any kind; ``left`` or ``right`` is None when that one lacks it.

    ``facets`` of a changed one: "kind", "mode", "owner", "size", "content", "link", "device", "xattr".
    """

    path: str
    change: Change
    facets: tuple[str, ...]
    left: ImageFile | None
    right: ImageFile | None


class _Side(msgspec.Struct, frozen=True):
    """The files of one image: its merged metadata, and its layers."""

    reader: ErofsReader
    layers: ReadableLayers
    pairs: Pairs


class Comparing:
    """Two images that are compared. ``comparison`` is what their documents say."""

    def __init__(self, context: PullContext, subjects: tuple[Subject, Subject], looked: tuple[Looked, Looked]) -> None:
        self._configs = _config_of(looked[0]), _config_of(looked[1])
        images = [each.inspection.images[0] for each in looked]
        self.comparison: Comparison = compare_images(images[0], images[1], self._configs)
        self._context = context
        self._subjects = subjects
        self._looked = looked

    async def files(self) -> AsyncGenerator[FileChange, None]:
        """All files that differ, in the order of their paths, each directory before what is in it.

        Raises:
            UnsupportedError, UnpackError, FormatError, IntegrityError: no tree can be made of the layers of one.
            FastociError: they cannot be had.
        """
        if self.comparison.has_same_layers:
            return
        with ExitStack() as opened:
            left, right = [await self._side(number, opened) for number in (0, 1)]
            stop = threading.Event()
            walk = differences(left.reader, right.reader, stop)
            while batch := await self._workers.run(lambda: list(islice(walk, _BATCH)), stop=stop.set):
                same = await self._same(left, right, [each for each in batch if each.is_open])
                for change in await self._workers.run(partial(_changes, left.reader, right.reader, batch, same)):
                    yield change

    @property
    def _workers(self) -> WorkerPool:
        return self._context.layering.workers

    async def _side(self, number: int, opened: ExitStack) -> _Side:
        """Merge the metadata of one image."""
        found = self._looked[number].found[0]
        pairs = layers_of(found[1], config_document.parse(self._configs[number]) if found[1].is_image else None)
        layers = self._subjects[number].layers(found, pairs)
        metadata = await layers.metadata()
        opened.callback(metadata.close)
        name = f"the merged metadata of {self._subjects[number].name}"
        return _Side(await self._workers.run(partial(ErofsReader, metadata.fileno(), name)), layers, pairs)

    async def _same(self, left: _Side, right: _Side, batch: Sequence[Difference]) -> set[bytes]:
        """The paths of those files whose content is the same after all."""
        if not batch:
            return set()
        mine = await self._digests(left, {each.left.nid: each.left for each in batch if each.left is not None})
        others = await self._digests(right, {each.right.nid: each.right for each in batch if each.right is not None})
        return {
            each.path
            for each in batch
            if each.left is not None and each.right is not None and mine[each.left.nid] == others[each.right.nid]
        }

    async def _digests(self, side: _Side, inodes: Mapping[int, Inode]) -> dict[int, bytes]:
        """The hashes of the content of files, by their inodes."""
        wanted = await self._workers.run(partial(_by_layer, side.reader, inodes))
        numbers = {diff_id.hex[:TAG]: number for number, (_, diff_id) in reversed([*enumerate(side.pairs)])}
        digests: dict[int, bytes] = {}
        for layer, files in wanted.items():
            number = numbers[layer] if layer else 0
            make = partial(ContentHashes, str(side.pairs[number][1]), files)
            digests |= (await side.layers.read(number, make)).digests
        return digests


async def compare(context: PullContext, subjects: tuple[Subject, Subject], wanted: Platform | None) -> Comparing:
    """Look at two images, to compare them.

    Raises:
        PlatformError: one has no image for the platform.
        FastociError: as ``look``.
    """
    left, right = [await look(context, subject, wanted, strict=True) for subject in subjects]
    return Comparing(context, subjects, (left, right))


def _config_of(looked: Looked) -> bytes:
    return looked.inspection.documents[looked.inspection.images[0].config_blob.digest]


def _by_layer(reader: ErofsReader, inodes: Mapping[int, Inode]) -> dict[str, dict[int, list[Place]]]:
    """Where the data of files are, by the layer that they are in; a file is in one. Files of holes alone are anywhere.

    Raises:
        FormatError: metadata are damaged: a file is in several layers.
    """
    found: dict[str, dict[int, list[Place]]] = {}
    for nid, inode in inodes.items():
        where = places(reader, inode)
        layers = {layer for _, _, layer, _ in where} - {""}
        if len(layers) > 1:
            raise FormatError(f"the metadata are damaged: data of inode {nid} are in {len(layers)} layers")
        found.setdefault(next(iter(layers), ""), {})[nid] = where
    return found


def _changes(left: ErofsReader, right: ErofsReader, batch: Sequence[Difference], same: Set[bytes]) -> list[FileChange]:
    """What of a batch does differ, as values."""
    found = []
    for each in batch:
        facets = each.facets if not each.is_open or each.path in same else _with_content(each.facets)
        mine = None if each.left is None else file_of(left, each.path, each.left)
        other = None if each.right is None else file_of(right, each.path, each.right)
        change: Change = "added" if mine is None else "removed" if other is None else "changed"
        if facets or change != "changed":
            path = "/" + os.fsdecode(each.path)
            found.append(FileChange(path=path, change=change, facets=facets, left=mine, right=other))
    return found


def _with_content(facets: tuple[Facet, ...]) -> tuple[Facet, ...]:
    """These and the content, in their usual order."""
    return tuple(facet for facet in get_args(Facet) if facet in facets or facet == "content")
