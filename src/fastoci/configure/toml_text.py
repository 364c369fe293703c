"""TOML: one string put into an array of a file that people write, or taken out, and small tables written anew.

The text around the string stays as it is, comments included. What comes out is parsed again, and has to say what was
there before and the string, and no more; a file of a form that is not understood here is refused.

Spec: TOML 1.0.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from fastoci.errors import ConfigError

Table = dict[str, Any]

_ITEM: Final = re.compile(r"""\s+|,|\#[^\n]*|(?P<text>"(?:\\.|[^"\\\n])*"|'[^'\n]*')|(?P<end>\])""")
_HEADER: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)
_VERSION: Final = re.compile(r"^version[ \t]*=[^\n]*\n", re.MULTILINE)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def parse(data: bytes, path: str) -> Table:
    """Read a file.

    Raises:
        ConfigError: it is not TOML; says where.
    """
    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


class Place:
    """An array of strings: a key of a table that has its own header, or of none; and who puts strings there.

    Args:
        by: who writes: a comment beside what was made for it says so.
    """

    def __init__(self, path: str, table: tuple[str, ...], key: str, *, by: str) -> None:
        self._path = path
        self._table = table
        self._key = key
        self._comment = f"  # {by}"

    def values(self, document: Table) -> list[str]:
        """What the array has; nothing where there is none.

        Raises:
            ConfigError: there is something else.
        """
        for name in self._table:
            document = document.get(name, {})
            if not isinstance(document, dict):
                raise ConfigError(f"{self._path}: {'.'.join(self._table)} is not a table")
        found = document.get(self._key, [])
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise ConfigError(f"{self._path}: {self._key} is not an array of strings")
        return found

    def with_string(self, data: bytes, value: str) -> bytes:
        """The file with the string at the end of the array; as it is when it is there.

        Raises:
            ConfigError: it is not TOML, or in a form that cannot be edited here.
        """
        document = parse(data, self._path)
        found = self.values(document)
        if value in found:
            return data
        text = data.decode()
        if not self._has_key(document):
            text = self._with_line(text, self._line(value))
        else:
            start, strings = self._strings(text)
            at = strings[-1][1] if strings else start
            text = f"{text[:at]}{', ' if strings else ''}{string(value)}{text[at:]}"
        wanted = deepcopy(document)
        self._table_of(wanted)[self._key] = [*found, value]
        return self._checked(text, wanted, f"add {string(value)} to {self._key} of it")

    def without_string(self, data: bytes, value: str) -> bytes:
        """The file without the string, and without the key and the table that were made for it and are empty now.

        Raises:
            ConfigError: it is not TOML, or in a form that cannot be edited here.
        """
        document = parse(data, self._path)
        found = self.values(document)
        if value not in found:
            return data
        text = data.decode()
        wanted = deepcopy(document)
        left = [each for each in found if each != value]
        line = self._line(value)
        if text.endswith(made := self._made(line)):
            text = text.removesuffix(made)
        elif line in text:
            text = text.replace(line, "", 1)
        else:
            text = _cut(text, self._strings(text)[1], value)
        self._table_of(wanted)[self._key] = left
        return self._checked(text, wanted, f"take {string(value)} out of {self._key} of it")

    def _line(self, value: str) -> str:
        return f"{self._key} = [{string(value)}]{self._comment}\n"

    def _made(self, line: str) -> str:
        """What is put at the end of a file that has no such table."""
        return f"\n[{'.'.join(map(_key, self._table))}]{self._comment}\n{line}"

    def _has_key(self, document: Table) -> bool:
        for name in self._table:
            document = document.get(name, {})
        return self._key in document

    def _table_of(self, document: Table) -> Table:
        for name in self._table:
            document = document.setdefault(name, {})
        return document

    def _with_line(self, text: str, line: str) -> str:
        region = self._region(text)
        if region is None:
            return _ended(text) + self._made(line)
        start, end = region
        if not self._table and (match := _VERSION.search(text, start, end)):
            start = match.end()
        return _ended(text[:start]) + line + text[start:]

    def _region(self, text: str) -> tuple[int, int] | None:
        """From where to where the table's own keys are, as far as headers are at the beginnings of lines."""
        start = 0
        if self._table:
            names = r"[ \t]*\.[ \t]*".join(f'(?:{re.escape(name)}|"{re.escape(name)}")' for name in self._table)
            match = re.search(rf"^[ \t]*\[[ \t]*{names}[ \t]*\][^\n]*(?:\n|\Z)", text, re.MULTILINE)
            if match is None:
                return None
            start = match.end()
        following = _HEADER.search(text, start)
        return start, following.start() if following else len(text)

    def _strings(self, text: str) -> tuple[int, list[tuple[int, int]]]:
        """Where the array begins, and its strings, each from where to where; of nothing when it is not found."""
        region = self._region(text) or (0, 0)
        head = re.compile(rf"^[ \t]*(?:{self._key}|\"{self._key}\")[ \t]*=[ \t]*\[", re.MULTILINE)
        match = head.search(text, *region)
        if match is None:
            return 0, []
        at, strings = match.end(), []
        while (item := _ITEM.match(text, at)) and not item["end"]:
            if item["text"]:
                strings.append(item.span("text"))
            at = item.end()
        return match.end(), strings

    def _checked(self, text: str, wanted: Table, action: str) -> bytes:
        try:
            if self._essence(tomllib.loads(text)) == self._essence(wanted):
                return text.encode()
        except tomllib.TOMLDecodeError:
            pass
        raise ConfigError(f"{self._path} has a form that is not edited here: {action} yourself")

    def _essence(self, document: Table) -> Table:
        """The document without this array and its tables where they are empty."""
        way = [document]
        for name in self._table:
            way.append(way[-1].get(name, {}))
        for table, name in zip(reversed(way), (self._key, *reversed(self._table)), strict=True):
            if not table.get(name):
                table.pop(name, None)
        return document


def _cut(text: str, strings: Sequence[tuple[int, int]], value: str) -> str:
    """The text without the string of this value, and without the comma between it and another."""
    for number, (start, end) in enumerate(strings):
        if tomllib.loads(f"v = {text[start:end]}")["v"] == value:
            if number:
                start = strings[number - 1][1]
            elif len(strings) > 1:
                end = strings[1][0]
            return text[:start] + text[end:]
    return text


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def string(value: str) -> str:
    """A string as TOML writes it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else string(name)


def tables(document: Mapping[tuple[str, ...], Table]) -> str:
    """Tables by their names, written; an array of tables becomes tables of their own."""
    return "\n".join(_table(names, values) for names, values in document.items())


def _table(names: tuple[str, ...], values: Mapping[str, Any]) -> str:
    name = ".".join(map(_key, names))
    plain = {key: value for key, value in values.items() if not _is_tables(value)}
    lines = [f"[{name}]", *(f"{_key(key)} = {_value(value)}" for key, value in plain.items())]
    for key, value in values.items():
        if key not in plain:
            for each in value:
                lines += ["", f"[[{name}.{_key(key)}]]", *(f"{_key(k)} = {_value(v)}" for k, v in each.items())]
    return "".join(f"{line}\n" for line in lines)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _value(value: object) -> str:
    match value:
        case str():
            return string(value)
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return (
                f"{{ {', '.join(f'{_key(key)} = {_value(each)}' for key, each in value.items())} }}" if value else "{}"
            )
        case _:  # numbers, dates and times
            return value.isoformat() if hasattr(value, "isoformat") else str(value)
