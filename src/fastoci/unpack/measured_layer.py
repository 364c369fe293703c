"""A layer file whose fs-verity digest is known when it is written: the tar is hashed once more while it passes by.

Spec: docs/store-format.md 9; decisions/0019.
"""

from __future__ import annotations

from fastoci._core import Buffer
from fastoci.image.digest import Digest
from fastoci.image.layer_file import Form
from fastoci.unpack.erofs import LayerFileWriter
from fastoci.verity.fs_verity import FsVerity


class MeasuredLayerFile(LayerFileWriter):
    """A ``LayerFileWriter`` that has ``fs_verity``, the digest of the file, once ``finish`` has returned."""

    def __init__(
        self, fd: int, *, layer: Digest, form: Form, max_entries: int, max_bytes: int, max_memory: int
    ) -> None:
        super().__init__(
            fd, layer=layer, form=form, max_entries=max_entries, max_bytes=max_bytes, max_memory=max_memory
        )
        self.fs_verity = ""
        self._fd = fd
        self._verity = FsVerity()

    def feed(self, buffer: Buffer) -> None:
        """Parse, write and hash. Raises: as ``LayerFileWriter.feed``."""
        super().feed(buffer)
        if self._form == "tar":  # the bytes are in the file as they are, from its second block on
            self._verity.feed(buffer)

    def finish(self) -> None:
        """Make the file whole, and read what was not fed: the metadata, and the first block. Raises: as ``feed``."""
        super().finish()
        self.fs_verity = self._verity.finish(self._fd, self.name)
