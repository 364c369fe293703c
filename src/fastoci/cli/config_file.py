"""The configuration file: what options say that nobody gave, for the machine and for its user.

Keys are the options' names, in the tables ``[registry]``, ``[limits]`` and ``[gc]``, or in none. An option counts
first, then its variable, the user's file, the machine's. A file that another user may write is refused: it decides
which bytes are trusted. docs/configuration.md lists the keys.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from click.core import ParameterSource

from fastoci.cli import environment, options, sections

MACHINE: Final = Path("/etc/fastoci/config.toml")
ENTRIES: Final = "fastoci.cli.config_file"  # where click's context keeps what was read
NAMED: Final = "fastoci.cli.config_file.named"  # and the file that was named
_SIZE: Final = 1 << 20  # bytes; a real one has a few hundred
_COMMON: Final = frozenset({"--store", "--additional-store", "--platform", "--progress"})
_SECRET: Final = frozenset({"--creds", "--password-stdin"})  # a file that tools pass around is no place for them
_TABLES: Final = {sections.REGISTRY: "registry.", sections.LIMITS: "limits."}


class Entry(NamedTuple):
    """What a file says."""

    value: Any
    path: Path


Entries = Mapping[str, Entry]  # by key: store, gc.max-age


def add_to(command: click.Command) -> None:
    """Let the program, or a command, take ``--config``, and the command's options what the files say."""
    if isinstance(command, click.Group):
        command.params.append(_option(_remember, variable="FASTOCI_CONFIG"))
    else:
        taken = any("--config" in each.opts for each in command.params)
        command.params.append(_option(_apply, taken=taken))


def key_of(command: click.Command, option: click.Option) -> str | None:
    """The key of an option: ``store``, ``limits.max-wait``; None when it has none."""
    flag = environment.flag(option)
    if option.is_eager or flag in _SECRET:
        return None
    table = _TABLES.get(sections.of(option), "" if flag in _COMMON else None)
    if table is None and command.name == "gc" and not option.is_flag:
        table = "gc."
    return None if table is None else table + flag.removeprefix("--")


def keys_of(program: click.Group) -> set[str]:
    """All keys that a file may have."""
    return {
        key
        for command in environment.commands_of(program)
        for option in command.params
        if isinstance(option, click.Option) and (key := key_of(command, option)) is not None
    }


def usual(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The machine's file and the user's, whether they are there or not."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return (MACHINE, Path(home, "fastoci", "config.toml")) if os.path.isabs(home) else (MACHINE,)


def load(named: Path | None, known: Callable[[], set[str]], environ: Mapping[str, str]) -> Entries:
    """What the files say together.

    Args:
        named: the only file; else the usual ones, which may be absent. ``/dev/null`` is none.
        known: the keys that there may be; asked when a file says something, since that imports all commands.
    Raises:
        click.UsageError: a file cannot be used, or has an unknown key.
    """
    found: dict[str, Entry] = {}
    for path in usual(environ) if named is None else (named,):
        data = b"" if str(path) == os.devnull else _read(path, must=named is not None)
        if data:
            keys = known()
            for key, value in _parse(data, path):
                if key not in keys:
                    raise click.UsageError(f"{path}: there is no key {key}{_meant(key, keys)}")
                found[key] = Entry(value, path)
    return found


def _meant(key: str, known: set[str]) -> str:
    """Which key it may be instead: one of the same name elsewhere, or of nearly the same."""
    from difflib import get_close_matches  # when somebody mistyped

    name = key.rpartition(".")[2].replace("_", "-")
    names = {each.rpartition(".")[2]: each for each in sorted(known, reverse=True)}
    found = get_close_matches(name, names, 1, cutoff=0.8)  # the same is the closest
    return f": {names[found[0]]} is one" if found else ""


def origin(context: click.Context, option: click.Option) -> str:
    """Where the value of an option comes from: its own name, its variable, or a key in a file; empty: the default."""
    source = context.get_parameter_source(str(option.name))
    key = key_of(context.command, option)
    if source is ParameterSource.DEFAULT_MAP and key is not None:
        return f"{key} in {context.meta[ENTRIES][key].path}"
    if source is ParameterSource.ENVIRONMENT:
        return str(option.envvar)
    return environment.flag(option) if source is ParameterSource.COMMANDLINE else ""


def blame(error: click.ClickException) -> None:
    """Let a usage error name the variable, or the file and the key, whose value cannot be used."""
    if isinstance(error, click.BadParameter) and error.ctx is not None and isinstance(error.param, click.Option):
        where = origin(error.ctx, error.param)
        if where and not where.startswith("--"):
            error.param_hint = where


def _option(callback: Any, variable: str | None = None, *, taken: bool = False) -> click.Option:
    """The option; where a command has another of its name, it is given to the program, in front of the command."""
    return click.Option(
        ["--config-of-program" if taken else "--config"],
        hidden=taken,
        type=options.FilePath(),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=callback,
        envvar=variable,
        help="Read values of options from FILE, instead of the machine's and the user's configuration files.",
    )


def _remember(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    context.meta[NAMED] = path


def _apply(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    program = context.find_root().command
    if context.resilient_parsing or not isinstance(program, click.Group):
        return
    named = context.meta[NAMED] = path or context.meta.get(NAMED)
    entries = load(named, partial(keys_of, program), os.environ)
    context.meta[ENTRIES] = entries
    context.default_map = {
        str(option.name): _value(option, entries[key], key)
        for option in context.command.params
        if isinstance(option, click.Option) and (key := key_of(context.command, option)) in entries and key is not None
    }


def _value(option: click.Option, entry: Entry, key: str) -> str | list[str]:
    """The value as the command line would give it."""
    given = entry.value
    if isinstance(given, list) and not option.multiple:
        raise click.UsageError(f"{entry.path}: {key} has to be one value")
    texts = [_text(option, each, f"{entry.path}: {key}") for each in (given if isinstance(given, list) else [given])]
    return texts if option.multiple else texts[0]


def _text(option: click.Option, value: object, where: str) -> str:
    if isinstance(option.type, click.Path):
        if not isinstance(value, str) or not os.path.isabs(value):
            raise click.UsageError(f"{where} has to be an absolute path")
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    raise click.UsageError(f"{where} has to be a string, a number, or true or false")


def _parse(data: bytes, path: Path) -> Iterator[tuple[str, Any]]:
    import tomllib  # when there is a file

    try:
        tables = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and TOMLDecodeError, too
        raise click.UsageError(f"{path}: this is not TOML: {error}") from error
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", each) for key, each in value.items())
        else:
            yield name, value


def _read(path: Path, *, must: bool) -> bytes:
    """The file's bytes; none when a usual one is absent, or in a directory that this user may not enter.

    Raises:
        click.UsageError: it cannot be read, is no file, is too large, or another user may write it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if not must and isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            return b""
        raise click.UsageError(f"{path}: cannot read this configuration file: {error.strerror}") from error
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise click.UsageError(f"{path}: this configuration file is not a regular file")
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise click.UsageError(f"{path}: others may write this configuration file: `chmod go-w` it")
        if path != MACHINE and info.st_uid not in (0, os.geteuid()):
            raise click.UsageError(f"{path}: this configuration file belongs to another user")
        data = os.read(fd, _SIZE + 1)
    finally:
        os.close(fd)
    if len(data) > _SIZE:
        raise click.UsageError(f"{path}: this configuration file is larger than {_SIZE} bytes")
    return data
