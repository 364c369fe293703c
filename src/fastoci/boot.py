"""Which boot of the machine this is: what was written and not synced is believed only in the boot that wrote it.

Spec: docs/store-format.md 2, "Boot".
"""

from __future__ import annotations

import uuid


def boot_id() -> str:
    """This boot's id; where the kernel tells none, a new one, so that nobody trusts what is not synced."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return str(uuid.UUID(file.read().decode().strip()))
    except (OSError, ValueError):
        return str(uuid.uuid4())
