"""``fastoci configure``: other programs of this machine, told to use what this one does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fastoci.cli import options, sections
from fastoci.cli.formatting import plain

if TYPE_CHECKING:
    from fastoci import ConfigurationPlan

C = TypeVar("C", bound=Callable[..., Any])

_mirrors = click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="HOST=URL",
    help="Ask URL before the registry HOST: docker.io=http://127.0.0.1:5000. May be repeated.",
)


def _common(name: str) -> Callable[[C], C]:
    """The options of each: where the file is, whether to write, and the way back."""

    def decorate(command: C) -> C:
        for option in (
            click.option("--undo", is_flag=True, help="Take away what this command wrote, and nothing else."),
            click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing."),
            click.option(
                "--config-file",
                "file",
                type=options.FilePath(),
                metavar="FILE",
                help=f"Its {name}, where it is elsewhere.",
            ),
        ):
            command = option(command)
        return command

    return decorate


@click.group()
def configure() -> None:
    """Tell containerd, podman or docker to use what fastoci does."""


@configure.command(cls=sections.Command, short_help="Have containerd unpack by fastoci differ.")
@click.option(
    "--socket",
    type=options.FilePath(),
    metavar="PATH",
    help="Socket of `fastoci differ`.  [default: /run/fastoci/differ.sock for root]",
)
@click.option(
    "--snapshotter",
    "snapshotters",
    multiple=True,
    metavar="NAME",
    help="Unpack for this snapshotter. May be repeated.  [default: those that the configuration names, else overlayfs]",
)
@_mirrors
@options.store
@_common("config.toml")
def containerd(file: Path | None, dry_run: bool, undo: bool, **asked: Any) -> None:
    """Have each pull of containerd unpacked by `fastoci differ`.

    A file of its own says so, conf.d/zz-fastoci.toml; config.toml only gets a line that imports it. With --snapshotter
    erofs, containerd 2.4 also takes layers out of the store (`fastoci pull --layers erofs`) instead of fetching them.

    The version of containerd is asked for first: one that would not start is left as it is. Nothing is restarted.
    `fastoci differ` has to listen before containerd is: without it, pulls fail.

    \b
    fastoci configure containerd --dry-run
    fastoci configure containerd && systemctl restart containerd
    fastoci configure containerd --undo && systemctl restart containerd
    """
    import fastoci

    _run(fastoci.configure_containerd(config=file, undo=undo, **asked), dry_run=dry_run)


@configure.command(cls=sections.Command, short_help="Have podman see the store's images.")
@_mirrors
@options.store
@_common("storage.conf")
def podman(file: Path | None, dry_run: bool, undo: bool, **asked: Any) -> None:
    """Have podman, buildah and CRI-O see the store's images, without a copy.

    storage.conf gets the path of an additional image store; mirrors are a file of registries.conf.d.

    \b
    fastoci configure podman --dry-run
    fastoci configure podman --mirror docker.io=http://127.0.0.1:5000
    """
    import fastoci

    _run(fastoci.configure_podman(config=file, undo=undo, **asked), dry_run=dry_run)


@configure.command(cls=sections.Command, short_help="Have docker keep its images in containerd.")
@_common("daemon.json")
def docker(file: Path | None, dry_run: bool, undo: bool) -> None:
    """Have docker keep its images in containerd, where `fastoci pull --into containerd:moby` puts some.

    daemon.json gets the feature containerd-snapshotter. Images that docker has now are not shown until --undo.

    \b
    fastoci configure docker && systemctl restart docker
    """
    import fastoci

    _run(fastoci.configure_docker(config=file, undo=undo), dry_run=dry_run)


def _run(planning: Coroutine[object, object, ConfigurationPlan], *, dry_run: bool) -> None:
    from fastoci.cli import run

    plan = run.run(planning)
    for line in plan.diff.splitlines():
        click.echo("\t".join(map(plain, line.split("\t"))))
    if not dry_run:
        plan.write()
    for note in plan.notes:
        click.echo(f"fastoci: note: {plain(note)}", err=True)
    if not plan.edits:
        click.echo("fastoci: nothing to change", err=True)
    elif dry_run:
        click.echo("fastoci: nothing was written", err=True)
    else:
        click.echo(f"fastoci: restart {' or '.join(plan.restart)} now: until then it goes on as before", err=True)
