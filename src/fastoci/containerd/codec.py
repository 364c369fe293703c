"""Messages of protobuf as frozen values: the fields of a class are its table, each with its number in its type.

``size: Annotated[int, 3] = 0`` is field 3. The type is the kind: ``str``, ``bytes``, ``int`` (any enum, too), ``bool``,
another message or None, a tuple of texts or messages, a map of texts to texts or messages. What a peer sends beyond
that is passed over.

Spec: protobuf, "Encoding"; proto3: a field with its type's default value is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Final, Self, get_args, get_origin, get_type_hints

import msgspec

from fastoci.containerd import wire
from fastoci.errors import FormatError

_ELEMENTS: Final = 100_000  # of one repeated field: a message of 16 MiB could have millions of empty ones


class Message(msgspec.Struct, frozen=True):
    """What all messages are."""

    def encode(self) -> bytes:
        """The bytes of this message; fields in the order of the class, maps in their own."""
        out = bytearray()
        for field in _table(type(self)).values():
            field.put(out, getattr(self, field.name))
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a message; what it does not know is passed over.

        Raises:
            FormatError: not protobuf, a field of another kind, a text that is not UTF-8, too many elements.
        """
        table = _table(cls)
        found: dict[str, list[Any]] = {}
        for number, value in wire.fields(data):
            field = table.get(number)
            if field is None:
                continue
            if isinstance(value, int) is not field.kind.number:
                raise FormatError(f"{cls.__name__}.{field.name}: a field of another type")
            values = found.setdefault(field.name, [])
            if len(values) >= _ELEMENTS:
                raise FormatError(f"{cls.__name__}.{field.name}: more than {_ELEMENTS} elements")
            values.append(value)
        try:
            return cls(**{field.name: field.get(found[field.name]) for field in table.values() if field.name in found})
        except UnicodeDecodeError as error:
            raise FormatError(f"{cls.__name__}: a text is not UTF-8: {error.object[:40]!r}") from error


class _Kind(msgspec.Struct, frozen=True):
    """How one value is written and read. ``number``: it is a varint, else bytes."""

    number: bool
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_SCALARS: Final[dict[type, _Kind]] = {
    str: _Kind(False, lambda text: text.encode(), lambda data: data.decode()),
    bytes: _Kind(False, lambda data: data, lambda data: data),
    int: _Kind(True, lambda value: value, wire.signed),
    bool: _Kind(True, int, bool),
}


class _Field(msgspec.Struct, frozen=True):
    """One field that is there at most once. Of an embedded message that comes in parts the parts are one."""

    name: str
    number: int
    kind: _Kind
    embedded: bool = False

    def put(self, out: bytearray, value: Any) -> None:
        """Append the field, unless it has its default."""
        if value or (self.embedded and value is not None):
            self.put_one(out, value)

    def put_one(self, out: bytearray, value: Any) -> None:
        """Append one value, whatever it is."""
        put = wire.put_number if self.kind.number else wire.put_bytes
        put(out, self.number, self.kind.encode(value))

    def get(self, values: list[Any]) -> Any:
        """The value of what was found."""
        return self.kind.decode(b"".join(values) if self.embedded else values[-1])


class _Repeated(_Field, frozen=True):
    """A field with a tuple."""

    def put(self, out: bytearray, value: Any) -> None:
        """Append each element."""
        for each in value:
            self.put_one(out, each)

    def get(self, values: list[Any]) -> Any:
        """All elements in their order."""
        return tuple(map(self.kind.decode, values))


class _Map(_Field, frozen=True):
    """A field with a map: repeated pairs, the last of a key holds."""

    def put(self, out: bytearray, value: Any) -> None:
        """Append each pair."""
        for key, each in value.items():
            pair = bytearray()
            wire.put_bytes(pair, 1, key.encode())
            wire.put_bytes(pair, 2, self.kind.encode(each))
            wire.put_bytes(out, self.number, bytes(pair))

    def get(self, values: list[Any]) -> Any:
        """The pairs as a dict."""
        return dict(map(self._pair, values))

    def _pair(self, data: bytes) -> tuple[str, Any]:
        found = {1: b"", 2: b""}
        for number, value in wire.fields(data):
            if number in found:
                if isinstance(value, int):
                    raise FormatError(f"{self.name}: a map with numbers")
                found[number] = value
        return found[1].decode(), self.kind.decode(found[2])


@cache
def _table(message: type[Message]) -> dict[int, _Field]:
    """The fields of a class by their numbers."""
    return {field.number: field for field in _fields(message)}


def _fields(message: type[Message]) -> Iterator[_Field]:
    for name, hint in get_type_hints(message, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            continue
        value, number = get_args(hint)
        whole = get_origin(value)
        parts = [part for part in get_args(value) if part not in (type(None), Ellipsis)]
        if whole is tuple:
            yield _Repeated(name, number, _kind(parts[0]))
        elif whole is Mapping:
            yield _Map(name, number, _kind(parts[1]))
        elif parts:
            yield _Field(name, number, _kind(parts[0]), True)
        else:
            yield _Field(name, number, _kind(value))


def _kind(value: type) -> _Kind:
    return _SCALARS.get(value) or _Kind(False, value.encode, value.decode)  # type: ignore[attr-defined]
