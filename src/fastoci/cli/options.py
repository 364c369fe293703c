"""Options that several commands share, each once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

if TYPE_CHECKING:
    from fastoci import Engine

C = TypeVar("C", bound=Callable[..., object])

MODES: Final = ("auto", "bar", "log", "json", "none")


def store(command: C) -> C:
    """``--store DIR``."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Where images are kept.  [default: /var/lib/fastoci for root, else ~/.local/share/fastoci]",
    )(command)


def platform(command: C) -> C:
    """``--platform OS/ARCH[/VARIANT]``."""
    return click.option(
        "--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of several.  [default: this machine's]"
    )(command)


def authfile(command: C) -> C:
    """``--authfile FILE``."""
    return click.option(
        "--authfile", type=click.Path(path_type=Path), metavar="FILE", help="Credentials, as docker login writes them."
    )(command)


def tls_verify(command: C) -> C:
    """``--tls-verify BOOL``."""
    return click.option(
        "--tls-verify", type=bool, default=True, metavar="BOOL", help="false: accept any certificate, and http."
    )(command)


def progress(command: C) -> C:
    """``--progress MODE``."""
    return click.option(
        "--progress",
        type=click.Choice(MODES),
        default="auto",
        show_default=True,
        help="On stderr: bars, a line now and then, or a JSON object for each event. auto is bar on a terminal.",
    )(command)


def existing(store: Path | None) -> Engine:
    """An engine over a store that is there: a path mistyped to a command that only reads must not become a store.

    Raises:
        BlobNotFoundError: there is none.
    """
    from fastoci import Engine
    from fastoci.errors import BlobNotFoundError

    engine = Engine(store)
    if not (engine.store_path / "fastoci.json").is_file():
        where = str(engine.store_path)
        raise BlobNotFoundError(f"there is no store at {where}: fastoci pull makes one", path=where)
    return engine
