"""Digests: ``algorithm:hex``, checked in full before anything is made of them.

Holds the grammar and the two algorithms that can be verified. Knows nothing of files or streams.

Spec: image-spec v1.1 descriptor.md, "Digests".
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from fastoci.arguments import expect
from fastoci.errors import ReferenceSyntaxError, UnsupportedError

_GRAMMAR: Final = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)")
_HEX: Final = re.compile(r"[0-9a-f]+")
HEX_DIGITS: Final = {"sha256": 64, "sha512": 128}  # by algorithm: those that can be verified


class Digest(msgspec.Struct, frozen=True):
    """A digest that can be verified. Every instance is well formed, so ``hex`` is safe as a file name or in a URL.

    Raises:
        ReferenceSyntaxError: not ``algorithm:encoded``, or sha256 and sha512 with anything but their lower-case digits.
        UnsupportedError: well formed, of another algorithm.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        digits = HEX_DIGITS.get(self.algorithm)
        if len(self.hex) == digits and _HEX.fullmatch(self.hex):
            return
        if not _GRAMMAR.fullmatch(f"{self.algorithm}:{self.hex}"):
            raise ReferenceSyntaxError(f"not a digest: {str(self)[:200]!r}")
        if digits is None:
            raise UnsupportedError(f"digest algorithm {self.algorithm[:64]!r} is not supported, sha256 and sha512 are")
        raise ReferenceSyntaxError(f"{self.algorithm} has {digits} lower-case hex digits, not {self.hex[:200]!r}")

    def __reduce__(self) -> tuple[object, ...]:
        return Digest, (self.algorithm, self.hex)  # checked again: it may come from elsewhere

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``algorithm:hex``.

        Raises:
            ReferenceSyntaxError, UnsupportedError: as the constructor.
        """
        expect(str, text, "digest")
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise ReferenceSyntaxError(f"not a digest, which is algorithm:hex: {text[:200]!r}")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Hash a small document.

        Raises:
            UnsupportedError: another algorithm than sha256 and sha512.
        """
        if algorithm not in HEX_DIGITS:
            raise UnsupportedError(f"digest algorithm {algorithm[:64]!r} is not supported, sha256 and sha512 are")
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
