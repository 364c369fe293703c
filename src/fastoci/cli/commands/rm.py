"""``fastoci rm``: forgets the names of images."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import containerd_options, options
from fastoci.cli.formatting import plain
from fastoci.cli.signals import seen_in_time
from fastoci.errors import FastociError

if TYPE_CHECKING:
    from fastoci import Containerd


class PinnedError(FastociError):
    """The image is pinned, and nobody said that it may go all the same."""

    exit_code = 2


@click.command()
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Remove pinned images, too, without asking.")
@containerd_options.inside
@containerd_options.address
@options.store
def rm(
    references: tuple[str, ...], yes: bool, place: containerd_options.Place | None, address: str, store: Path | None
) -> int:
    """Remove images from the store, by name. `fastoci gc` then frees what only they needed; with --in containerd, its
    own gc does. With --in podman, podman and CRI-O find them in the store no more.

    Of a pinned image it asks on the terminal. The failure of one image does not stop the others.

    \b
    fastoci rm alpine redis:7
    fastoci rm alpine && fastoci gc
    fastoci rm redis:7 --in containerd:k8s.io
    fastoci rm redis:7 --in podman
    """
    from fastoci.cli import each, run

    if place is not None and place.namespace is not None:
        return _remove_there(references, yes, containerd_options.containerd(place.namespace, address))
    if place is not None:
        return _hide(references, store)

    async def find_pinned() -> dict[str, list[str]]:
        async with options.existing(store) as engine:
            found = {}
            for reference in references:
                with suppress(FastociError):  # is told when it is to be removed
                    found[reference] = [image.name for image in await engine.images([reference]) if image.pinned]
            return found

    kept = set[str]() if yes else _kept(run.run(find_pinned()))

    async def work() -> int:
        async with options.existing(store) as engine:

            async def remove(reference: str) -> None:
                if reference in kept:
                    raise PinnedError("this image is pinned, and stays: --yes removes it, too")
                await engine.remove(reference)

            return await each.each(references, remove)

    return run.run(work())


def _hide(references: Sequence[str], store: Path | None) -> int:
    """Let podman find images no more; the exit code."""
    from fastoci.cli import each, run

    async def work() -> int:
        async with options.existing(store) as engine:
            return await each.each(references, engine.hide_from_podman)

    return run.run(work())


def _remove_there(references: Sequence[str], yes: bool, containerd: Containerd) -> int:
    """Remove images from containerd; the exit code."""
    from fastoci.cli import each, run

    async def find_pinned() -> dict[str, list[str]]:
        found = {}
        async with containerd:
            for reference in references:
                with suppress(FastociError):  # is told when it is to be removed
                    found[reference] = [reference] if await containerd.pinned(reference) else []
        return found

    kept = set[str]() if yes else _kept(run.run(find_pinned()))

    async def work() -> int:
        async with containerd:

            async def remove(reference: str) -> None:
                if reference in kept:
                    raise PinnedError("this image is pinned, and stays: --yes removes it, too")
                await containerd.remove(reference)

            return await each.each(references, remove)

    return run.run(work())


def _kept(pinned: Mapping[str, Sequence[str]]) -> set[str]:
    """The references that the user, asked on the terminal, does not want to go: of pinned names, by reference."""
    terminal = sys.stdin.isatty()
    with seen_in_time():
        return {
            reference
            for reference, names in pinned.items()
            for name in names
            if not (terminal and click.confirm(f"{plain(name)} is pinned: remove it?", err=True))
        }
