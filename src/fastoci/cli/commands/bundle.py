"""``fastoci bundle``: an image of the store becomes what a runtime starts, and no registry is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fastoci.cli import options

if TYPE_CHECKING:
    pass


class BundleOptions(options.OneImage):
    """What was asked for."""

    mount: bool


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("directory", metavar="DIR", type=options.FilePath())
@click.option("--mount", is_flag=True, help="Mount the image instead of unpacking it; changes go to DIR/upper.")
@options.one_image
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
        async with asked.engine() as engine:
            image = await engine.pull(asked.reference, platform=asked.platform, policy="never")
            await image.bundle(asked.directory, rootfs="mount" if asked.mount else "tree")

    run.run(work(), asked.progress)
