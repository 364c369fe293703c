"""``fastoci bundle``: an image of the store becomes what a runtime starts, and no registry is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import options

if TYPE_CHECKING:
    from fastoci import Limits
    from fastoci.cli.progress.display import Display


class BundleOptions(options.Given):
    """What was asked for."""

    reference: str
    directory: Path
    mount: bool
    platform: str | None
    store: Path | None
    additional: tuple[Path, ...]
    limits: Limits
    progress: Display


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("directory", metavar="DIR", type=options.FilePath())
@click.option("--mount", is_flag=True, help="Mount the image instead of unpacking it; changes go to DIR/upper.")
@options.platform
@options.store
@options.additional
@options.limits("unpacked_size", "unpacked_entries", "memory", "durability")
@options.progress
@options.gather(BundleOptions)
def bundle(asked: BundleOptions) -> None:
    """Make a runtime bundle of an image of the store in DIR, new or empty, unless it is there already.

    DIR gets `rootfs`, the image's files, and `config.json`, which says how a container runs. REF is as of
    `fastoci unpack`. Another user than root gets a bundle for containers without root.

    \b
    fastoci bundle redis:7 ./redis && runc run --bundle ./redis my-redis
    """
    from fastoci.cli import run

    async def work() -> None:
        async with options.existing(
            asked.store, asked.additional, limits=asked.limits, observer=asked.progress
        ) as engine:
            image = await engine.pull(asked.reference, platform=asked.platform, policy="never")
            await image.bundle(asked.directory, rootfs="mount" if asked.mount else "tree")

    run.run(work(), asked.progress)
