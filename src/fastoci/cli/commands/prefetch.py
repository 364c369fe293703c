"""``fastoci prefetch``: many images into the store as one job."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fastoci.cli import errors, options, registry_options, report, sections
from fastoci.cli.formatting import plain
from fastoci.cli.results import options as results_options

if TYPE_CHECKING:
    from fastoci import Engine, Limits, PrefetchRequest, RegistryOptions
    from fastoci.cli.progress.display import Display
    from fastoci.cli.report import Report
    from fastoci.cli.results.outputs import Outputs
    from fastoci.events import Event, Observer


class PrefetchOptions(options.Given):
    """What was asked for."""

    references: tuple[str, ...]
    platforms: tuple[str, ...]
    every_platform: bool
    pin: bool
    store: Path | None
    additional: tuple[Path, ...]
    rootfs: Path | None
    dry_run: bool
    form: Literal["text", "json"]
    fail_fast: bool
    workers: int
    registry: RegistryOptions
    limits: Limits
    progress: Display
    results: results_options.ResultOptions


@click.command(
    cls=sections.Command,
    epilog="The failure of one image does not stop the others. Exit code 0 is for all, 9 for some, another for none.",
)
@click.argument("references", metavar="[REF...]", nargs=-1)
@options.platforms
@click.option("--all-platforms", "every_platform", is_flag=True, help="Take each image for all platforms that it has.")
@click.option("--pin", is_flag=True, help="Protect the images from gc.")
@options.store
@options.additional
@click.option(
    "--rootfs",
    type=options.FilePath(),
    metavar="DIR",
    help="Unpack each image, too: into a directory of DIR that has its name.",
)
@click.option("--fail-fast", is_flag=True, help="Skip what is not there when the first image fails.")
@sections.under(
    sections.LIMITS,
    click.option(
        "--workers",
        type=click.IntRange(1),
        default=1,
        metavar="N",
        help="Fetch by N processes, which share all limits.  [default: this one]",
    ),
)
@click.option("--dry-run", is_flag=True, help="Print what would be fetched; fetch no blob.")
@options.output
@results_options.results
@registry_options.registry
@options.limits(*options.FETCHING)
@options.progress
@options.gather(PrefetchOptions)
def prefetch(asked: PrefetchOptions) -> int:
    """Bring many images into the store as one job, and print NAME@DIGEST of each on stdout as it ends.

    All names are followed first; what images share is fetched once.

    \b
    fastoci prefetch redis:7 nginx:1.27 alpine
    fastoci prefetch redis:7 nginx:1.27 --dry-run
    """
    from fastoci.cli import run

    told = report.current()
    if asked.dry_run:
        if asked.results:
            raise click.UsageError("a dry run has no results to report")
        return run.run(_plan(asked, told), asked.progress)
    with _outputs(asked, told) as outputs:
        return run.run(_bring(asked, told, outputs), asked.progress)


def _outputs(asked: PrefetchOptions, told: Report) -> AbstractContextManager[Outputs | None]:
    """Where the results go beside the lines on stdout."""
    if not asked.results and asked.form == "text":
        return nullcontext()
    from fastoci.cli.results.outputs import Outputs

    return Outputs(asked.results, told, show=told.result if asked.form == "json" else None)


async def _plan(asked: PrefetchOptions, told: Report) -> int:
    """Print what the job would do; the exit code."""
    from fastoci.cli.prefetch_text import plan_facts, plan_lines, subject

    async with _engine(asked, asked.progress) as engine:
        plan = await engine.plan_prefetch(_requests(asked))
    told.result("\n".join(plan_lines(plan)) if asked.form == "text" else json.dumps(plan_facts(plan)))
    for refused in plan.refused:
        told.fail(refused.error, subject(refused.request))
    return errors.merge([*(0 for _ in plan.images), *(errors.code(each.error) for each in plan.refused)])


async def _bring(asked: PrefetchOptions, told: Report, outputs: Outputs | None) -> int:
    """One run of the job: find out what is asked for, do it, print each image as it ends; the exit code."""
    from fastoci.cli.prefetch_text import codes, subject
    from fastoci.events import ImageDone

    def observe(event: Event) -> None:
        asked.progress(event)
        if outputs is not None:
            outputs.recorder(event)
        if isinstance(event, ImageDone) and asked.form == "text":
            told.result(f"{plain(event.image)}@{event.digest}")

    requests = _requests(asked)
    with nullcontext() if outputs is None else outputs.run(requests):
        async with _engine(asked, observe) as engine:
            result = await engine.prefetch(requests, fail_fast=asked.fail_fast, workers=asked.workers)
    for image in result.failed:
        if image.error is not None:
            told.fail(image.error, subject(image.request))
    code = errors.merge(codes(result))
    return code if outputs is None else outputs.end(result, code)


def _engine(asked: PrefetchOptions, observer: Observer) -> Engine:
    from fastoci import Engine

    return Engine(
        asked.store, registry=asked.registry, limits=asked.limits, additional=asked.additional, observer=observer
    )


def _requests(asked: PrefetchOptions) -> list[PrefetchRequest]:
    """The images of the command line.

    Raises:
        click.UsageError: there are none.
    """
    from fastoci import PrefetchRequest

    if not asked.references:
        raise click.UsageError("name the images")

    platforms = ("all",) if asked.every_platform else asked.platforms
    return [
        PrefetchRequest(reference, platforms, pinned=asked.pin, rootfs=_rootfs(asked, reference))
        for reference in asked.references
    ]


def _rootfs(asked: PrefetchOptions, reference: str) -> str:
    """The directory of an image's files: of one component, whatever the name."""
    return "" if asked.rootfs is None else str(asked.rootfs / re.sub("[^A-Za-z0-9._-]", "_", reference).lstrip("."))
