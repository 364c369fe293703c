"""Options that several commands share, each once."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from fastoci.cli import sections
from fastoci.cli.report import Report

if TYPE_CHECKING:
    from fastoci import Engine, Limits, RegistryOptions, TrustPolicy
    from fastoci.cli.progress.display import Display
    from fastoci.events import Observer

V = TypeVar("V")
Command = Callable[..., int | None]


class FilePath(click.Path):
    """A path that is not empty: what a script makes of a variable that is not set must not be this directory."""

    def __init__(self, **bounds: Any) -> None:
        super().__init__(path_type=Path, **bounds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error when it is none."""
        if not os.fspath(value):
            self.fail("an empty path names nothing", param, ctx)
        return super().convert(value, param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """The paths of a variable; a colon too many is none."""
        return [each for each in super().split_envvar_value(rv) if each]


MODES: Final = ("auto", "bar", "log", "json", "none")
_UNITS: Final = "KMGTP"
_SCRATCH: Final = "/var/tmp"  # on a disk, where /tmp may be memory
_SIZE: Final = re.compile(rf"([0-9]+)(?:\.([0-9]+))? ?(?:([{_UNITS}])(I)?)?(?:B|BYTES?)?")


store = click.option(
    "--store",
    type=FilePath(),
    metavar="DIR",
    help="Directory of the store, which keeps the images."
    "  [default: /var/lib/fastoci for root, else ~/.local/share/fastoci]",
)
additional = click.option(
    "--additional-store",
    "additional",
    multiple=True,
    type=FilePath(),
    metavar="DIR",
    help="Look for blobs in this store, too, and only read there."
    " May be repeated; the store's fastoci.json may name more.",
)
output = sections.under(
    sections.OUTPUT,
    click.option(
        "--format",
        "form",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        help="Print text, or one JSON object.",
    ),
)
platform = click.option(
    "--platform",
    metavar="OS/ARCH[/VARIANT]",
    help="Take the image for this platform, as linux/arm64, or linux or arm64 alone.  [default: this machine's]",
)
platforms = click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH[/VARIANT]",
    help="Take the image for this platform, as linux/arm64, or linux or arm64 alone. May be repeated; all: for each"
    " that the image has.  [default: this machine's]",
)
same_owner = click.option(
    "--same-owner/--no-same-owner",
    default=None,
    help="Give files the owners that the image names, or leave all to this user.  [default: --same-owner as root]",
)


def _display(context: click.Context, _: click.Parameter, mode: str) -> Display:
    """The display of a mode; the command's failures are told on it, too."""
    from fastoci.cli.progress.display import choose

    display = choose(mode)
    context.ensure_object(Report).show_on(display)
    return display


progress = sections.under(
    sections.OUTPUT,
    click.option(
        "--progress",
        callback=_display,
        type=click.Choice(MODES),
        default="auto",
        show_default=True,
        help="What stderr shows: bars, a line now and then, or each event as JSON. auto: bars on a terminal, else log.",
    ),
)


def _lower(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Give way to others, before any thread starts."""
    if wanted and not context.resilient_parsing:
        from fastoci.cli import priority

        for problem in priority.lower():
            context.ensure_object(Report).warn(f"--nice: {problem}")


nice = sections.under(
    sections.LIMITS,
    click.option(
        "--nice",
        is_flag=True,
        expose_value=False,
        callback=_lower,
        help="Give way to other programs: the lowest CPU priority, and the disk when nobody else wants it.",
    ),
)


class Size(click.ParamType["int"]):
    """Bytes: a number, with a unit of powers of 1000 (K, MB, G) or of 1024 (KiB, MiB, GiB), in any case."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The value of an option's text; a usage error when it has none."""
        match = _SIZE.fullmatch(str(value).strip().upper())
        if match is None:
            self.fail(f"{value!r} is not a size: 512MB, 10G, 64MiB or a number of bytes", param, ctx)
        whole, part, unit, binary = match.groups(default="")
        factor = (1024 if binary else 1000) ** (_UNITS.index(unit) + 1) if unit else 1
        count: int = int(whole + part) * factor // 10 ** len(part)
        if count > sys.maxsize:
            self.fail(f"{value!r} is more than any disk holds", param, ctx)
        return count


class Rate(Size):
    """Bytes a second: a size, with or without ``/s``."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The value of an option's text; a usage error when it has none."""
        rate = super().convert(re.sub("/s$", "", str(value), flags=re.IGNORECASE), param, ctx)
        return rate or self.fail("a rate is more than 0", param, ctx)


class Duration(click.ParamType["float"]):
    """Seconds: a number with s, m, h, d or w behind it, or several as ``1h30m``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The value of an option's text; a usage error when it has none."""
        from fastoci.durations import LONG, duration_s  # not at the start of every command

        try:
            return duration_s(str(value), LONG)
        except ValueError:
            if re.fullmatch(r"[0-9]+", str(value)):  # 30 was meant as seconds for one option, as days for another
                self.fail(f"{value} has no unit: {value}s, {value}m, {value}h or {value}d", param, ctx)
            self.fail(f"{value!r} is not a duration: 90s, 45m, 12h, 30d or 4w", param, ctx)


def _number(flag: str, field: str, what: str, *, least: int = 1) -> Callable[[Command], Command]:
    return click.option(flag, field, type=click.IntRange(least), metavar="N", help=what)


_LIMITS: Final[dict[str, Callable[[Command], Command]]] = {
    "durability": click.option(
        "--durability",
        type=click.Choice(("commit", "blobs", "batch", "none")),
        help="What is safe from a power cut before it has its name. commit: blobs and unpacked files; blobs: blobs;"
        " batch: large blobs, and small ones when all are here; none: nothing.  [default: blobs]",
    ),
    "connections": _number("--connections", "connections", "Open at most N connections to one host.  [default: 8]"),
    "total_connections": _number(
        "--max-connections",
        "total_connections",
        "Open at most N connections to all hosts together.  [default: no limit]",
    ),
    "bandwidth": click.option(
        "--max-bandwidth",
        "bandwidth",
        type=Rate(),
        metavar="RATE",
        help="Receive, and send, at most RATE bytes a second in all: 50M, 6MiB/s.  [default: no limit]",
    ),
    "request_rate": click.option(
        "--max-requests",
        "request_rate",
        type=click.FloatRange(0, min_open=True),
        metavar="N",
        help="Send at most N requests a second to one host.  [default: no limit]",
    ),
    "max_wait_s": click.option(
        "--max-wait",
        "max_wait_s",
        type=Duration(),
        metavar="TIME",
        help="Wait at most TIME when a registry asks to wait before the next try.  [default: 60s]",
    ),
    "first_byte_s": click.option(
        "--first-byte-timeout",
        "first_byte_s",
        type=Duration(),
        metavar="TIME",
        help="Wait at most TIME until a registry begins to answer."
        "  [default: 5m from a host that answered before, else 30s]",
    ),
    "unpacked_size": click.option(
        "--max-unpacked",
        "unpacked_size",
        type=Size(),
        metavar="SIZE",
        help="Refuse what unpacks to more bytes than SIZE.  [default: 100GiB]",
    ),
    "unpacked_entries": _number(
        "--max-entries",
        "unpacked_entries",
        "Refuse what unpacks to more than N files and directories.  [default: 10^7]",
        least=0,
    ),
    "memory": click.option(
        "--memory",
        type=Size(),
        metavar="SIZE",
        help="Use at most SIZE of memory for bytes on their way, and for zstd.  [default: 64MiB]",
    ),
    "store_size": click.option(
        "--max-store-size",
        "store_size",
        type=Size(),
        metavar="SIZE",
        help="Refuse a job that would grow the store beyond SIZE.  [default: no limit]",
    ),
}

# The limits of a job that moves blobs from or to a registry, and of one that fetches and unpacks.
MOVING: Final = ("connections", "total_connections", "bandwidth", "request_rate", "max_wait_s", "first_byte_s")
FETCHING: Final = (
    *MOVING,
    "unpacked_size",
    "unpacked_entries",
    "memory",
    "store_size",
    "durability",
)


def limits(*names: str) -> Callable[[Command], Command]:
    """An option for each of these fields of ``Limits``, given to the command as ``limits``.

    Sizes and counts of 0 are the default, too.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def gathered(**given: Any) -> int | None:
            asked = {name: given.pop(name) for name in names}
            return command(limits=limits_of(asked), **given)

        decorated: Command = gathered
        for name in reversed(names):
            decorated = sections.under(sections.LIMITS, _LIMITS[name])(decorated)
        return decorated

    return decorate


def limits_of(asked: dict[str, Any]) -> Limits:
    """The value that these options ask for; None is the default.

    Raises:
        click.UsageError: they cannot be.
    """
    from fastoci import Limits

    try:
        return Limits(**{name: value for name, value in asked.items() if value or (name, value) == ("max_wait_s", 0)})
    except ValueError as error:
        raise click.UsageError(str(error)) from error


class Given:
    """What a command is given: a subclass names an attribute for each of its options."""

    def __init__(self, **options: Any) -> None:
        vars(self).update(options)


class OneImage(Given):
    """What commands are given that make files of one image of the store; each has more."""

    reference: str
    directory: Path
    platform: str | None
    store: Path | None
    additional: tuple[Path, ...]
    limits: Limits
    progress: Display

    def engine(self) -> Engine:
        """An engine over the store. Raises: as ``existing``."""
        return existing(self.store, self.additional, limits=self.limits, observer=self.progress)


def one_image(command: Command) -> Command:
    """The options of ``OneImage``."""
    bounded = limits("unpacked_size", "unpacked_entries", "memory", "durability")
    return platform(store(additional(bounded(progress(command)))))


def gather(kind: Callable[..., V]) -> Callable[[Callable[[V], int | None]], Command]:
    """Give a command all that it was asked for as one value of ``kind``, a subclass of ``Given``."""

    def decorate(command: Callable[[V], int | None]) -> Command:
        @functools.wraps(command)
        def gathered(**given: Any) -> int | None:
            return command(kind(**given))

        return gathered

    return decorate


def existing(
    store: Path | None,
    additional: Sequence[Path] = (),
    *,
    registry: RegistryOptions | None = None,
    limits: Limits | None = None,
    observer: Observer | None = None,
    trust: TrustPolicy | None = None,
) -> Engine:
    """An engine over a store that is there: a path mistyped to a command that only reads must not become a store.

    Args:
        observer: shows warnings by default.
    Raises:
        BlobNotFoundError: there is none.
        StoreError: the disk refused to tell.
    """
    from fastoci import Engine
    from fastoci.cli.progress.display import choose
    from fastoci.errors import BlobNotFoundError, StoreError

    observer = observer or choose("none")
    engine = Engine(store, registry=registry, limits=limits, additional=additional, observer=observer, trust=trust)
    where = str(engine.store_path)
    try:
        there = (engine.store_path / "fastoci.json").is_file()
    except OSError as error:
        raise StoreError(f"cannot open the store at {where}: {error.strerror}", path=where) from error
    if not there:
        raise BlobNotFoundError(f"there is no store at {where}: fastoci pull makes one", path=where)
    return engine


@asynccontextmanager
async def of_ends(
    ends: Sequence[str], store: Path | None, additional: Sequence[Path], registry: RegistryOptions, limits: Limits
) -> AsyncIterator[Engine]:
    """An engine that looks at ends; over a store that is there, when one of them is an image of the store.

    Raises:
        BlobNotFoundError, StoreError: as ``existing``.
    """
    from fastoci import Engine
    from fastoci.cli.progress.display import choose

    if any(is_stored(end) for end in ends):
        async with existing(store, additional, registry=registry, limits=limits) as engine:
            yield engine
        return
    with scratch_stores() as scratch:
        place = store if is_there(store) else scratch()
        observer = choose("none")
        async with Engine(place, registry=registry, limits=limits, additional=additional, observer=observer) as engine:
            yield engine


def is_there(store: Path | None) -> bool:
    """Whether there is a store; one that may not be looked at, or that nobody can name, is not there."""
    from fastoci import Engine
    from fastoci.errors import ConfigError

    with suppress(OSError, ConfigError):
        return (Engine(store).store_path / "fastoci.json").is_file()
    return False


@contextmanager
def scratch_stores() -> Iterator[Callable[[], Path]]:
    """Makes a directory, on call, for a store that goes at the end: for what keeps nothing in one.

    Raises:
        StoreError: by the call: no directory can be made.
    """
    import tempfile

    from fastoci.errors import StoreError

    with ExitStack() as made:

        def scratch() -> Path:
            above = os.environ.get("TMPDIR") or _SCRATCH
            try:
                return Path(made.enter_context(tempfile.TemporaryDirectory(prefix="fastoci-", dir=above)), "store")
            except OSError as error:
                raise StoreError(f"cannot make a directory in {above}: {error.strerror}", path=above) from error

        yield scratch


def is_stored(end: str) -> bool:
    """Whether an end is an image of the store: with no other place in front."""
    return not end.startswith(("docker://", "oci:", "oci-archive:", "docker-archive:", "dir:"))
