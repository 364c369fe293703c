"""The options that name a containerd."""

from __future__ import annotations

import os
from typing import Final

import click

_SOCKET: Final = "/run/containerd/containerd.sock"

address = click.option(
    "--containerd-address",
    "address",
    metavar="SOCKET",
    default=lambda: os.environ.get("CONTAINERD_ADDRESS") or _SOCKET,
    help=f"Find containerd at this socket.  [default: $CONTAINERD_ADDRESS, else {_SOCKET}]",
)


def socket_of(address: str) -> str:
    """The path of an address, which some write with ``unix://`` before it."""
    return address.removeprefix("unix://")
