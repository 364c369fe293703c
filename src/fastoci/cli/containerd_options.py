"""The options that name a containerd, and a namespace of it that has images."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any, Final

import click

from fastoci.cli.options import Command

if TYPE_CHECKING:
    from fastoci import Containerd, Into

_SOCKET: Final = "/run/containerd/containerd.sock"
_NAMESPACE: Final = "default"


class Namespace(click.ParamType["str"]):
    """``containerd`` or ``containerd:NAMESPACE``; the namespace is what counts."""

    name = "namespace"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The namespace; a usage error when it is none."""
        match = re.fullmatch(r"containerd(?::(.+))?", str(value))
        if match is None:
            self.fail(f"{value!r} is not containerd or containerd:NAMESPACE, as containerd:k8s.io", param, ctx)
        return match[1] or os.environ.get("CONTAINERD_NAMESPACE") or _NAMESPACE


address = click.option(
    "--containerd-address",
    "address",
    metavar="SOCKET",
    default=lambda: os.environ.get("CONTAINERD_ADDRESS") or _SOCKET,
    help=f"Find containerd at this socket.  [default: $CONTAINERD_ADDRESS, else {_SOCKET}]",
)
inside = click.option(
    "--in",
    "namespace",
    type=Namespace(),
    metavar="containerd[:NAMESPACE]",
    help="Look into this namespace of containerd, instead of the store."
    "  [default: $CONTAINERD_NAMESPACE, else default]",
)

_OPTIONS = (
    click.option(
        "--into",
        "namespace",
        type=Namespace(),
        metavar="containerd[:NAMESPACE]",
        help="Let containerd have the images, too, in this namespace: as links, where it and the store are on one file"
        " system. What it has already is not fetched.  [default: $CONTAINERD_NAMESPACE, else default]",
    ),
    address,
    click.option(
        "--snapshotter",
        metavar="NAME",
        default=lambda: os.environ.get("CONTAINERD_SNAPSHOTTER") or "",
        help="Unpack the images in this snapshotter of containerd's."
        "  [default: $CONTAINERD_SNAPSHOTTER, else the namespace's, else overlayfs]",
    ),
    click.option(
        "--unpack/--no-unpack",
        default=True,
        help="With --into: unpack the images in containerd, too; or leave that to it.  [default: --unpack]",
    ),
)


def into(command: Command) -> Command:
    """The options of a command with ``--pin``, given to it as ``into``, a ``fastoci.Into`` or None."""

    @functools.wraps(command)
    def gathered(*, namespace: str | None, address: str, snapshotter: str, unpack: bool, **given: Any) -> int | None:
        chosen = None
        if namespace is not None:
            chosen = _into(namespace, address, snapshotter=snapshotter, unpack=unpack, pin=given["pin"])
        elif not unpack:
            raise click.UsageError("--no-unpack needs --into")
        return command(into=chosen, **given)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def socket_of(address: str) -> str:
    """The path of an address, which some write with ``unix://`` before it."""
    return address.removeprefix("unix://")


def containerd(namespace: str, address: str) -> Containerd:
    """The namespace that ``--in`` names. Raises: click.UsageError: it can be none."""
    from fastoci import Containerd

    return Containerd(_into(namespace, address))


def _into(namespace: str, address: str, **given: Any) -> Into:
    from fastoci import Into

    try:
        return Into(namespace=namespace, address=socket_of(address), **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
