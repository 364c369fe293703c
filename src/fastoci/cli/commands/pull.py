"""``fastoci pull``: images from registries into the store, and from there into files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
from click.core import ParameterSource

from fastoci.cli import (
    containerd_options,
    errors,
    layer_options,
    options,
    registry_options,
    report,
    sections,
    trust_options,
)

if TYPE_CHECKING:
    from fastoci import Engine, Image, Into, IntoPodman, Layers, Limits, RegistryOptions, TrustPolicy
    from fastoci.cli.progress.display import Display


Policy = Literal["always", "missing", "never"]
_ALL: Final = "all"  # as a platform: each that there is


class PullOptions(options.Given):
    """What was asked for."""

    references: tuple[str, ...]
    platforms: tuple[str, ...]
    policy: Policy
    offline: bool
    store: Path | None
    additional: tuple[Path, ...]
    rootfs: Path | None
    same_owner: bool | None
    layers: Layers
    into: Into | IntoPodman | None
    pin: bool
    oci: Path | None
    dry_run: bool
    registry: RegistryOptions
    trust: TrustPolicy | None
    limits: Limits
    progress: Display

    @property
    def has_several(self) -> bool:
        """Whether the images are asked for by several platforms."""
        return len(set(self.platforms)) > 1 or _ALL in self.platforms


@click.command(
    cls=sections.Command,
    epilog="With several images, the failure of one does not stop the others.",
)
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@options.platforms
@click.option(
    "--pull",
    "policy",
    type=click.Choice(("always", "missing", "never")),
    default="always",
    show_default=True,
    help="Ask the registry what REF is now. always; missing: when the store does not have the image; never.",
)
@click.option(
    "--offline", is_flag=True, help="Ask no registry: take the images from the store. The same as --pull never."
)
@options.store
@options.additional
@click.option(
    "--rootfs",
    type=options.FilePath(),
    metavar="DIR",
    help="Unpack the image into DIR, which is new or empty, or has this image already.",
)
@options.same_owner
@layer_options.layers
@containerd_options.into
@click.option("--pin", is_flag=True, help="Protect the images from gc; with --into from the kubelet's, too.")
@click.option(
    "--oci",
    type=options.FilePath(),
    metavar="DIR",
    help="Add the images to an OCI image layout in DIR, for other tools.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be fetched, and its size; fetch no blob.")
@registry_options.registry
@trust_options.trust
@options.limits(*options.FETCHING)
@options.nice
@options.progress
@options.gather(PullOptions)
def pull(asked: PullOptions) -> int:
    """Pull images into the store, and print NAME@DIGEST of each on stdout as it ends, of several platforms of each.

    \b
    fastoci pull redis:7 alpine
    fastoci pull registry.example.com/app@sha256:0d2c... --platform linux/arm64
    fastoci pull alpine --platform all --oci ./layout
    fastoci pull redis:7 alpine --dry-run
    fastoci pull 127.0.0.1:5000/app --rootfs ./app --progress log
    fastoci pull 0d2c4e6f8a10 --offline --oci ./layout
    """
    references = tuple(dict.fromkeys(asked.references))
    _check_targets(asked, references)

    from fastoci import Engine
    from fastoci.cli import log, run

    told = report.current()
    codes: dict[str, int] = {}
    asked.policy = policy_of(click.get_current_context())
    if asked.dry_run and asked.policy == "never":
        raise click.UsageError("--dry-run asks the registry: not with --pull never")
    with log.shown_by(asked.progress.log):
        wrong = _early_errors(() if asked.policy == "never" else references, asked)
    for reference, error in wrong.items():
        told.fail(error, reference)
        codes[reference] = errors.code(error)

    async def work() -> None:
        make = options.existing if asked.policy == "never" else Engine
        engine = make(
            asked.store,
            registry=asked.registry,
            limits=asked.limits,
            additional=asked.additional,
            observer=asked.progress,
            trust=asked.trust,
        )
        todo = [each for each in references if each not in codes]
        async with engine:
            await (_show_plan if asked.dry_run else _pull_all)(engine, todo, asked, codes)

    if len(codes) < len(references):  # else nothing is asked of a store, and none is made
        run.run(work(), asked.progress)
    return errors.merge(list(codes.values()))


def policy_of(context: click.Context) -> Policy:
    """When the registry is asked, by --pull and --offline together: an option counts before the other's variable.

    Raises:
        click.UsageError: they contradict each other, and neither counts more.
    """
    policy: Policy = context.params["policy"]
    if policy == "never" or not context.params["offline"]:
        return policy
    by_pull, by_offline = (context.get_parameter_source(name) for name in ("policy", "offline"))
    if by_pull is by_offline:
        raise click.UsageError(f"--offline is --pull never, not --pull {policy}")
    return policy if by_pull is ParameterSource.COMMANDLINE else "never"


def _check_targets(asked: PullOptions, references: Sequence[str]) -> None:
    """Where files are to be made is for one image, and not in the store: told before that is made.

    Raises:
        click.UsageError: otherwise.
    """
    if asked.rootfs is not None and len(references) > 1:
        raise click.UsageError("--rootfs takes one image only")
    if asked.rootfs is not None and asked.has_several:
        raise click.UsageError("--rootfs takes one platform only: a directory holds the files of one")

    from fastoci import Engine

    for target in filter(None, (asked.rootfs, asked.oci)):
        store = Engine(asked.store).store_path
        with suppress(OSError, ValueError):  # of which the engine says what is wrong
            if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(store)):
                raise click.UsageError(f"{target} is in the store {store}: choose another place")


def _early_errors(references: Sequence[str], asked: PullOptions) -> dict[str, Exception]:
    """The references that do not parse, or all when a platform does not; where a store would be made, the
    configuration has to be right, too.
    """
    from fastoci import Engine, Platform, Reference
    from fastoci.errors import FastociError

    makes_store = bool(references) and not os.path.exists(Engine(asked.store).store_path / "fastoci.json")
    found: dict[str, Exception] = {}
    for reference in references:
        try:
            Reference.parse(reference)
            for platform in set(asked.platforms) - {_ALL}:
                Platform.parse(platform)
            if makes_store:
                from fastoci import check_access  # which most pulls do not need

                check_access(reference, asked.registry)
        except FastociError as error:
            found[reference] = error
    return found


async def _pull_all(engine: Engine, references: Sequence[str], asked: PullOptions, codes: dict[str, int]) -> None:
    """Tell of each image as it ends, and fill in its exit code."""
    import asyncio

    from fastoci import Layers

    exporting = asyncio.Lock()  # one writer of the layout's index.json
    told = report.current()

    async def one(reference: str) -> None:
        try:
            wants_blobs = asked.oci is not None and asked.layers.only
            layers = Layers(asked.layers.form, verity=asked.layers.verity) if wants_blobs else asked.layers
            images = await _pull_one(engine, reference, asked, layers)
            if asked.pin:
                await engine.pin(str(images[0].reference))
            if asked.oci is not None:
                async with exporting:
                    await images[0].export(asked.oci, images[1:])
            if wants_blobs:
                await _pull_one(engine, reference, asked, asked.layers)
        except Exception as error:  # whatever it is, the other images go on
            told.fail(error, reference)
            codes[reference] = errors.code(error)
        else:
            for image in images:
                named = image.manifest_descriptor if asked.has_several else image.descriptor
                told.result(f"{image.reference.name}@{named.digest}")
                if asked.layers.form == "overlay":
                    told.result(",".join(await image.overlay_options()))
            codes[reference] = 0

    async with asyncio.TaskGroup() as group:
        for reference in references:
            group.create_task(one(reference))


async def _show_plan(engine: Engine, references: Sequence[str], asked: PullOptions, codes: dict[str, int]) -> None:
    """Print what a pull would fetch, and fill in the exit codes."""
    import asyncio

    from fastoci.cli.plan import Row, lines, row_of

    told = report.current()

    async def one(reference: str) -> list[Row]:
        try:
            platforms = await _platforms(engine, reference, asked)
            found = [await engine.resolve(reference, platform=platform) for platform in platforms]
            rows = [await row_of(engine, resolved, asked.into) for resolved in found]
        except Exception as error:  # whatever it is, the other images go on
            told.fail(error, reference)
            codes[reference] = errors.code(error)
            return []
        codes[reference] = 0
        return rows

    rows = await asyncio.gather(*map(one, references))
    for line in lines([row for each in rows for row in each]):
        told.result(line)


async def _pull_one(engine: Engine, reference: str, asked: PullOptions, layers: Layers) -> Sequence[Image]:
    if asked.has_several:
        return await engine.pull_platforms(
            reference, asked.platforms, layers=layers, policy=asked.policy, into=asked.into
        )
    platform = next(iter(asked.platforms), None)
    image = await engine.pull(
        reference,
        platform=platform,
        rootfs=asked.rootfs,
        same_owner=asked.same_owner,
        layers=layers,
        policy=asked.policy,
        into=asked.into,
    )
    return (image,)


async def _platforms(engine: Engine, reference: str, asked: PullOptions) -> Sequence[str | None]:
    """Those that a plan is of; None is this machine's."""
    if _ALL not in asked.platforms:
        return tuple(dict.fromkeys(asked.platforms)) or (None,)
    return await engine.platforms(reference) or (None,)
