"""The record of where an ingest can go on: frozen value <-> 512 bytes. No I/O.

Spec: docs/store-format.md 4.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Final

STATE_SIZE: Final = 512  # within one page: a killed writer leaves the old record or the new, and the CRC tells the rest
_BODY: Final = STATE_SIZE - 9  # before the CRC's 8 digits and the newline


@dataclass(frozen=True, slots=True)
class State:
    """``offset`` bytes of the data are written and hashed, of which the first ``synced`` were on the disk before."""

    boot_id: str
    synced: int
    offset: int
    hash_state: bytes

    def encode(self) -> bytes:
        """The record as it is on disk.

        Raises:
            ValueError: it is longer than a record may be.
        """
        text = json.dumps(
            {
                "boot_id": self.boot_id,
                "synced": self.synced,
                "offset": self.offset,
                "hash_state": self.hash_state.hex(),
            }
        )
        body = text.encode().ljust(_BODY)
        if len(body) != _BODY:
            raise ValueError(f"a hash state of {len(self.hash_state)} bytes does not fit")
        return body + b"%08x\n" % zlib.crc32(body)

    @staticmethod
    def decode(record: bytes) -> State | None:
        """The value, or None for a record that is torn, of another length, or not this at all."""
        body = record[:_BODY]
        if len(record) != STATE_SIZE or record[_BODY:] != b"%08x\n" % zlib.crc32(body):
            return None
        try:
            fields = json.loads(body)
            boot_id, synced, offset = fields["boot_id"], fields["synced"], fields["offset"]
            hash_state = bytes.fromhex(fields["hash_state"])
        except (ValueError, LookupError, TypeError):
            return None
        if type(boot_id) is not str or type(synced) is not int or type(offset) is not int:
            return None
        if not 0 <= synced <= offset:
            return None
        return State(boot_id, synced, offset, hash_state)
