"""Who is at the other end of a Unix socket, as the kernel says.

Spec: unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import socket
import struct

import msgspec


class Peer(msgspec.Struct, frozen=True):
    """The process at the other end; ``pid`` is 0 when it is in no namespace of ours."""

    pid: int
    uid: int
    gid: int

    @classmethod
    def of(cls, connected: socket.socket) -> Peer:
        """Who connected, or listened, when the connection was made."""
        data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return cls(*struct.unpack("3i", data))
