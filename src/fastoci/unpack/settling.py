"""The end of an unpack without root: give what this user can give, and report what stays lost."""

from __future__ import annotations

import msgspec

from fastoci import _extract
from fastoci.unpack import losses, user_namespace
from fastoci.unpack.losses import Notes, Settled
from fastoci.unpack.user_namespace import NamespaceError


def settle(
    root: int,
    notes: Notes,
    private: tuple[int, int],
    limit: int,
    manifest: str,
    *,
    mapped: bool,
    stop: _extract.Stop,
) -> Settled:
    """``losses.settle_and_report``, which gives owners and attributes when they are ``mapped`` and this user has ids.

    Args:
        private: the private directory and its lock, which says that it is in use.
    Raises:
        TooManyError, OSError: as that.
    """
    warning = ""
    if mapped and user_namespace.can_map():
        arguments = ["settle", str(root), *map(str, notes.fds), str(private[0]), str(limit), manifest]
        try:
            made = user_namespace.run(arguments, (root, *notes.fds, *private), stop)
            return Settled(made["counts"], tuple(made["devices"]), made["has_report"])
        except NamespaceError as error:
            warning = f"all files are this user's, although /etc/subuid has ids: {error}"
    settled = losses.settle_and_report(root, notes.native, private[0], limit, manifest, stop=stop)
    return msgspec.structs.replace(settled, warning=warning)
