"""Whether the tests run under the address sanitizer, as ``make asan`` runs them."""

from __future__ import annotations

import os
from typing import Final

_NAMES: Final = ("LD_PRELOAD", "PYTHONMALLOC", "ASAN_OPTIONS", "UBSAN_OPTIONS")

ENVIRONMENT: Final = {name: os.environ[name] for name in _NAMES if name in os.environ}  # what Python needs to start so
SANITIZED: Final = "libasan" in ENVIRONMENT.get("LD_PRELOAD", "")  # all takes several times the memory and the time
