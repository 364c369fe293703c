"""``fastoci prefetch``: many images into the store as one job."""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fastoci.cli import (
    containerd_options,
    errors,
    layer_options,
    lists,
    options,
    registry_options,
    report,
    sections,
    trust_options,
    wanted_state,
)
from fastoci.cli.results import options as results_options
from fastoci.errors import ConfigError

if TYPE_CHECKING:
    from fastoci import (
        Engine,
        ImageList,
        Into,
        IntoPodman,
        Layers,
        Limits,
        ListProblem,
        PrefetchRequest,
        PrefetchResult,
        RegistryOptions,
        TagQuery,
        TrustPolicy,
        WantedState,
    )
    from fastoci.cli.lists import Lists
    from fastoci.cli.progress.display import Display
    from fastoci.cli.report import Report
    from fastoci.cli.results.outputs import Outputs
    from fastoci.events import Event, Observer

    Entry = PrefetchRequest | TagQuery | ListProblem


class PrefetchOptions(options.Given):
    """What was asked for."""

    references: tuple[str, ...]
    files: tuple[Path, ...]
    platforms: tuple[str, ...]
    every_platform: bool
    pin: bool
    store: Path | None
    additional: tuple[Path, ...]
    rootfs: Path | None
    layers: Layers
    into: Into | IntoPodman | None
    dry_run: bool
    form: Literal["text", "json"]
    fail_fast: bool
    state: WantedState
    workers: int
    every_s: float | None
    splay_s: float | None
    registry: RegistryOptions
    trust: TrustPolicy | None
    limits: Limits
    progress: Display
    results: results_options.ResultOptions


@click.command(
    cls=sections.Command,
    epilog="The failure of one image does not stop the others. Exit code 0 is for all, 9 for some, another for none.",
)
@click.argument("references", metavar="[REF...]", nargs=-1)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=options.FilePath(),
    metavar="FILE",
    help="Read a list of images; - is stdin. May be repeated. A list has an image a line, or is a Kubernetes manifest,"
    " a compose file or the YAML of skopeo sync.",
)
@options.platforms
@click.option(
    "--all-platforms",
    "every_platform",
    is_flag=True,
    help="Take each image for all platforms that it has, as --platform all does.",
)
@click.option("--pin", is_flag=True, help="Protect the images from gc; with --into from the kubelet's, too.")
@wanted_state.wanted_state
@options.store
@options.additional
@click.option(
    "--rootfs",
    type=options.FilePath(),
    metavar="DIR",
    help="Unpack each image, too: into a directory of DIR that has its name.",
)
@layer_options.layers
@containerd_options.into
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
@click.option(
    "--every",
    "every_s",
    type=options.Duration(),
    metavar="TIME",
    help="Stay, and run again each TIME, counted from start to start. SIGHUP: now.",
)
@click.option(
    "--splay",
    "splay_s",
    type=options.Duration(),
    metavar="TIME",
    help="Delay each run of --every, also the first, by a random part of TIME.  [default: 0]",
)
@click.option("--dry-run", is_flag=True, help="Print what would be fetched; fetch no blob.")
@options.output
@results_options.results
@registry_options.registry
@trust_options.trust
@options.limits(*options.FETCHING)
@options.nice
@options.progress
@options.gather(PrefetchOptions)
def prefetch(asked: PrefetchOptions) -> int:
    """Bring many images into the store as one job, and print NAME@DIGEST of each on stdout as it ends.

    All names are followed first; what images share is fetched once.

    \b
    fastoci prefetch redis:7 nginx:1.27 alpine
    fastoci prefetch redis:7 nginx:1.27 --dry-run
    kubectl get pods -A -o json | fastoci prefetch -f -
    """
    from fastoci.cli import run

    _check(asked)
    told, named = report.current(), lists.Lists(asked.files)
    if asked.dry_run:
        return run.run(_plan(asked, named, told), asked.progress)
    with _outputs(asked, told) as outputs:
        if asked.every_s is None:
            return run.run(_bring(asked, named, told, outputs, {}), asked.progress)[0]
        from fastoci.cli import every

        once = partial(_bring, asked, named, told, outputs, {})
        return every.keep(once, asked.every_s, asked.splay_s or 0.0, display=asked.progress, told=told)


def _check(asked: PrefetchOptions) -> None:
    """Raises: click.UsageError: the options do not go together, or nothing is asked for."""
    if not asked.references and not asked.files and not asked.state.allow_empty:
        hint = " (--allow-empty lets --prune remove all that the list brought)" if asked.state.prune else ""
        raise click.UsageError(f"name the images, or a list of them with --file{hint}")
    if asked.every_s is None and asked.splay_s is not None:
        raise click.UsageError("--splay needs --every")
    if asked.every_s is not None and asked.dry_run:
        raise click.UsageError("--dry-run is done once, and takes no --every")
    if asked.every_s == 0:
        raise click.BadParameter("runs without a break are of no use: 10m", param_hint="--every")
    if asked.dry_run and asked.results:
        raise click.UsageError("a dry run has no results to report")


def _outputs(asked: PrefetchOptions, told: Report) -> AbstractContextManager[Outputs | None]:
    """Where the results go beside the lines on stdout."""
    if not asked.results and asked.form == "text":
        return nullcontext()
    from fastoci.cli.results.outputs import Outputs

    return Outputs(asked.results, told, show=told.result if asked.form == "json" else None)


async def _plan(asked: PrefetchOptions, named: Lists, told: Report) -> int:
    """Print what the job would do; the exit code."""
    import asyncio  # not at the start of every command

    from fastoci.cli.prefetch_text import plan_facts, plan_lines, short_of, subject
    from fastoci.events import QuotaSeen

    quotas: dict[str, QuotaSeen] = {}

    def observe(event: Event) -> None:
        asked.progress(event)
        if isinstance(event, QuotaSeen):
            quotas[event.host] = event

    found = await asyncio.to_thread(named.read)
    requests = _requests(asked, found, told)
    async with _engine(asked, found, observe) as engine:
        plan = await engine.plan_prefetch(requests, asked.state, into=asked.into)
    is_text = asked.form == "text"
    told.result("\n".join(plan_lines(plan, quotas)) if is_text else json.dumps(plan_facts(plan, quotas)))
    for refused in plan.refused:
        told.fail(refused.error, subject(refused.request))
    _hint_at_lists(told, [refused.request for refused in plan.refused])
    if plan.pruned.withheld:
        told.warn(f"nothing would be pruned: {plan.pruned.withheld}")
    refusal = plan.evicted.error or short_of(plan, str(engine.store_path))
    if refusal is not None:
        told.fail(refusal)
    fits = 0 if refusal is None else errors.code(refusal)
    return errors.merge([*(fits for _ in plan.images), *(errors.code(each.error) for each in plan.refused)] or [fits])


async def _bring(
    asked: PrefetchOptions, named: Lists, told: Report, outputs: Outputs | None, printed: dict[str, str]
) -> tuple[int, str]:
    """One run of the job: find out what is asked for, do it, print each image as it ends.

    Args:
        printed: the digests of images that runs before printed, by name: they are not printed again.
    Returns:
        the exit code, and what became of the images in a few words.
    """
    import asyncio

    from fastoci import PrefetchRequest
    from fastoci.cli.prefetch_observer import PrefetchObserver
    from fastoci.cli.prefetch_text import codes, subject, totals

    try:
        found = await asyncio.to_thread(named.read)
        requests = _requests(asked, found, told)
    except ConfigError:
        with nullcontext() if outputs is None else outputs.run([], _engine(asked, [], asked.progress).store_path):
            raise  # a run, too, and it failed
    images = [entry for entry in requests if isinstance(entry, PrefetchRequest)]
    watching: list[Observer] = [asked.progress] if outputs is None else [asked.progress, outputs.recorder]
    observe = PrefetchObserver(watching, told, images, printed if asked.form == "text" else None)
    engine = _engine(asked, found, observe)
    with nullcontext() if outputs is None else outputs.run(images, engine.store_path):
        async with engine:
            result = await _prefetch(engine, requests, asked)
            if outputs is not None:
                await outputs.measure(engine)
    wanted_state.tell(told, result.pruned, result.evicted)
    for image in result.failed:
        if image.error is not None and image.outcome != "skipped":
            told.fail(image.error, subject(image.request), again=_is_told(image.request, observe.failed))
    _hint_at_lists(told, [image.request for image in result.failed])
    for name in printed.keys() - {image.request.reference for image in result.images}:
        del printed[name]
    code = errors.merge(codes(result) or [0])
    return code if outputs is None else outputs.end(result, code), totals(result)


async def _prefetch(engine: Engine, requests: Sequence[Entry], asked: PrefetchOptions) -> PrefetchResult:
    return await engine.prefetch(
        requests,
        asked.state,
        layers=asked.layers,
        fail_fast=asked.fail_fast,
        workers=asked.workers,
        into=asked.into,
    )


def _hint_at_lists(told: Report, failed: Sequence[PrefetchRequest]) -> None:
    """Say of names of the command line that are no images whether they are files: an option was forgotten."""
    for request in failed:
        if not request.origin and os.path.isfile(request.reference):  # pathlib refuses a name too long for a file
            told.warn(f"{request.reference} is a file: --file {request.reference} reads it as a list")


def _is_told(request: PrefetchRequest, failed: set[str]) -> bool:
    """Whether the failure was told when it happened: of an image by its name, of a line by where it is."""
    return request.reference in failed or request.subject in failed


def _engine(asked: PrefetchOptions, found: Sequence[ImageList], observer: Observer) -> Engine:
    from msgspec.structs import replace

    from fastoci import Engine

    registry = replace(asked.registry, access=tuple(access for each in found for access in each.access))
    return Engine(
        asked.store,
        registry=registry,
        limits=asked.limits,
        additional=asked.additional,
        observer=observer,
        trust=asked.trust,
    )


def _requests(asked: PrefetchOptions, found: Sequence[ImageList], told: Report) -> list[Entry]:
    """The images of the command line, then what the lists say, with what the options say of all.

    Raises:
        ConfigError: there are none, and the list would be pruned of all that it brought.
    """
    from msgspec.structs import replace

    from fastoci import ListProblem, PrefetchRequest, TagQuery

    named = map(PrefetchRequest, asked.references)
    entries: list[Entry] = [*named, *(entry for each in found for entry in each.entries)]
    if not entries and asked.state.prune and not asked.state.allow_empty:
        raise ConfigError("the lists are empty: --allow-empty lets --prune remove all that the list brought")
    if not entries and not asked.state.allow_empty:
        told.warn("the lists are empty: no image is asked for")
    platforms = ("all",) if asked.every_platform else asked.platforms
    if not platforms and not asked.pin and asked.rootfs is None:
        return entries

    def as_asked(entry: Entry) -> Entry:
        if isinstance(entry, ListProblem):
            return entry
        name = entry.repository if isinstance(entry, TagQuery) else entry.reference
        chosen, pinned = entry.platforms or platforms, entry.pinned or asked.pin
        return replace(entry, platforms=chosen, pinned=pinned, rootfs=_rootfs(asked, name))

    return list(map(as_asked, entries))


def _rootfs(asked: PrefetchOptions, reference: str) -> str:
    """The directory of an image's files: of one component, and another for each name."""
    if asked.rootfs is None:
        return ""
    whole = reference.replace("_", "__").replace("/", "_")
    return str(asked.rootfs / re.sub("[^A-Za-z0-9._:@-]", "-", whole).lstrip("."))
