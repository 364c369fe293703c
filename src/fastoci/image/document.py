"""Strict JSON: where two parsers could read two meanings, a document is refused.

The decoder (msgspec, strict) checks the grammar and the types of what is used. It accepts what a document must not
have: bad UTF-8 in fields it skips, deep nesting, and of keys that have a meaning here the same one twice (it takes the
last one) and ``"Digest"`` beside or instead of ``"digest"`` (Go takes either). A scanner over the same text refuses
these. Other keys may come twice: labels, annotations, and all that nothing here reads; of annotations the last one
holds, as in Go. The scanner runs after the decoder, so it relies on the grammar.

Spec: RFC 8259; RFC 7493 (I-JSON) for unique names.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Final, TypeVar, cast, get_args, get_origin

import msgspec

from fastoci.errors import FormatError, ReferenceSyntaxError, UnsupportedError
from fastoci.image.digest import Digest

T = TypeVar("T")

DEPTH: Final = 64  # objects and arrays inside each other

# A string (with the colon that makes it a key), an object or array that holds no other, or a bracket. The second and
# third alternative are shortcuts: a hostile document of 4 MiB consists of little else.
_TOKEN: Final = re.compile(
    r'"((?:[^"\\]++|\\.)*+)"([ \t\r\n]*+:)?+' r"|\{[ \t\r\n]*+\}" r'|\[[^\[\]{}"]*+\]' r"|[\[\]{}]"
)


def decode(data: bytes, type_: type[T], *, what: str) -> T:
    """Decode one JSON document into a msgspec type.

    Args:
        what: names the document in messages.
    Raises:
        FormatError: not one JSON value, not of this type, or it can be read in two ways; says where.
    """
    value = peek(data, type_, what=what)
    _scan(data.decode(), _Shape(item=_shape(cast(Hashable, type_))), what)
    return value


def peek(data: bytes, type_: type[T], *, what: str) -> T:
    """Decode for a first look, to find out what the document is: duplicate and case-variant keys are not seen.

    Raises:
        FormatError: as ``decode``.
    """
    try:
        data.decode()  # fields that are skipped are not decoded below
        return msgspec.json.decode(data, type=type_, strict=True)
    except UnicodeDecodeError as error:
        raise FormatError(f"{what}: not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise FormatError(f"{what}: nested deeper than {DEPTH}") from error
    except msgspec.MsgspecError as error:
        raise FormatError(f"{what}: {error}") from error


def digest(text: str, *, what: str) -> Digest:
    """Read a digest that a document holds; ``what`` says where, in messages.

    Raises:
        FormatError: not a digest. (Not ``ReferenceSyntaxError``: nobody typed it.)
        UnsupportedError: of an algorithm that cannot be verified.
    """
    try:
        return Digest.parse(text)
    except ReferenceSyntaxError as error:
        raise FormatError(f"{what}: {error.message}") from error
    except UnsupportedError as error:
        raise UnsupportedError(f"{what}: {error.message}") from error


class _Shape(msgspec.Struct, frozen=True):
    """Where keys have a meaning: those of an object, or those further in.

    ``fields`` are the keys of an object and what their values are, ``folded`` the same keys by folded case. In an
    array, and in an object whose keys are free, ``item`` is what each value is.
    """

    fields: Mapping[str, _Shape | None] | None = None
    folded: Mapping[str, str] = msgspec.field(default_factory=dict)
    item: _Shape | None = None

    def value(self, name: str) -> _Shape | None:
        """The shape of the value of a key."""
        return self.item if self.fields is None else self.fields.get(name)


@cache
def _shape(type_: Hashable) -> _Shape | None:
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        fields = {entry.encode_name: _shape(entry.type) for entry in msgspec.structs.fields(type_)}
        return _Shape(fields=fields, folded={name.casefold(): name for name in fields})
    inner = next((shape for shape in map(_shape, get_args(type_)) if shape is not None), None)
    return _Shape(item=inner) if inner is not None and get_origin(type_) in (tuple, list, dict) else inner


def _scan(text: str, here: _Shape | None, what: str) -> None:
    """Refuse duplicates and case variants of keys with a meaning, and deep nesting, in text whose grammar holds.

    ``names`` are those keys that were seen in the object that is open, None in an array; ``here`` is its shape,
    ``child`` that of the value of its last key.
    """
    outer: list[tuple[set[str] | None, _Shape | None]] = []
    names: set[str] | None = None
    child: _Shape | None = None
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token[0] == '"':
            if match[2] is None or names is None:
                continue
            child = None
            if here is None:
                continue
            name = _name(match[1])
            child, real = here.value(name), here.folded.get(name.casefold())
            if real is not None and real != name:
                raise _error(what, f"key {name[:100]!r} differs from {real!r} by letter case", text, match.start())
            if name in names:
                raise _error(what, f"duplicate key {name[:100]!r}", text, match.start())
            if real is not None or here.fields is None:
                names.add(name)
        elif token in "]}":
            names, here = outer.pop()
        else:
            if len(outer) >= DEPTH:
                raise _error(what, f"nested deeper than {DEPTH}", text, match.start())
            if len(token) == 1:
                outer.append((names, here))
                here = child if names is not None else here.item if here is not None else None
                names, child = (set() if token == "{" else None), None


def _name(raw: str) -> str:
    return msgspec.json.decode(f'"{raw}"', type=str) if "\\" in raw else raw


def _error(what: str, problem: str, text: str, position: int) -> FormatError:
    return FormatError(f"{what}: {problem} at byte {len(text[:position].encode())}")
