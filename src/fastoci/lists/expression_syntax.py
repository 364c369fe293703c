"""The syntax of regular expressions as Go's ``regexp`` reads it, for texts that are ASCII.

A set of characters is an integer of 128 bits, one for each of ASCII: what tags have no characters of matches nothing.
Groups capture nothing, and greed changes nothing: all that is asked is whether a text matches.

Spec: RE2 syntax, with the flags of Perl.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

ALL: Final = (1 << 128) - 1
_NESTED: Final = 50  # groups in each other
_REPEATS: Final = 1000
_REPEAT: Final = re.compile(r"\{([0-9]{1,9})(,)?([0-9]{1,9})?\}")
_GROUP: Final = re.compile(r"\?(?:P?<[A-Za-z_][A-Za-z0-9_]*>|([imsU]*)(?:-([imsU]+))?([:)]))")
_NUMERIC: Final = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|x\{([0-9A-Fa-f]{1,6})\}|(0[0-7]{0,2}|[1-7][0-7]{1,2}))")
_POSIX: Final = re.compile(r"\[:(\^?)([a-z]+):\]")
_CONTROLS: Final = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}


class Chars(msgspec.Struct, frozen=True):
    """One character of a set."""

    allowed: int


class Edge(msgspec.Struct, frozen=True):
    """A place between characters: the begin, the end, or where a word begins or ends, or does not."""

    kind: Literal["begin", "end", "word", "no word"]


class Sequence(msgspec.Struct, frozen=True):
    """One behind the other; none is the empty text."""

    parts: tuple[Part, ...]


class Choice(msgspec.Struct, frozen=True):
    """Any one of these."""

    parts: tuple[Part, ...]


class Repeat(msgspec.Struct, frozen=True):
    """A part, several times; ``most`` of None is any number."""

    part: Part
    least: int
    most: int | None


Part = Chars | Edge | Sequence | Choice | Repeat


def _of(text: str) -> int:
    return sum(1 << ord(each) for each in set(text))


def _between(first: int, last: int) -> int:
    """All from one to another, as far as ASCII goes."""
    return sum(1 << number for number in range(first, min(last, 127) + 1))


_LOWER: Final = _between(97, 122)
_UPPER: Final = _between(65, 90)
_DIGIT: Final = _between(48, 57)
WORD: Final = _LOWER | _UPPER | _DIGIT | _of("_")
_PERL: Final = {"d": _DIGIT, "w": WORD, "s": _of("\t\n\f\r ")}
_PERL_ALL: Final = _PERL | {name.upper(): ALL & ~allowed for name, allowed in _PERL.items()}
_CLASSES: Final = {
    "alnum": _LOWER | _UPPER | _DIGIT,
    "alpha": _LOWER | _UPPER,
    "ascii": ALL,
    "blank": _of("\t "),
    "cntrl": _between(0, 31) | 1 << 127,
    "digit": _DIGIT,
    "graph": _between(33, 126),
    "lower": _LOWER,
    "print": _between(32, 126),
    "punct": _between(33, 126) & ~(_LOWER | _UPPER | _DIGIT),
    "space": _of("\t\n\v\f\r "),
    "upper": _UPPER,
    "word": WORD,
    "xdigit": _DIGIT | _of("ABCDEFabcdef"),
}


def parse(text: str) -> Part:
    """Read an expression.

    Raises:
        ValueError: it is none; says why.
    """
    reader = _Reader(text)
    part = reader.choice(0)
    if reader.at < len(text):
        raise ValueError("a ) without its (")
    return part


class _Reader:
    """Reads an expression from its begin to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0
        self._folds = False  # whether case means nothing, from here on

    def _take(self, wanted: str) -> bool:
        taken = self._text.startswith(wanted, self.at)
        self.at += len(wanted) if taken else 0
        return taken

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self.at)
        self.at = match.end() if match else self.at
        return match

    def _char(self, where: str) -> str:
        if self.at >= len(self._text):
            raise ValueError(f"it ends in {where}")
        self.at += 1
        return self._text[self.at - 1]

    def choice(self, nested: int) -> Part:
        """What is up to the end of this group."""
        if nested > _NESTED:
            raise ValueError(f"groups in each other more than {_NESTED} deep")
        folds = self._folds
        parts = [self._sequence(nested)]
        while self._take("|"):
            parts.append(self._sequence(nested))
        self._folds = folds
        return Choice(tuple(parts)) if len(parts) > 1 else parts[0]

    def _sequence(self, nested: int) -> Part:
        parts: list[Part] = []
        while self.at < len(self._text) and self._text[self.at] not in "|)":
            if self._take("\\Q"):
                quoted, _, _ = self._text[self.at :].partition("\\E")
                self.at = min(len(self._text), self.at + len(quoted) + 2)
                parts += [self._chars(_bit(each)) for each in quoted]
                if not quoted:
                    continue
            elif (part := self._one(nested)) is not None:
                parts.append(part)
            else:
                continue
            parts[-1] = self._repeated(parts[-1])
        return Sequence(tuple(parts))

    def _chars(self, allowed: int) -> Chars:
        return Chars(_folded(allowed) if self._folds else allowed)

    def _one(self, nested: int) -> Part | None:
        """What is next; None for flags, which are no part."""
        char = self._char("nothing")
        if char == "(":
            return self._group(nested)
        if char == "[":
            return Chars(self._class())
        if char == "\\":
            return self._escape()
        if char in "*+?" or (char == "{" and _REPEAT.match(self._text, self.at - 1)):
            raise ValueError(f"nothing is before the {char}")
        if char in "^$":
            return Edge("begin" if char == "^" else "end")
        return Chars(ALL) if char == "." else self._chars(_bit(char))

    def _group(self, nested: int) -> Part | None:
        folds = self._folds
        if self._text.startswith("?", self.at):
            match = self._match(_GROUP)
            if match is None:
                raise ValueError("a group of a kind that is not known: (?:...), (?P<name>...) and (?i) are")
            if match[3] is not None:
                self._folds = ("i" in match[1] or folds) and "i" not in (match[2] or "")
            if match[3] == ")":
                return None
        part = self.choice(nested + 1)
        self._folds = folds
        if not self._take(")"):
            raise ValueError("a ( without its )")
        return part

    def _repeated(self, part: Part) -> Part:
        if self.at >= len(self._text):
            return part
        char = self._text[self.at]
        if char in "*+?":
            self.at += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        elif (match := self._match(_REPEAT)) is not None:
            least = int(match[1])
            most = least if not match[2] else int(match[3]) if match[3] else None
            if max(least, most or 0) > _REPEATS or (most is not None and most < least):
                raise ValueError(f"{match[0]} is no number of times, {_REPEATS} are the most")
        else:
            return part
        self._take("?")  # as few as can be: the same texts match
        rest = self._text[self.at : self.at + 1]
        if rest and (rest in "*+?" or _REPEAT.match(self._text, self.at)):
            raise ValueError(f"{rest} behind another repetition")
        return Repeat(part, least, most)

    def _escape(self) -> Part:
        char = self._text[self.at : self.at + 1]
        edges: dict[str, Edge] = {"A": Edge("begin"), "z": Edge("end"), "b": Edge("word"), "B": Edge("no word")}
        if char in edges:
            self.at += 1
            return edges[char]
        if char in _PERL_ALL:
            self.at += 1
            return Chars(_PERL_ALL[char])
        return self._chars(_bit(chr(self._number())))

    def _number(self) -> int:
        """The character of an escape, whose backslash was read."""
        self.at -= 1
        if (match := self._match(_NUMERIC)) is not None:
            number = int(match[3], 8) if match[3] else int(match[1] or match[2], 16)
            if number > 0x10FFFF:
                raise ValueError(f"{match[0]} is no character")
            return number
        self.at += 1
        char = self._char("a backslash")
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum() or ord(char) > 127 or char == "_":
            raise ValueError(f"\\{char} is not known")
        return ord(char)

    def _class(self) -> int:
        negated = self._take("^")
        allowed, is_first = 0, True
        while is_first or not self._take("]"):
            is_first = False
            allowed |= self._class_item()
        allowed = _folded(allowed) if self._folds else allowed
        return ALL & ~allowed if negated else allowed

    def _class_item(self) -> int:
        if (match := self._match(_POSIX)) is not None:
            if match[2] not in _CLASSES:
                raise ValueError(f"{match[0]} is not known")
            return ALL & ~_CLASSES[match[2]] if match[1] else _CLASSES[match[2]]
        if self._text.startswith("\\", self.at) and self._text[self.at + 1 : self.at + 2] in _PERL_ALL:
            self.at += 2
            return _PERL_ALL[self._text[self.at - 1]]
        first = self._class_char()
        if not self._text.startswith("-", self.at) or self._text.startswith("-]", self.at):
            return _between(first, first)
        self.at += 1
        last = self._class_char()
        if last < first:
            raise ValueError("a range of characters that ends before it begins")
        return _between(first, last)

    def _class_char(self) -> int:
        char = self._char("a [ without its ]")
        return self._number() if char == "\\" else ord(char)


def _bit(char: str) -> int:
    return 1 << ord(char) if ord(char) < 128 else 0


def _folded(allowed: int) -> int:
    """With each letter in both cases."""
    return allowed | (allowed & _LOWER) >> 32 | (allowed & _UPPER) << 32
