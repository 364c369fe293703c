"""How podman, buildah and CRI-O are told to see the images of the store, as an additional image store.

``storage.conf`` keeps what is there; one path is put into an array of it. Where there is none, that of the
distribution counts, and a new one would hide it: so the new one begins as its copy.

Spec: containers-storage.conf(5), "additionalimagestores"; containers-registries.conf.d(5).
"""

from __future__ import annotations

from typing import Final

import msgspec

from fastoci.configure.edits import Edit
from fastoci.configure.mirrors import Mirror, podman_file
from fastoci.configure.plan import ConfigurationPlan, Read
from fastoci.configure.toml_text import Place

BY: Final = "fastoci configure podman"
_SEED: Final = b'[storage]\ndriver = "overlay"\n'


class Wanted(msgspec.Struct, frozen=True):
    """What podman is configured for.

    Args:
        main: ``storage.conf``.
        usual: that of the distribution, which counts while there is no ``main``.
        images: the additional image store.
        registries: the file of mirrors.
        mirrors: that are asked before registries.
    """

    main: str
    usual: str
    images: str
    registries: str
    mirrors: tuple[Mirror, ...] = ()


def plan(wanted: Wanted, read: Read) -> ConfigurationPlan:
    """What makes podman see the images.

    Raises:
        ConfigError: a file cannot be edited, or is somebody else's.
    """
    before = read(wanted.main)
    seed = before if before is not None else read(wanted.usual) or _SEED
    after = _place(wanted.main).with_string(seed, wanted.images)
    registries = podman_file(wanted.mirrors, wanted.registries, BY, read)
    edits, restart = (Edit(wanted.main, before, after), registries), ("podman.service", "crio")
    return ConfigurationPlan(edits, restart=restart, folder=wanted.images)


def undo(wanted: Wanted, read: Read) -> ConfigurationPlan:
    """What takes away what ``plan`` made.

    Raises:
        ConfigError: a file cannot be edited, or is somebody else's.
    """
    before = read(wanted.main)
    after = None if before is None else _place(wanted.main).without_string(before, wanted.images)
    if after != before and after == (read(wanted.usual) or _SEED):
        after = None
    registries = podman_file((), wanted.registries, BY, read)
    return ConfigurationPlan((Edit(wanted.main, before, after), registries), restart=("podman.service", "crio"))


def _place(main: str) -> Place:
    return Place(main, ("storage", "options"), "additionalimagestores", by=BY)
