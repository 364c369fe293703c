"""``fastoci inspect``: what an image is, wherever it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import options, registry_options, report, sections

if TYPE_CHECKING:
    from fastoci import Inspection, Limits, RegistryOptions


class InspectOptions(options.Given):
    """What was asked for."""

    reference: str
    raw: bool
    config: bool
    as_tree: bool
    every: bool
    path: str | None
    platform: str | None
    form: str
    store: Path | None
    additional: tuple[Path, ...]
    registry: RegistryOptions
    limits: Limits


@click.command(cls=sections.Command)
@click.argument("reference", metavar="IMAGE")
@click.option("--raw", is_flag=True, help="Print the document that IMAGE names, byte for byte; see --platform.")
# Eager options have no variable: FASTOCI_CONFIG is the configuration file.
@click.option("--config", is_flag=True, is_eager=True, help="Print the config; with --raw byte for byte.")
@click.option("--tree", "as_tree", is_flag=True, help="Print what IMAGE leads to as a tree, down to the layers.")
@click.option("--all", "every", is_flag=True, help="Look at the images of all platforms.")
@click.option("--get", "path", metavar="PATH", help="Print what is at PATH of the JSON: config.Env, layers[0].digest.")
@options.platform
@options.output
@options.store
@options.additional
@registry_options.registry
@options.limits("max_wait_s", "first_byte_s", "unpacked_size", "unpacked_entries", "memory")
@options.gather(InspectOptions)
def inspect(asked: InspectOptions) -> None:
    """Show what an image is: its digests, how it is run, its layers. No layer is fetched.

    IMAGE is an image of the store, as of `fastoci unpack`, or of any other place: docker://NAME asks its registry,
    oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME] and dir:DIR are read where they are.

    --raw prints the index or manifest that the name leads to, and with --platform the manifest of that platform.

    \b
    fastoci inspect alpine
    fastoci inspect docker://redis:7 --get config.Env
    fastoci inspect oci:./layout --tree --all
    fastoci inspect docker://redis:7 --raw | sha256sum
    """
    from fastoci.cli import run

    _check(asked)

    async def work() -> Inspection:
        ends = [asked.reference]
        async with options.of_ends(ends, asked.store, asked.additional, asked.registry, asked.limits) as engine:
            platform = "all" if asked.every else asked.platform
            top = asked.raw and not asked.config and asked.platform is None
            return await engine.inspect(asked.reference, platform=platform, top_only=top, entries=asked.as_tree)

    inspection = run.run(work())
    if not inspection.images and not asked.as_tree and (asked.config or not asked.raw):
        raise _without_image(inspection)
    if asked.raw and asked.path is None:
        click.echo(_bytes(inspection, asked), nl=False)
        return
    for line in _lines(inspection, asked):
        click.echo(line, color=True)  # else click leaves something out


def _check(asked: InspectOptions) -> None:
    if asked.every and (asked.raw or asked.config or asked.platform is not None):
        raise click.UsageError("--all looks at all platforms: --raw, --config and --platform are for one")
    if asked.as_tree and (asked.raw or asked.config):
        raise click.UsageError("--tree shows no single document: --raw and --config do")
    if asked.path is not None:
        from fastoci.cli import json_path

        try:
            json_path.parse(asked.path)
        except json_path.PathError as error:
            raise click.BadParameter(str(error), param_hint="--get") from error


def _bytes(inspection: Inspection, asked: InspectOptions) -> bytes:
    """The document that is asked for."""
    digest = inspection.digest
    if asked.config:
        digest = inspection.images[0].config_blob.digest
    elif asked.platform is not None:
        digest = inspection.images[0].manifest.digest
    data: bytes = inspection.documents[digest]
    return data


def _lines(inspection: Inspection, asked: InspectOptions) -> Iterator[str]:
    from fastoci.cli import inspection as documents
    from fastoci.cli import inspection_text

    if asked.path is not None:
        yield from _selected(_value(inspection, asked), asked.path)
    elif asked.config or asked.form == "json":
        yield documents.as_json(_value(inspection, asked))
    elif asked.as_tree:
        yield from inspection_text.tree_lines(inspection)
    else:
        yield from inspection_text.summary(inspection)


def _value(inspection: Inspection, asked: InspectOptions) -> object:
    """What is asked for, as plain values."""
    from fastoci.cli import inspection as documents

    if asked.raw or asked.config:
        return _decoded(_bytes(inspection, asked), "config" if asked.config else "document")
    made = documents.document_tree if asked.as_tree else documents.all_images if asked.every else documents.one_image
    return documents.builtins(made(inspection))


def _decoded(data: bytes, what: str) -> object:
    import msgspec

    from fastoci.errors import FormatError

    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"the {what} is not JSON: {error}") from error


def _selected(value: object, path: str) -> Iterator[str]:
    """What a path leads to: texts as they are, but on a terminal, all else as JSON."""
    import json

    from fastoci.cli import json_path
    from fastoci.cli.formatting import plain
    from fastoci.errors import ImagePathError

    try:
        found = json_path.select(value, path)
    except json_path.PathError as error:
        raise ImagePathError(str(error), path=path) from error
    for each in found:
        if isinstance(each, str):
            yield plain(each) if report.results_are_watched() else each
        else:
            yield json.dumps(each)


def _without_image(inspection: Inspection) -> Exception:
    """What says that no index has an image for this machine."""
    from fastoci.errors import PlatformError

    names = tuple(dict.fromkeys(entry.platform for entry in inspection.entries if entry.platform))
    return PlatformError(f"{inspection.name} has no image for this machine", available=names)
