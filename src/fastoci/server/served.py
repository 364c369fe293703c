"""What became of a call to the differ: for its log and its metrics."""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal["done", "handed over", "refused", "cancelled"]


class Served(msgspec.Struct):
    """One call."""

    method: Literal["apply", "diff"]
    digest: str = ""
    size: int = 0  # bytes of the layer as it is kept
    tar_size: int = 0
    entries: int = 0
    outcome: Outcome = "refused"
    reason: str = ""  # why it was not done here
    elapsed_s: float = 0.0
