"""gRPC over a Unix socket: calls, and a server of calls."""

from fastoci.containerd.rpc.client import Connection, Stream
from fastoci.containerd.rpc.exchange import Bounds
from fastoci.containerd.rpc.framing import Code
from fastoci.containerd.rpc.peer import Peer
from fastoci.containerd.rpc.server import Call, Handler, Server

__all__ = ["Bounds", "Call", "Code", "Connection", "Handler", "Peer", "Server", "Stream"]
