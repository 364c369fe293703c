"""Whether this process is the program ``fastoci`` and nothing else: then nobody misses parts of other packages."""

from __future__ import annotations

OURS: bool = False  # the program says so before all else: fastoci.__main__
