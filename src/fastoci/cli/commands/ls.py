"""``fastoci ls``: what the store holds, as a table; and with an image, what that holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from fastoci.cli import containerd_options, options
from fastoci.cli.formatting import plain, table
from fastoci.cli.formatting import size as size_text
from fastoci.cli.image_files import LIMITS, AskedPath, opened

if TYPE_CHECKING:
    from fastoci import ContainerdImage, PodmanImage, StoredImage

_HEADER: Final = ("NAME", "DIGEST", "PLATFORMS", "SIZE", "PULLED", "USED", "PINNED")
_HEADER_THERE: Final = ("NAME", "DIGEST", "SIZE", "STATE", "UPDATED", "PINNED")
_HEADER_SHOWN: Final = ("NAME", "ID", "CREATED")
_HEX: Final = 12  # digits of a digest


class LsOptions(AskedPath):
    """What was asked for; without ``reference``, the images: with a ``place`` those that are there."""

    place: containerd_options.Place | None
    address: str
    quiet: bool
    form: str


@click.command()
@click.argument("reference", metavar="[REF", default="")
@click.argument("path", metavar="[PATH]]", default="/")
@click.option("-q", "--quiet", is_flag=True, help="Print the names of the images or files alone, one a line.")
@options.platform
@containerd_options.inside
@containerd_options.address
@options.output
@options.store
@options.additional
@options.limits(*LIMITS)
@options.gather(LsOptions)
def ls(asked: LsOptions) -> None:
    """List the images in the store, or the files of one of them.

    With --in containerd, the images there are listed, and SIZE is of what is there of them. With --in podman, those
    that podman and CRI-O find in the store.

    SIZE is the sum of an image's blobs, over all its platforms in the store. Images may share blobs. USED is the last
    use, known to the hour.

    With REF, what is in the directory PATH of that image is listed: mode, owner, size in bytes, time (UTC), name.
    Nothing is unpacked. PATH is / by default; symbolic links in it lead to where they lead in the image.

    \b
    fastoci ls
    fastoci ls -q | xargs fastoci verify
    fastoci ls alpine /etc
    fastoci ls --in containerd:k8s.io
    fastoci ls --in podman
    fastoci ls --format json --store /srv/images
    """
    if asked.place is not None and (asked.reference or asked.platform is not None):
        raise click.UsageError("--in lists the images of containerd or podman, and no files of them")
    if asked.place is not None and asked.place.namespace is None:
        _list_shown(asked)
    elif asked.place is not None and asked.place.namespace is not None:
        _list_there(asked, asked.place.namespace)
    elif asked.reference:
        _list_files(asked)
    else:
        _list_images(asked)


def _list_images(asked: LsOptions) -> None:
    from fastoci.cli import run

    async def work() -> tuple[StoredImage, ...]:
        async with options.existing(asked.store, asked.additional) as engine:
            return await engine.images()

    if asked.platform is not None:
        raise click.UsageError("--platform is for the files of an image: fastoci ls REF PATH")
    images = run.run(work())
    if asked.form == "json":
        click.echo(_json(images))
    elif asked.quiet:
        for image in images:
            click.echo(plain(image.name))
    else:
        click.echo("\n".join(table([_HEADER, *map(_row, images)])))


def _list_there(asked: LsOptions, namespace: str) -> None:
    """List the images that containerd has."""
    import json

    from fastoci.cli import run

    async def work() -> tuple[ContainerdImage, ...]:
        async with containerd_options.containerd(namespace, asked.address) as there:
            return await there.images()

    images = run.run(work())
    if asked.form == "json":
        click.echo(json.dumps({"images": [_facts(image) for image in images]}, indent=1))
    elif asked.quiet:
        for image in images:
            click.echo(plain(image.name))
    else:
        click.echo("\n".join(table([_HEADER_THERE, *map(_row_there, images)])))


def _list_shown(asked: LsOptions) -> None:
    """List the images that podman finds in the store."""
    import json

    from fastoci.cli import run

    async def work() -> tuple[PodmanImage, ...]:
        async with options.existing(asked.store, asked.additional) as engine:
            return await engine.podman_images()

    images = run.run(work())
    if asked.form == "json":
        facts = [{"name": each.name, "id": each.id, "digest": each.digest, "created": each.created} for each in images]
        click.echo(json.dumps({"images": facts}, indent=1))
    elif asked.quiet:
        for image in images:
            click.echo(plain(image.name))
    else:
        rows = [(plain(each.name), plain(each.id[:_HEX]), plain(each.created) or "-") for each in images]
        click.echo("\n".join(table([_HEADER_SHOWN, *rows])))


def _row_there(image: ContainerdImage) -> tuple[str, ...]:
    digest, state = plain(image.digest.partition(":")[2][:_HEX]), "whole" if image.is_whole else "incomplete"
    pinned = "pinned" if image.pinned else "-"
    return plain(image.name), digest, size_text(image.size), state, image.updated_at or "-", pinned


def _facts(image: ContainerdImage) -> dict[str, object]:
    return {
        "name": image.name,
        "digest": image.digest,
        "size": image.size,
        "whole": image.is_whole,
        "updated_at": image.updated_at,
        "pinned": image.pinned,
        "lists": list(image.lists),
    }


def _list_files(asked: LsOptions) -> None:
    import json

    from fastoci.cli.file_lines import fields_of, long_lines

    with opened(lambda image: image.files(), asked) as files:
        if asked.form == "json":
            click.echo(json.dumps({"files": [fields_of(file) for file in files.list(asked.path)]}, indent=1))
            return
        is_directory = files.is_directory(asked.path)
        found = ((file.path.rpartition("/")[2] if is_directory else file.path, file) for file in files.list(asked.path))
        if asked.quiet:
            for name, _ in found:
                click.echo(plain(name))
        else:
            for line in long_lines(list(found)):
                click.echo(line)


def _row(image: StoredImage) -> tuple[str, ...]:
    platforms = plain(",".join(image.images)) or "-"
    digest = image.descriptor.digest.hex[:_HEX]
    times = plain(image.pulled_at), image.used_at or "-"
    return plain(image.name), digest, platforms, size_text(image.size or 0), *times, "pinned" if image.pinned else "-"


def _json(images: Sequence[StoredImage]) -> str:
    import json

    rows = [
        {
            "name": image.name,
            "digest": str(image.descriptor.digest),
            "platforms": {platform: str(manifest.digest) for platform, manifest in image.images.items()},
            "size": image.size,
            "pulled_at": image.pulled_at,
            "used_at": image.used_at,
            "pinned": image.pinned,
            "lists": sorted(image.lists),
        }
        for image in images
    ]
    return json.dumps({"images": rows}, indent=1)
