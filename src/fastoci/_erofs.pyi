"""The native writer of EROFS files. It returns codes and facts and raises nothing typed."""

from typing import Literal, Self, final

from typing_extensions import Buffer as Readable

@final
class LayerFile:
    """Writes one layer as an EROFS file that mounts by itself. One thread at a time.

    ``fd`` is an empty file, open for reading and writing; it stays the caller's, who syncs and renames. ``form``:
    "tar", the layer's tar byte for byte from byte 4096 on, and metadata that point into it; "4k", the content of files
    in blocks of 4096 bytes. The first block is written last: before ``finish`` has returned 0, nothing mounts.
    ``max_memory``: what names and metadata may take, at 128 bytes an entry and its name. ``max_work``: what names,
    links and attributes may ask for beside the entries' own share (``csrc/layer/context.h``).
    """

    def __new__(
        cls,
        fd: int,
        /,
        *,
        form: Literal["tar", "4k"],
        uuid: bytes,
        max_entries: int,
        max_bytes: int,
        max_memory: int,
        max_work: int = ...,
    ) -> Self: ...
    def feed(self, data: Readable, /) -> int:
        """Parse and write a window of any size, without the GIL; 0, or a code (then the file is lost)."""
    def finish(self) -> int:
        """Demand the end of the archive, write the metadata and then the first block; 0 or a code."""
    def stop(self) -> None:
        """From any thread: the call under way, and every other, ends soon with a code."""
    def close(self) -> None:
        """Free all memory; idempotent, also after an error. Facts stay."""
    @property
    def code(self) -> int: ...
    @property
    def offset(self) -> int:
        """Offset in the tar of the header at fault."""
    @property
    def path(self) -> bytes:
        """The entry at fault."""
    @property
    def value(self) -> int:
        """errno for ``LAYER_IO``, else the number that was wrong."""
    @property
    def entries(self) -> int: ...
    @property
    def bytes(self) -> int:
        """Bytes of file content."""
    @property
    def size(self) -> int:
        """What counts for ``max_bytes``, holes excluded: ``bytes``, extended attributes, names that are long."""
    @property
    def skipped(self) -> dict[str, int]:
        """What could not be applied, as the extractor counts it; only "xattrs" can be more than 0."""
    @property
    def tar_size(self) -> int:
        """After ``finish``: bytes that were fed."""
    @property
    def metadata_offset(self) -> int:
        """After ``finish``: where the metadata begin."""
    @property
    def file_size(self) -> int:
        """After ``finish``."""
    @property
    def reasons(self) -> tuple[str, ...]:
        """After ``finish``: why a mount of this layer by itself is not exact in an overlay; none: it is standalone.

        "implied-parent": a directory that no entry names hides the metadata of a lower one, or a symbolic link.
        "hard-link": its target is in a lower layer. "whiteout": one lies below a directory that the layer does not
        hold. "opaque-root": the layer hides all that is below it. The first and the last do not matter to the lowest
        layer of an image. A layer with reasons may hold entries that only ``MergedMetadata`` refuses.
        """
    @property
    def names_root(self) -> bool:
        """Whether an entry gives the root its metadata: overlayfs shows the root of the topmost layer."""
    @property
    def memory(self) -> int:
        """Bytes that names and metadata take."""

@final
class MergedMetadata:
    """Writes the EROFS metadata of all layers of an image, whose devices are their layer files. One thread at a time.

    For each layer, the lowest first: ``begin``, then ``feed`` or ``read`` its whole tar, then ``end``; at last
    ``finish``. Each device holds its layer's tar from byte 4096 on. Members are as ``LayerFile``'s; ``max_entries`` and
    ``max_bytes`` are of each layer, the facts are of the layer at hand.
    """

    def __new__(
        cls,
        fd: int,
        /,
        *,
        uuid: bytes,
        max_entries: int,
        max_bytes: int,
        max_memory: int,
        max_work: int = ...,
    ) -> Self: ...
    def begin(self, tag: bytes, /) -> int:
        """Go on with the next layer; its tag, the hexadecimal part of its diff_id, has at most 64 bytes."""
    def feed(self, data: Readable, /) -> int: ...
    def read(self, fd: int, offset: int, size: int, /) -> int:
        """Feed the tar that a file has at this place, without the GIL; the content of files is passed over."""
    def end(self) -> int:
        """Demand the end of the layer's archive; 0 or a code."""
    def finish(self) -> int: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    @property
    def code(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def path(self) -> bytes: ...
    @property
    def value(self) -> int: ...
    @property
    def entries(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def skipped(self) -> dict[str, int]: ...
    @property
    def metadata_offset(self) -> int: ...
    @property
    def file_size(self) -> int: ...
    @property
    def memory(self) -> int: ...
