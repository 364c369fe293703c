"""``fastoci unpack``: an image of the store becomes files, and no registry is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fastoci.cli import options

if TYPE_CHECKING:
    pass


class UnpackOptions(options.OneImage):
    """What was asked for."""

    same_owner: bool | None


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("directory", metavar="DIR", type=options.FilePath())
@options.same_owner
@options.one_image
@options.gather(UnpackOptions)
def unpack(asked: UnpackOptions) -> None:
    """Unpack an image of the store into DIR, new or empty, unless it is there already. No registry is asked.

    REF is a name, NAME@DIGEST, a digest, or its first digits as `fastoci ls` shows them.

    \b
    fastoci unpack alpine ./alpine
    fastoci unpack 0d2c4e6f8a10 ./app --platform linux/arm64
    """
    from fastoci.cli import run

    async def work() -> None:
        async with asked.engine() as engine:
            await engine.pull(
                asked.reference,
                platform=asked.platform,
                rootfs=asked.directory,
                same_owner=asked.same_owner,
                policy="never",
            )

    run.run(work(), asked.progress)
