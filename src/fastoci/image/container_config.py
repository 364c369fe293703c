"""What a container of an image is started with, as its config says: made safe to be written into a runtime's document.

An image is nobody's friend, and a runtime does what its document says. So what is not a variable, a path or a command
is refused or left out here, and labels by which runtimes are led are no annotations of the container.

Spec: image-spec v1.1 config.md (``config``), conversion.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import document

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WHAT: Final = "config"
_ANNOTATION: Final = "org.opencontainers.image."
_VOLUMES_MAX: Final = 1000  # each is a mount, of which a namespace has room for 100,000
# Annotations by which a runtime does something on the host: crun's hooks and handlers, systemd's properties, criu's
# files, devices of the container device interface, options of kata, gVisor, CRI-O, podman and containerd.
_LEADING: Final = (
    "run.oci.",
    "krun.",
    "module.wasm.",
    "org.systemd.",
    "org.criu.",
    "cdi.k8s.io/",
    "io.katacontainers.",
    "dev.gvisor.",
    "io.kubernetes.cri",
    "io.podman.",
    "io.containerd.",
)
# Mounts of the bundle: over, in or above these an image gets none of its own.
_KERNEL: Final = ("/proc", "/sys", "/dev")


class ContainerConfig(msgspec.Struct, frozen=True):
    """How a container of an image runs. ``user`` is as written; ``volumes`` are absolute, parents first.

    ``left_out`` are labels and volumes that are not for a container, for the user to know.
    """

    args: tuple[str, ...]
    env: Mapping[str, str]
    user: str
    working_dir: str
    volumes: tuple[str, ...]
    annotations: Mapping[str, str]
    left_out: tuple[str, ...]


class _Process(msgspec.Struct, frozen=True):
    user: str | None = msgspec.field(name="User", default=None)
    ports: dict[str, object] | None = msgspec.field(name="ExposedPorts", default=None)
    env: tuple[str, ...] | None = msgspec.field(name="Env", default=None)
    entrypoint: tuple[str, ...] | None = msgspec.field(name="Entrypoint", default=None)
    cmd: tuple[str, ...] | None = msgspec.field(name="Cmd", default=None)
    volumes: dict[str, object] | None = msgspec.field(name="Volumes", default=None)
    working_dir: str | None = msgspec.field(name="WorkingDir", default=None)
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)
    stop_signal: str | None = msgspec.field(name="StopSignal", default=None)


class _Form(msgspec.Struct, frozen=True):
    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    os_features: tuple[str, ...] | None = msgspec.field(name="os.features", default=None)
    author: str | None = None
    created: str | None = None
    config: _Process | None = None


def parse(data: bytes) -> ContainerConfig:
    """Read how a container of an image runs from the bytes of the image's config.

    Raises:
        FormatError: not strict JSON, a field of another type, a zero byte where the kernel would end a string.
        UnsupportedError: the image is not for Linux, or has too many volumes.
    """
    form = document.decode(data, _Form, what=_WHAT)
    if form.os not in (None, "", "linux"):
        raise UnsupportedError(f"the image is for {form.os}: runtime bundles are made for Linux")
    process = form.config or _Process()
    args = (*(process.entrypoint or ()), *(process.cmd or ())) or ("sh",)
    volumes, refused = _volumes(process.volumes or {})
    annotations, labels = _annotations(form, process)
    config = ContainerConfig(
        args=args,
        env=dict(_variables(process.env or ())),
        user=process.user or "",
        working_dir=posixpath.join("/", process.working_dir or ""),
        volumes=volumes,
        annotations=annotations,
        left_out=(*(f"label {label}" for label in labels), *(f"volume {volume}" for volume in refused)),
    )
    for text in (*config.args, *config.env, *config.env.values(), config.working_dir, *config.volumes):
        if "\0" in text:
            raise FormatError(f"{_WHAT}: {text[:100]!r} has a zero byte")
    return config


def _variables(env: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The variables, each name where it comes first, with its last value; a search path, unless the image has one."""
    found = [(name, value) for name, equals, value in (each.partition("=") for each in env) if name and equals]
    if not any(name == "PATH" for name, _ in found):
        yield "PATH", PATH
    yield from found


def _volumes(written: Mapping[str, object]) -> tuple[tuple[str, ...], list[str]]:
    """Where the image wants volumes, parents first; and those that would cover what the runtime mounts."""
    paths = sorted({"/" + posixpath.normpath("/" + path).lstrip("/") for path in written})
    if len(paths) > _VOLUMES_MAX:
        raise UnsupportedError(f"the image has {len(paths)} volumes, more than {_VOLUMES_MAX}")
    refused = [path for path in paths if path == "/" or f"/{path.split('/')[1]}" in _KERNEL]
    return tuple(path for path in paths if path not in refused), refused


def _annotations(form: _Form, process: _Process) -> tuple[dict[str, str], list[str]]:
    """The annotations by name, labels over what follows from the rest of the config; and the labels left out."""
    implied = {
        "os": form.os,
        "architecture": form.architecture,
        "variant": form.variant,
        "os.version": form.os_version,
        "os.features": ",".join(form.os_features or ()),
        "author": form.author,
        "created": form.created,
        "stopSignal": process.stop_signal,
        "exposedPorts": ",".join(sorted(process.ports or ())),
    }
    labels = process.labels or {}
    leading = sorted(name for name in labels if name.startswith(_LEADING) or not name)
    annotations = {_ANNOTATION + name: value for name, value in implied.items() if value}
    annotations |= {name: value for name, value in labels.items() if name not in leading}
    return dict(sorted(annotations.items())), leading
