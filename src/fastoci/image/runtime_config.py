"""The ``config.json`` of a runtime bundle: what an OCI runtime reads to start a container of an image.

What the image does not say is as ``runc spec`` and podman have it: all namespaces new, no terminal, few capabilities,
none that ``execve`` could add, and the kernel's own files masked or read only. The same values give the same bytes.

Spec: runtime-spec v1.0.2 config.md, config-linux.md; image-spec v1.1 conversion.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fastoci.errors import UnsupportedError
from fastoci.image.container_config import ContainerConfig
from fastoci.image.container_user import ContainerUser

ROOTFS: Final = "rootfs"  # beside the document
_VERSION: Final = "1.0.2"
# Podman's: an image's programs can become another user of it, and cannot make devices or raw packets.
_CAPABILITIES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
_NAMESPACES: Final = ("pid", "network", "ipc", "uts", "mount")
_MASKED: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_STRICT: Final = ["nosuid", "noexec", "nodev"]
_TTY: Final = 5  # the group of terminals


class IdRange(msgspec.Struct, frozen=True):
    """``size`` ids of a container from ``container`` on, which are the host's from ``host`` on."""

    container: int
    host: int
    size: int


class Volume(msgspec.Struct, frozen=True):
    """A place of the image that is a mount of its own, with the mode and the host's owner that the image gives it."""

    path: str
    mode: int = 0o755
    uid: int | None = None
    gid: int | None = None


class UserNamespace(msgspec.Struct, frozen=True):
    """Which users and groups a container has, for whoever is not root of the machine."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]

    def inside(self, uid: int, gid: int) -> tuple[int | None, int | None]:
        """What a user and a group of the host are in a container; None for what it does not have."""
        return _inside(self.uids, uid), _inside(self.gids, gid)


def runtime_config(
    config: ContainerConfig,
    user: ContainerUser,
    namespace: UserNamespace | None,
    volumes: Sequence[Volume],
    *,
    read_only: bool = False,
) -> bytes:
    """The document for a container of an image.

    Args:
        user: whom the image wants it to run as.
        namespace: the user namespace that it gets; None for root of the machine, whose containers have cgroups.
        volumes: for those that the image wants.
        read_only: the root file system cannot be written to.
    Raises:
        UnsupportedError: the namespace does not have the user.
    """
    if namespace is not None:
        user = _within(user, namespace)
    env = {"HOME": user.home, **config.env} if "HOME" not in config.env else config.env
    form = {
        "ociVersion": _VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
            "args": config.args,
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": config.working_dir,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "noNewPrivileges": True,
        },
        "root": {"path": ROOTFS, "readonly": read_only},
        "mounts": [*_mounts(namespace), *(_volume(each, namespace) for each in volumes)],
        "annotations": config.annotations,
        "linux": _linux(namespace),
    }
    return msgspec.json.format(msgspec.json.encode(form), indent=2) + b"\n"


def _within(user: ContainerUser, namespace: UserNamespace) -> ContainerUser:
    """The user without more groups, which runc gives nobody who is not root."""
    if not (_has(namespace.uids, user.uid) and _has(namespace.gids, user.gid)):
        raise UnsupportedError(
            f"the image wants user {user.uid}:{user.gid}, which the user namespace does not have: give your user more "
            "ids in /etc/subuid and /etc/subgid (and install newuidmap), or make the bundle as root"
        )
    return msgspec.structs.replace(user, groups=())


def _has(ranges: tuple[IdRange, ...], number: int) -> bool:
    return any(each.container <= number < each.container + each.size for each in ranges)


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, object]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _mounts(namespace: UserNamespace | None) -> list[dict[str, object]]:
    tty = [f"gid={_TTY}"] if namespace is None or _has(namespace.gids, _TTY) else []
    mounts = [
        _mount("/proc", "proc", "proc", _STRICT),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty]),
        _mount("/dev/shm", "tmpfs", "shm", [*_STRICT, "mode=1777", "size=65536k"]),
        _mount("/dev/mqueue", "mqueue", "mqueue", _STRICT),
        _mount("/sys", "sysfs", "sysfs", [*_STRICT, "ro"]),
    ]
    if namespace is None:
        mounts.append(_mount("/sys/fs/cgroup", "cgroup", "cgroup", [*_STRICT, "relatime", "ro"]))
    return mounts


def _volume(volume: Volume, namespace: UserNamespace | None) -> dict[str, object]:
    """A volume in memory that begins with what the image has there, and ends with the container."""
    options = ["nosuid", "nodev", "tmpcopyup", f"mode={volume.mode:04o}"]
    for key, number in (("uid", volume.uid), ("gid", volume.gid)):
        if number is not None and namespace is not None:
            number = _inside(namespace.uids if key == "uid" else namespace.gids, number)
        if number is not None:
            options.append(f"{key}={number}")
    return _mount(volume.path, "tmpfs", "tmpfs", options)


def _inside(ranges: tuple[IdRange, ...], host: int) -> int | None:
    """The id in a container that is ``host`` outside; None when it has none."""
    found = (each.container + host - each.host for each in ranges if each.host <= host < each.host + each.size)
    return next(found, None)


def _linux(namespace: UserNamespace | None) -> dict[str, object]:
    names = list(_NAMESPACES)
    linux: dict[str, object] = {"maskedPaths": _MASKED, "readonlyPaths": _READ_ONLY}
    if namespace is None:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        names.append("cgroup")
    else:
        names.append("user")
        for key, ranges in (("uidMappings", namespace.uids), ("gidMappings", namespace.gids)):
            linux[key] = [{"containerID": each.container, "hostID": each.host, "size": each.size} for each in ranges]
    linux["namespaces"] = [{"type": name} for name in names]
    return linux
