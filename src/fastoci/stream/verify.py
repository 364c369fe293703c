"""Hold a stream against the digest and size that were promised. The only module that makes a ``Verified``.

Only worker threads hash, and they hash through ``hash_buffers``, so that streams in flight together share lanes. Knows
no framing, no files and no servers. Spec: image-spec v1.1 descriptor.md, "Digests"; FIPS 180-4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from fastoci import _core
from fastoci.errors import DigestMismatchError, SizeMismatchError
from fastoci.image.digest import Digest

_SEAL: Final = object()


class Verified(msgspec.Struct, frozen=True):
    """The proof that a stream's bytes were exactly ``digest`` and ``size`` long. Made by ``Verifier.proof`` only."""

    digest: Digest
    size: int
    _seal: object

    def __post_init__(self) -> None:
        if self._seal is not _SEAL:
            raise TypeError("only Verifier.proof makes a Verified")

    def __reduce__(self) -> str:
        raise TypeError("a Verified is a proof where it was made, and nowhere else")

    def __copy__(self) -> Verified:
        raise TypeError("a Verified is a proof where it was made, and nowhere else")


class Verifier:
    """The running digest and count of one stream. Belongs to one thread at a time.

    Args:
        digest: what the stream must hash to.
        size: how long it must be, None when only the digest is known (a diff_id).
        offset, state: resume after ``offset`` bytes with an earlier ``state()``.
    """

    def __init__(self, digest: Digest, size: int | None, *, offset: int = 0, state: bytes = b"") -> None:
        self.digest = digest
        self.size = size
        self.offset = offset
        self._hash = _core.Sha256() if digest.algorithm == "sha256" else hashlib.new(digest.algorithm)
        if offset:
            if not isinstance(self._hash, _core.Sha256):
                raise ValueError(f"{digest.algorithm} cannot be resumed")
            self._hash.restore(state)

    def state(self) -> bytes:
        """The hash state at ``offset``, to resume from; empty for an algorithm that cannot be resumed."""
        return self._hash.state() if isinstance(self._hash, _core.Sha256) else b""

    def expect(self, buffer: _core.Buffer) -> None:
        """Check that the stream may go on with ``buffer``.

        Raises:
            SizeMismatchError: it would become longer than promised.
        """
        if self.size is not None and self.offset + len(buffer) > self.size:
            raise self._wrong_size(self.offset + len(buffer))

    def proof(self) -> Verified:
        """Close the stream.

        Raises:
            SizeMismatchError: it is shorter than promised (longer fails while hashing).
            DigestMismatchError: other bytes.
        """
        if self.size is not None and self.offset != self.size:
            raise self._wrong_size(self.offset)
        actual = f"{self.digest.algorithm}:{self._hash.hexdigest()}"
        if actual != str(self.digest):
            raise DigestMismatchError(
                f"expected {self.digest}, the {self.offset} bytes received are {actual}",
                subject=str(self.digest),
                expected=str(self.digest),
                actual=actual,
            )
        return Verified(self.digest, self.offset, _SEAL)

    def _wrong_size(self, actual: int) -> SizeMismatchError:
        assert self.size is not None
        return SizeMismatchError(
            f"{self.digest}: expected {self.size} bytes, got {actual}",
            subject=str(self.digest),
            expected=self.size,
            actual=actual,
        )


class Meter(Verifier):
    """A ``Verifier`` of a stream that is being made: nothing was promised, and the proof says what it is."""

    def __init__(self) -> None:
        super().__init__(Digest.of(b""), None)

    def proof(self) -> Verified:
        """Close the stream."""
        return Verified(Digest("sha256", self._hash.hexdigest()), self.offset, _SEAL)


def hash_buffers(pairs: Sequence[tuple[Verifier, _core.Buffer | bytes]]) -> None:
    """Hash each piece into its stream, without the GIL, in shared lanes.

    The streams are distinct, and each was asked (``expect``) whether it may go on with its buffer.
    """
    lanes = []
    for verifier, buffer in pairs:
        if isinstance(verifier._hash, _core.Sha256):
            lanes.append((verifier._hash, buffer))
        else:
            verifier._hash.update(buffer)
        verifier.offset += len(buffer)
    _core.update_many(lanes)
