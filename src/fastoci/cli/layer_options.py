"""The options that say what the store keeps of layers beside their blobs."""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import click

from fastoci.cli.options import Command

LayerForm = Literal["none", "erofs", "erofs-4k", "overlay", "rootfs"]

_OPTIONS = (
    click.option(
        "--layers",
        "layer_form",
        type=click.Choice(get_args(LayerForm)),
        default="none",
        show_default=True,
        help="Keep the layers in the store for mounts, too: erofs, each as one file, and the image's as one mount;"
        " erofs-4k, each as one file in blocks of 4096 bytes, for containerd;"
        " overlay, each as a directory for overlayfs, whose options are printed; rootfs, the image as one tree.",
    ),
    click.option(
        "--layers-only",
        is_flag=True,
        help="Drop the compressed blobs of layers when their files are there. With --layers erofs.",
    ),
    click.option(
        "--verity",
        is_flag=True,
        help="Have the kernel hold each read of layer files against their fs-verity digests, where it can. With"
        " --layers erofs; with erofs-4k, each file has a hash tree of dm-verity.",
    ),
)


def layers(command: Command) -> Command:
    """The options, given to the command as ``layers``, a ``fastoci.Layers``."""

    @functools.wraps(command)
    def gathered(*, layer_form: LayerForm, layers_only: bool, verity: bool, **given: Any) -> int | None:
        from fastoci import Layers

        if layers_only and layer_form != "erofs":
            raise click.UsageError("--layers-only needs --layers erofs: only their files hold the layers' tars")
        if verity and not layer_form.startswith("erofs"):
            raise click.UsageError("--verity needs --layers erofs: only its files can be held against a digest")
        return command(layers=Layers(layer_form, layers_only, verity), **given)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered
