"""``fastoci mount``: an image of the store becomes a mounted tree, and no registry is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import options

if TYPE_CHECKING:
    pass


class MountOptions(options.OneImage):
    """What was asked for."""

    writable: Path | None
    context: str
    verity: bool


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("directory", metavar="DIR", type=options.FilePath())
@click.option(
    "--writable", metavar="UPPER", type=options.FilePath(), help="Let the image be changed; UPPER gets the changes."
)
@click.option("--context", metavar="LABEL", default="", help="Give all files this label of SELinux.")
@click.option(
    "--verity",
    is_flag=True,
    help="Mount only when the kernel holds each read of layer files against their fs-verity digests.",
)
@options.one_image
@options.gather(MountOptions)
def mount(asked: MountOptions) -> None:
    """Mount an image of the store on DIR, new or empty, unless it is mounted there already.

    Layers that were not unpacked by a pull are unpacked first. An image is mounted once, on however many directories.
    `fastoci info` says how this machine mounts; where it cannot, DIR gets a tree. REF is as of `fastoci unpack`.

    \b
    fastoci mount redis:7 /mnt/redis
    fastoci mount redis:7 /srv/redis --writable /srv/redis-changes
    fastoci umount /mnt/redis
    """
    from fastoci.cli import run

    async def work() -> None:
        async with asked.engine() as engine:
            image = await engine.pull(asked.reference, platform=asked.platform, policy="never")
            await image.mount(asked.directory, upper=asked.writable, context=asked.context, verity=asked.verity)

    run.run(work(), asked.progress)
