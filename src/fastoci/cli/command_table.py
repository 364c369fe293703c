"""The program's commands: what each is for, in groups. The module of a command is imported when the command is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import click

GROUPS: Final = {
    "Images": {
        "pull": "Pull images into the store, and into files.",
        "prefetch": "Bring many images into the store as one job.",
        "copy": "Copy an image from one place to another.",
        "unpack": "Unpack an image of the store into a directory.",
        "bundle": "Make a runtime bundle of an image, for runc and crun.",
        "pack": "Make an image of a directory, or of what differs from another image.",
        "push": "Push an image of the store to a registry.",
        "publish": "Push an image with EROFS metadata beside it (an experiment).",
        "ls": "List the images in the store, or the files of one.",
        "find": "Print the paths of an image's files.",
        "cat": "Print a file of an image.",
        "export": "Write the files of an image as a tar.",
        "inspect": "Show what an image is, wherever it is.",
        "diff": "Show what differs between two images.",
        "view": "Write an OCI layout that shares the store's blobs.",
        "rm": "Remove images from the store, by name.",
        "pin": "Protect images from gc.",
        "unpin": "Undo pin.",
    },
    "Mounts": {
        "mount": "Mount an image of the store on a directory.",
        "umount": "Take an image away from where it is mounted.",
        "mounts": "List where images are mounted.",
    },
    "Files": {"apply": "Apply layer files onto a directory."},
    "containerd": {"differ": "Apply layers for containerd, as a service."},
    "Store": {
        "df": "Show disk usage.",
        "gc": "Delete what no image in the store needs.",
        "verify": "Hash the store's blobs again.",
        "repair": "Fetch bad and missing blobs again.",
    },
    "Registries": {
        "login": "Check credentials at a registry and keep them.",
        "logout": "Forget the credentials of a registry.",
        "tags": "List the tags of a repository.",
        "tag": "Give an image in a registry another tag.",
        "delete": "Delete images in registries.",
    },
    "Program": {
        "config": "Show the configuration.",
        "configure": "Tell containerd, podman or docker to use what fastoci does.",
        "info": "Show versions, and the kernels in use.",
    },
}
_NAMES: Final = tuple(name for commands in GROUPS.values() for name in commands)
_MODULES: Final = {"unpin": "pin"}  # of others it is the command's name


class Commands(Mapping[str, click.Command]):
    """The commands by name. ``prepare`` is called once with each, before anybody sees it."""

    def __init__(self, prepare: Callable[[click.Command], None]) -> None:
        self._prepare = prepare
        self._imported: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name in _NAMES and name not in self._imported:
            module = importlib.import_module(f"fastoci.cli.commands.{_MODULES.get(name, name)}")
            command: click.Command = getattr(module, name)
            self._prepare(command)
            self._imported[name] = command
        return self._imported[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)
