"""``fastoci copy``: images from one place to another."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from fastoci.cli import copy_options, options, registry_options, report, sections, trust_options

if TYPE_CHECKING:
    from fastoci import EndOptions, Engine, Limits, RegistryOptions, TrustPolicy
    from fastoci.cli.progress.display import Display

    Reach = Callable[[RegistryOptions], EndOptions]

_FORMS: Final = ("oci", "v2s2")


class CopyOptions(options.Given):
    """What was asked for."""

    begins: tuple[str, ...]
    end: str
    platforms: tuple[str, ...]
    preserve_digests: bool
    form: Literal["oci", "v2s2"] | None
    compress: str
    referrers: bool
    signatures: bool
    additional_tag: tuple[str, ...]
    digestfile: Path | None
    store: Path | None
    additional: tuple[Path, ...]
    source: Reach
    destination: Reach
    registry: RegistryOptions
    trust: TrustPolicy | None
    limits: Limits
    progress: Display


class _FormOption(click.Option):
    """``--format``, whose variable is also that of the commands which print JSON by it."""

    def value_from_envvar(self, ctx: click.Context) -> str | Sequence[str] | None:
        """What the variable says, when it is a form of an image."""
        value = super().value_from_envvar(ctx)
        return value if value in _FORMS else None


def _recipe(context: click.Context, parameter: click.Parameter, given: str) -> str:
    """A compression that there is."""
    from fastoci import CopyOptions as Options

    try:
        Options(compress=given).conversion  # noqa: B018 (what is wrong with it is raised)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return given


@click.command(cls=sections.Command)
@click.argument("begins", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("end", metavar="DESTINATION")
@copy_options.platforms
@click.option("--preserve-digests", is_flag=True, help="Change nothing that has a digest; fail where that cannot be.")
@click.option(
    "--format",
    "form",
    cls=_FormOption,
    type=click.Choice(_FORMS),
    help="Make it an image of OCI, or of Docker's schema 2; by default OCI in a layout, elsewhere what it is.",
)
@click.option(
    "--compress",
    default="",
    callback=_recipe,
    metavar="gzip|zstd[:LEVEL]",
    help="Compress layers anew that are not compressed so, on all cores. Levels: gzip 0 to 3, zstd 1 to 19.",
)
@click.option("--referrers", is_flag=True, help="Copy what hangs on the image, too: signatures, SBOMs, attestations.")
@click.option("--signatures", is_flag=True, help="Copy its signatures, too, and what cosign keeps under tags.")
@click.option(
    "--additional-tag",
    multiple=True,
    metavar="TAG",
    help="Give the image this name, too: a tag, a name of a layout, or a reference in an archive. May be repeated.",
)
@click.option(
    "--digestfile",
    type=options.FilePath(),
    metavar="FILE",
    help="Write the digest of what was copied to FILE; of several images one a line.",
)
@options.store
@options.additional
@registry_options.registry
@trust_options.trust
@copy_options.ends
@options.limits(*options.MOVING, "memory")
@options.nice
@options.progress
@options.gather(CopyOptions)
def copy(asked: CopyOptions) -> None:
    """Copy an image from SOURCE to DESTINATION, and print the digest of what is there now on stdout, unless that is it.

    Several go to one layout or archive, each under the name that it has: all of them, or none.

    \b
    Each of these is one of
      docker://[DOMAIN/]PATH[:TAG][@DIGEST]   a registry
      oci:DIR[:NAME] oci:DIR:@N               an OCI layout in a directory
      oci-archive:FILE[:NAME|:@N]             a layout as one tar
      docker-archive:FILE[:REF|:@N]           what docker saves and loads
      dir:DIR                                 one image in a directory, as skopeo has it
      store:REF                               the store

    FILE may be a pipe, and /dev/stdin or /dev/stdout.

    Blobs go through, verified, and wait on no disk. What is at DESTINATION is not sent again.

    \b
    fastoci copy docker://redis:7 oci:redis
    fastoci copy docker://alpine oci:layout:alpine --all
    fastoci --override-os linux --override-arch arm64 copy docker://redis oci:redis
    fastoci copy store:redis:7 docker://registry.example.com/redis:7 --dest-creds me
    fastoci copy docker://redis:7 oci:redis --compress zstd:3
    fastoci copy docker://redis:7 docker://nginx:1 docker-archive:both.tar
    """
    from fastoci.cli import run
    from fastoci.cli.results.output_file import OutputFile

    if asked.form == "v2s2" and asked.compress.startswith("zstd"):
        raise click.UsageError("--format v2s2 has no layers in zstd: --compress gzip, or --format oci")
    stdout = _is_stdout(asked.end)
    with nullcontext() if asked.digestfile is None else OutputFile(asked.digestfile) as file:
        digests = run.run(_copy(asked), asked.progress)
        if file is not None:
            file.write("\n".join(digests).encode())
        for digest in () if stdout else digests:
            report.current().result(digest)


def _is_stdout(end: str) -> bool:
    """Whether the image goes where results go: then nothing else may."""
    transport, _, rest = end.partition(":")
    if not transport.endswith("-archive"):
        return False
    with suppress(OSError, ValueError):
        return os.path.samestat(os.stat(rest.partition(":")[0]), os.fstat(sys.stdout.fileno()))
    return False


@asynccontextmanager
async def _open(asked: CopyOptions, make: Callable[[Path | None], Engine]) -> AsyncIterator[Engine]:
    """An engine over the store, where that is there or is an end, and for the notes of uploads where it can be made."""
    from fastoci.errors import ConfigError, StoreError

    needed = any(end.startswith("store:") for end in (*asked.begins, asked.end)) or options.is_there(asked.store)
    with options.scratch_stores() as scratch:
        async with AsyncExitStack() as opened:
            if needed or asked.end.startswith("docker:"):
                try:
                    engine = await opened.enter_async_context(make(asked.store))
                except (StoreError, ConfigError):
                    if needed:
                        raise
                    engine = await opened.enter_async_context(make(scratch()))
            else:
                engine = await opened.enter_async_context(make(scratch()))
            yield engine


async def _copy(asked: CopyOptions) -> list[str]:
    """The digest of each image that is at the destination then."""
    from fastoci import CopyOptions as Options
    from fastoci import Engine

    options = Options(
        platforms=asked.platforms,
        names=asked.additional_tag,
        preserve_digests=asked.preserve_digests,
        form=asked.form,
        compress=asked.compress,
        referrers=asked.referrers,
        signatures=asked.signatures,
        source=asked.source(asked.registry),
        destination=asked.destination(asked.registry),
    )
    make = partial(
        Engine,
        registry=asked.registry,
        limits=asked.limits,
        additional=asked.additional,
        observer=asked.progress,
        trust=asked.trust,
    )
    async with _open(asked, make) as engine:
        return [str(each.descriptor.digest) for each in await engine.copy_all(asked.begins, asked.end, options)]
