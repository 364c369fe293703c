"""The options that name who has images beside the store: a containerd with a namespace of it, or podman."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from fastoci.cli.options import Command

if TYPE_CHECKING:
    from fastoci import Containerd, Into, IntoPodman

_SOCKET: Final = "/run/containerd/containerd.sock"
_NAMESPACE: Final = "default"


class Place(NamedTuple):
    """Who has images: a namespace of containerd; without one, podman."""

    namespace: str | None


class PlaceType(click.ParamType["Place"]):
    """``containerd``, ``containerd:NAMESPACE`` or ``podman``."""

    name = "place"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """What was named; a usage error when it is none."""
        if isinstance(value, Place):
            return value
        if value == "podman":
            return Place(None)
        match = re.fullmatch(r"containerd(?::(.+))?", str(value))
        if match is None:
            text = f"{value!r} is not containerd, containerd:NAMESPACE, as containerd:k8s.io, or podman"
            self.fail(text, param, ctx)
        return Place(match[1] or os.environ.get("CONTAINERD_NAMESPACE") or _NAMESPACE)


address = click.option(
    "--containerd-address",
    "address",
    metavar="SOCKET",
    default=lambda: os.environ.get("CONTAINERD_ADDRESS") or _SOCKET,
    help=f"Find containerd at this socket.  [default: $CONTAINERD_ADDRESS, else {_SOCKET}]",
)
inside = click.option(
    "--in",
    "place",
    type=PlaceType(),
    metavar="containerd[:NAMESPACE]|podman",
    help="Look into this namespace of containerd, or at what podman finds in the store, instead of the store."
    "  [default: $CONTAINERD_NAMESPACE, else default]",
)

_OPTIONS = (
    click.option(
        "--into",
        "place",
        type=PlaceType(),
        metavar="containerd[:NAMESPACE]|podman",
        help="Let containerd have the images, too, in this namespace: as links, where it and the store are on one file"
        " system. What it has already is not fetched. Or let podman find them in the store."
        "  [default: $CONTAINERD_NAMESPACE, else default]",
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
    """The options of a command with ``--pin``, given to it as ``into``: ``fastoci.Into``, ``IntoPodman`` or None."""

    @functools.wraps(command)
    def gathered(*, place: Place | None, address: str, snapshotter: str, unpack: bool, **given: Any) -> int | None:
        chosen: Into | IntoPodman | None = None
        if place is not None and place.namespace is not None:
            chosen = _into(place.namespace, address, snapshotter=snapshotter, unpack=unpack, pin=given["pin"])
        elif not unpack:
            raise click.UsageError("--no-unpack needs --into containerd")
        elif place is not None:
            from fastoci import IntoPodman

            chosen = IntoPodman()
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
