"""``fastoci pack``: a directory becomes an image of the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fastoci.cli import options, report

if TYPE_CHECKING:
    from fastoci import Limits
    from fastoci.cli.progress.display import Display


class PackOptions(options.Given):
    """What was asked for."""

    directory: Path
    tag: str
    base: str | None
    against: Path | None
    upper: bool
    compression: Literal["gzip", "zstd"]
    platform: str | None
    store: Path | None
    additional: tuple[Path, ...]
    limits: Limits
    progress: Display


@click.command()
@click.argument("directory", metavar="DIR", type=options.FilePath())
@click.option("--tag", metavar="REF", required=True, help="The name that the image gets in the store.")
@click.option("--base", metavar="REF", help="The image that it is built on: only what differs is packed.")
@click.option(
    "--against",
    metavar="DIR2",
    type=options.FilePath(),
    help="Pack what differs from DIR2, in place of what differs from the files of --base.",
)
@click.option(
    "--upper",
    is_flag=True,
    help="DIR is the upper directory of an overlay over --base: pack all of it, and what it deletes.",
)
@click.option(
    "--compression",
    type=click.Choice(("gzip", "zstd")),
    default="gzip",
    show_default=True,
    help="Of the new layer.",
)
@options.platform
@options.store
@options.additional
@options.limits("memory", "durability")
@options.progress
@options.gather(PackOptions)
def pack(asked: PackOptions) -> None:
    """Make an image of DIR in the store, and print NAME@DIGEST of it on stdout. No registry is asked.

    The same files give the same image. With SOURCE_DATE_EPOCH in the environment, nothing in it has a later time.

    \b
    fastoci pack ./rootfs --tag example.com/app:1
    fastoci pack ./rootfs --base debian:13 --tag example.com/app:2
    fastoci pack ./after --against ./before --base debian:13 --tag example.com/app:3
    fastoci pack ./upper --upper --base debian:13 --tag example.com/app:4
    """
    if asked.upper and (asked.base is None or asked.against is not None):
        raise click.UsageError("--upper needs --base, and takes no --against: an upper directory is all that differs")

    from fastoci import Engine
    from fastoci.cli import run

    async def work() -> str:
        engine = Engine(asked.store, limits=asked.limits, additional=asked.additional, observer=asked.progress)
        async with engine:
            image = await engine.pack(
                asked.directory,
                asked.tag,
                base=asked.base,
                against=asked.against,
                upper=asked.upper,
                platform=asked.platform,
                compression=asked.compression,
            )
            return f"{image.reference.name}@{image.descriptor.digest}"

    report.current().result(run.run(work(), asked.progress))
