"""Layers as EROFS files that mount: sinks over the native writer.

A layer file is one layer; merged metadata are all layers of an image in one tree, whose content is in layer files.
Spec: Linux Documentation/filesystems/erofs.rst; image-spec v1.1 layer.md; docs/store-format.md 9.
"""

from __future__ import annotations

import uuid
from typing import Final

from fastoci import _erofs
from fastoci.image.digest import Digest
from fastoci.image.layer_file import Form, LayerFacts
from fastoci.unpack.layer import LayerSink

_TAG: Final = 64  # bytes of a device's tag


class LayerFileWriter(LayerSink):
    """A sink for the tar of one layer, which becomes a layer file. Nothing of other layers is needed.

    Before ``finish`` has returned, the file does not mount. It is neither synced nor renamed.

    Args:
        fd: an empty file, open for reading and writing; stays the caller's and must outlive this object.
        layer: its diff_id, or the digest of its blob; for messages and the file's UUID.
        form: ``tar``: the tar is in the file as it is; ``4k``: only the content of files, in blocks of 4096 bytes.
        max_entries, max_bytes: what this layer may make.
        max_memory: bytes of memory that its names and metadata may take; 32 times as many may be in the file.
    """

    def __init__(
        self, fd: int, *, layer: Digest, form: Form, max_entries: int, max_bytes: int, max_memory: int
    ) -> None:
        self._form: Form = form
        self._file = _erofs.LayerFile(
            fd,
            form=form,
            uuid=_uuid(f"blobs/{layer}"),
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_memory=max_memory,
        )
        super().__init__(self._file, str(layer))

    @property
    def names_root(self) -> bool:
        """Whether an entry gives the root its metadata: overlayfs shows the root of the topmost layer."""
        return self._file.names_root

    @property
    def memory(self) -> int:
        """Bytes that names and metadata take."""
        return self._file.memory

    @property
    def facts(self) -> LayerFacts:
        """What is known of the file once ``finish`` has returned."""
        return LayerFacts(
            form=self._form,
            tar_size=self._file.tar_size,
            metadata_offset=self._file.metadata_offset,
            size=self._file.file_size,
            entries=self._file.entries,
            reasons=self._file.reasons,
        )

    def finish(self) -> None:
        """Demand the end of the tar and make the file whole. Raises: as ``feed``."""
        super().finish()
        self._file.close()


class MergedWriter(LayerSink):
    """A sink for the tars of all layers of an image, the lowest first, which become its merged metadata.

    For each layer ``begin``, then ``feed`` or ``read`` its whole tar, then ``end``; at last ``finish``. The entries and
    bytes that it counts are of the layer at hand.

    Args:
        fd: an empty file, open for reading and writing; stays the caller's and must outlive this object.
        manifest: digest of the image's manifest, for the file's UUID.
        max_entries, max_bytes: what each layer may make.
        max_memory: bytes that all names and metadata may take.
    """

    def __init__(self, fd: int, *, manifest: Digest, max_entries: int, max_bytes: int, max_memory: int) -> None:
        self._metadata = _erofs.MergedMetadata(
            fd,
            uuid=_uuid(f"images/{manifest}"),
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_memory=max_memory,
        )
        super().__init__(self._metadata, str(manifest))

    @property
    def memory(self) -> int:
        """Bytes that names and metadata take."""
        return self._metadata.memory

    @property
    def file_size(self) -> int:
        """Bytes of the file once ``finish`` has returned."""
        return self._metadata.file_size

    def begin(self, diff_id: Digest) -> None:
        """Go on with the next layer. Raises: as ``feed``."""
        self.name = str(diff_id)
        self._check(self._metadata.begin(diff_id.hex[:_TAG].encode()))

    def read(self, fd: int, offset: int, size: int) -> None:
        """Feed the tar that a file has at this place; the content of files is passed over.

        Raises: as ``feed``.
        """
        self._check(self._metadata.read(fd, offset, size))

    def end(self) -> None:
        """Demand the end of the layer's tar. Raises: as ``feed``."""
        self._check(self._metadata.end())

    def finish(self) -> None:
        """Make the file whole. Raises: as ``feed``."""
        super().finish()
        self._metadata.close()


def _uuid(name: str) -> bytes:
    """As containerd names a layer in EROFS form; two layers are never the same to overlayfs."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"erofs:{name}").bytes
