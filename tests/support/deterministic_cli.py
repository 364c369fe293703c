"""The program ``fastoci``, so that two runs make the same system calls: its random names are told by ADVERSITY_TOKEN.
A blob is checkpointed, and its record synced, at each MiB; ADVERSITY_DURABILITY is the level of durability.
"""

from __future__ import annotations

import itertools
import os
import secrets
import uuid
from typing import Any, Literal

import msgspec

from fastoci import Limits
from fastoci.cli import options
from fastoci.cli.main import main as run
from fastoci.store.ingest import checkpoint

MIB = 1 << 20
LEVELS: dict[str, Literal["commit", "batch", "none"]] = {"commit": "commit", "batch": "batch", "none": "none"}


def _fix() -> None:
    numbers = itertools.count()
    prefix = os.environ["ADVERSITY_TOKEN"]
    given = options.limits_of

    def token_hex(nbytes: int | None = None) -> str:
        return f"{prefix}{next(numbers):0{2 * (nbytes or 32) - len(prefix)}x}"

    def limits_of(asked: dict[str, Any]) -> Limits:
        level = LEVELS[os.environ["ADVERSITY_DURABILITY"]]
        return msgspec.structs.replace(given(asked), checkpoint=MIB, durability=level)

    secrets.token_hex = token_hex
    uuid.uuid4 = lambda: uuid.UUID(token_hex(16))
    vars(options)["limits_of"] = limits_of
    vars(checkpoint)["_STEP"] = MIB


def main() -> None:
    _fix()
    run()


if __name__ == "__main__":
    main()
