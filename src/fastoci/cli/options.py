"""Options that several commands share, each once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from fastoci import durations

if TYPE_CHECKING:
    from fastoci import Engine, Limits

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


def additional(command: C) -> C:
    """``--additional-store DIR``, repeatable."""
    return click.option(
        "--additional-store",
        "additional",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="A store that is only read, and looked into before the network; more in the store's fastoci.json.",
    )(command)


def output(command: C) -> C:
    """``--format text|json``."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        help="On stdout: lines for people, or one JSON object.",
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


def cert_dir(command: C) -> C:
    """``--cert-dir DIR``."""
    return click.option(
        "--cert-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Certificates for every registry, instead of those of certs.d.",
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


class Size(click.ParamType["int"]):
    """Bytes: a number, with K, M, G or T for powers of 1024."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper().removesuffix("B").removesuffix("I")
        factor = 1 << 10 * ("KMGT".find(text[-1:]) + 1) if text[-1:] in "KMGT" and text else 1
        number = text if factor == 1 else text[:-1]
        if not number.isdecimal():
            self.fail(f"{value!r} is no size: 512M, 10G or a number of bytes", param, ctx)
        return int(number) * factor


class Duration(click.ParamType["float"]):
    """Seconds: a number with s, m, h, d or w behind it, or several as ``1h30m``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return durations.duration_s(str(value), durations.LONG)
        except ValueError:
            self.fail(f"{value!r} is no duration: 90s, 45m, 12h, 30d or 4w", param, ctx)


def unpack_limits(command: C) -> C:
    """``--max-unpacked``, ``--max-entries`` and ``--memory``: what ``limits`` makes a value of."""
    for option in (
        click.option("--memory", type=Size(), metavar="SIZE", help="For buffers and zstd windows.  [default: 64M]"),
        click.option("--max-entries", type=click.IntRange(0), metavar="N", help="Files of one image.  [default: 10^7]"),
        click.option("--max-unpacked", type=Size(), metavar="SIZE", help="Bytes of those files.  [default: 100G]"),
    ):
        command = option(command)
    return command


def transfer_limits(command: C) -> C:
    """``--connections`` and ``--max-wait``: two more of ``limits``."""
    for option in (
        click.option(
            "--max-wait",
            type=Duration(),
            metavar="TIME",
            help="The longest that a registry may ask for.  [default: 60s]",
        ),
        click.option("--connections", type=click.IntRange(1), metavar="N", help="At most, to one host.  [default: 8]"),
    ):
        command = option(command)
    return command


def limits(
    memory: int | None,
    max_entries: int | None,
    max_unpacked: int | None,
    *,
    max_store_size: int | None = None,
    connections: int | None = None,
    max_wait_s: float | None = None,
) -> Limits:
    """The limits that ``unpack_limits`` and ``transfer_limits`` asked for; sizes and counts of 0 are the default, too.

    Raises:
        click.UsageError: they cannot be.
    """
    from fastoci import Limits

    usual = Limits()
    try:
        return Limits(
            memory=memory or usual.memory,
            unpacked_entries=max_entries or usual.unpacked_entries,
            unpacked_size=max_unpacked or usual.unpacked_size,
            store_size=max_store_size or usual.store_size,
            connections=connections or usual.connections,
            max_wait_s=usual.max_wait_s if max_wait_s is None else max_wait_s,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


class Rate(Size):
    """Bytes a second: a size, with or without ``/s``."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        rate = super().convert(str(value).removesuffix("/s"), param, ctx)
        return rate or self.fail("a rate is more than 0", param, ctx)


def existing(store: Path | None, additional: Sequence[Path] = (), **options: Any) -> Engine:
    """An engine over a store that is there: a path mistyped to a command that only reads must not become a store.

    Raises:
        BlobNotFoundError: there is none.
        StoreError: the disk refused to tell.
    """
    from fastoci import Engine
    from fastoci.errors import BlobNotFoundError, StoreError

    engine = Engine(store, additional=additional, **options)
    where = str(engine.store_path)
    try:
        there = (engine.store_path / "fastoci.json").is_file()
    except OSError as error:
        raise StoreError(f"cannot look at {where}: {error.strerror}", path=where) from error
    if not there:
        raise BlobNotFoundError(f"there is no store at {where}: fastoci pull makes one", path=where)
    return engine
