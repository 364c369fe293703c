"""Signatures that a store keeps beside a name, so that the image can be verified again without its registry. Pure.

They are what a registry gave: nothing in a store says that they hold, and whoever reads them verifies them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fastoci.errors import FormatError
from fastoci.image import document
from fastoci.trust.signature import ANNOTATION, Signature

_SIZE: Final = 64 << 10  # characters of one manifest's: what is more is asked for again


def encode(signatures: Sequence[Signature]) -> str:
    """As text; empty when there are none, or they are too large to be kept."""
    needed = [Signature(each.payload, {ANNOTATION: each.annotations[ANNOTATION]}) for each in signatures]
    text = msgspec.json.encode(needed).decode() if needed else ""
    return text if len(text) <= _SIZE else ""


def decode(text: str) -> tuple[Signature, ...]:
    """Out of such text; none when it is none."""
    try:
        return document.decode(text.encode(), tuple[Signature, ...], what="kept signatures") if text else ()
    except (FormatError, UnicodeEncodeError):
        return ()
