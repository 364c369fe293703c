"""The program ``fastoci``, so that two runs make the same system calls: its random names are told by ADVERSITY_TOKEN,
and a blob is checkpointed at each MiB.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import secrets
import uuid
from typing import Any

from fastoci import Limits
from fastoci.cli import options
from fastoci.cli.main import main

CHECKPOINT = 1 << 20


def _fix() -> None:
    numbers = itertools.count()
    prefix = os.environ["ADVERSITY_TOKEN"]
    given = options.limits

    def token_hex(nbytes: int | None = None) -> str:
        return f"{prefix}{next(numbers):0{2 * (nbytes or 32) - len(prefix)}x}"

    def limits(*sizes: int | None, **others: Any) -> Limits:
        return dataclasses.replace(given(*sizes, **others), checkpoint=CHECKPOINT)

    secrets.token_hex = token_hex
    uuid.uuid4 = lambda: uuid.UUID(token_hex(16))
    vars(options)["limits"] = limits


if __name__ == "__main__":
    _fix()
    main()
