"""Other programs of the machine configured for what this one does: what would change, as a plan that can be written.

Spec: docs/containerd.md.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastoci import path_walk
from fastoci.configure import containerd, docker, edits, podman
from fastoci.configure.containerd_config import Release
from fastoci.configure.mirrors import Mirror
from fastoci.configure.plan import ConfigurationPlan
from fastoci.errors import ConfigError, ContainerdError
from fastoci.store.gc.in_use import links
from fastoci.store.opening import default_store

StrPath = str | os.PathLike[str]

_VERSION: Final = re.compile(r"\bv?(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_ANSWER_S: Final = 10.0  # of a program that prints its version
_PROGRAM: Final = "containerd"


async def configure_containerd(
    *,
    config: StrPath | None = None,
    socket: StrPath | None = None,
    store: StrPath | None = None,
    snapshotters: Sequence[str] = (),
    mirrors: Sequence[str] = (),
    undo: bool = False,
) -> ConfigurationPlan:
    """ConfigurationPlan to have containerd unpack by ``fastoci differ``; nothing is written.

    Args:
        config: its configuration file; by default ``/etc/containerd/config.toml``, or that of a user.
        socket: where the differ listens.
        store: whose layers containerd 2.4 takes, when it unpacks for the snapshotter erofs.
        snapshotters: that are unpacked for; by default those that the configuration names.
        mirrors: ``HOST=URL`` each, asked before registries.
        undo: plan to take away what was written, and nothing else.
    Raises:
        UnsupportedError: this version of containerd would not start.
        ConfigError: its version is not known; a file cannot be edited, or may not be.
        StoreError: the disk refused.
    """
    environ = os.environ
    main = _text(config or _folder(environ, "containerd", "/etc/containerd") / "config.toml")
    if undo:
        return await asyncio.to_thread(_undone_containerd, main)
    wanted = containerd.Wanted(
        main,
        _text(socket or _runtime(environ) / "differ.sock"),
        _text(store or default_store()),
        tuple(dict.fromkeys(snapshotters)),
        tuple(map(Mirror.parse, mirrors)),
    )
    address = await asyncio.to_thread(containerd.address, main, edits.read)
    release = await _release(address)
    plan = await asyncio.to_thread(lambda: _checked(containerd.plan(wanted, release, edits.read)))
    if release >= containerd.DIFFERS_SINCE and not _is_socket(wanted.socket):
        note = (
            f"nothing listens at {wanted.socket}: start fastoci differ before containerd, which fails to pull without"
        )
        plan = ConfigurationPlan(plan.edits, (*plan.notes, note), plan.restart)
    return plan


async def configure_docker(*, config: StrPath | None = None, undo: bool = False) -> ConfigurationPlan:
    """ConfigurationPlan to have docker keep its images in containerd; nothing is written.

    Args:
        config: ``daemon.json``; by default ``/etc/docker/daemon.json``, or that of a user.
        undo: plan to have it as it was.
    Raises:
        ConfigError: a file cannot be edited, or may not be.
        StoreError: the disk refused.
    """
    path = _text(config or _folder(os.environ, "docker", "/etc/docker") / "daemon.json")
    make = docker.undo if undo else docker.plan
    return await asyncio.to_thread(lambda: _checked(make(path, edits.read)))


async def configure_podman(
    *,
    config: StrPath | None = None,
    store: StrPath | None = None,
    mirrors: Sequence[str] = (),
    undo: bool = False,
) -> ConfigurationPlan:
    """ConfigurationPlan to have podman, buildah and CRI-O see the store's images; nothing is written.

    Args:
        config: ``storage.conf``; by default ``/etc/containers/storage.conf``, or that of a user.
        store: whose images they see.
        mirrors: ``HOST=URL`` each, asked before registries.
        undo: plan to take away what was written, and nothing else.
    Raises:
        ConfigError: a file cannot be edited, or may not be.
        StoreError: the disk refused.
    """
    main = _text(config or _folder(os.environ, "containers", "/etc/containers") / "storage.conf")
    wanted = podman.Wanted(
        main,
        "/usr/share/containers/storage.conf" if config is None and os.geteuid() == 0 else f"{main}.usual",
        f"{_text(store or default_store())}/layers",
        f"{os.path.dirname(main)}/registries.conf.d/fastoci.conf",
        tuple(map(Mirror.parse, mirrors)),
    )
    make: Callable[[podman.Wanted, Callable[[str], bytes | None]], ConfigurationPlan] = (
        podman.undo if undo else podman.plan
    )
    return await asyncio.to_thread(lambda: _checked(make(wanted, edits.read)))


def _undone_containerd(main: str) -> ConfigurationPlan:
    stores = containerd.used_stores(main, edits.read)
    linked = any(link.startswith(f"{store}/layers/") for store, root in stores for link in links(root))
    return _checked(containerd.undo(main, linked, edits.read))


def _checked(plan: ConfigurationPlan) -> ConfigurationPlan:
    """The plan with the edits that change something, of files that may be edited."""
    needed = tuple(edit for edit in plan.edits if edit.before != edit.after)
    edits.check(needed)
    return ConfigurationPlan(needed, plan.notes, plan.restart if needed else (), plan.folder)


def _text(path: StrPath) -> str:
    """A path as a configuration says it.

    Raises:
        ConfigError: it is not UTF-8.
        StoreError: as for ``path_walk.absolute``.
    """
    text = os.path.normpath(path_walk.absolute(path))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{text!r} is not UTF-8: no configuration can name it") from error
    return text


def _folder(environ: Mapping[str, str], name: str, machine: str) -> Path:
    """Where a program's configuration is: the machine's for root, else the user's."""
    if os.geteuid() == 0:
        return Path(machine)
    home = path_walk.home(environ)
    if given := environ.get("XDG_CONFIG_HOME"):
        return Path(given, name)
    if home is None:
        raise ConfigError("HOME is not set: name the configuration file")
    return home / ".config" / name


def _runtime(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/run/fastoci")
    return Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}", "fastoci")


def _is_socket(path: str) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(os.stat(path).st_mode)
    return False


async def _release(address: str) -> Release:
    """The version of the containerd that listens at a socket; when none does, of the one that PATH leads to.

    Raises:
        ConfigError: there is none, or it does not say.
    """
    from fastoci.containerd.messages import Empty, Version
    from fastoci.containerd.methods import VERSION
    from fastoci.containerd.rpc import Connection

    with suppress(ContainerdError):
        async with await Connection.open(address) as connection:
            return release_of(Version.decode(await connection.call(VERSION, Empty().encode())).version)
    return await asyncio.to_thread(_installed)


def _installed() -> Release:
    try:
        done = subprocess.run(
            [_PROGRAM, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWER_S, check=False
        )
    except OSError as error:
        raise ConfigError(f"cannot ask {_PROGRAM} for its version: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{_PROGRAM} --version has not answered in {_ANSWER_S:.0f} s") from error
    return release_of(done.stdout.decode(errors="replace"))


def release_of(text: str) -> Release:
    """The release in what ``containerd --version`` prints, or in what the daemon says of itself.

    Raises:
        ConfigError: there is none.
    """
    match = _VERSION.search(text)
    if match is None:
        raise ConfigError(f"{_PROGRAM} says no version: {text[:200]!r}")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch
