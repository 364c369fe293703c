"""Platforms, ``os/architecture[/variant]``: their spellings, and what a processor runs.

Two spellings of one platform are made equal by ``normalised``; documents keep theirs. The order in which a machine
falls back to older variants is that of containerd's ``platforms``.

Spec: image-spec v1.1 image-index.md, "platform"; conventions of containerd and Docker for the text form.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Final

import msgspec

from fastoci.arguments import expect
from fastoci.errors import ReferenceSyntaxError

ALL: Final = "all"  # in place of platforms: those that an index has images for
_WORD: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_TEXT: Final = re.compile(rf"({_WORD})(?:\(([A-Za-z0-9_.-]*)((?:\+{_WORD})*)\))?/({_WORD})(?:/({_WORD}))?")
_VARIANT: Final = re.compile(r"v?([0-9]{1,2})(?:\.([0-9]{1,2}))?")

_ALIASES: Final = {  # architecture -> architecture, and the variant that the name implies
    "aarch64": ("arm64", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_SYSTEMS: Final = frozenset(  # of Go, for a name alone: it is an operating system's or a processor's
    {"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd", "openbsd"}
    | {"plan9", "solaris", "wasip1", "windows"}
)
_PROCESSORS: Final = frozenset(
    {"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64"}
    | {"s390x", "sparc64", "wasm"}
)
_DEFAULTS: Final = {"amd64": (1, 0), "arm": (7, 0), "arm64": (8, 0)}  # the variant meant by none
_UNWRITTEN: Final = frozenset({"amd64", "arm64"})  # where the default variant is left out


class Platform(msgspec.Struct, frozen=True):
    """An operating system and a processor, spelled as its document spells them."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``os[(version[+feature]...)]/architecture[/variant]``, or one of the first two alone, normalised.

        Of an operating system alone the processor is this machine's; of a processor alone the system is Linux.

        Raises:
            ReferenceSyntaxError: another form.
        """
        expect(str, text, "platform")
        match = _TEXT.fullmatch(_completed(text))
        if match is None:
            raise ReferenceSyntaxError(f"not a platform, which is os/architecture[/variant]: {text[:200]!r}")
        system, version, features, architecture, variant = match.groups(default="")
        return cls(system, architecture, variant, version, tuple(features.split("+")[1:])).normalised()

    @classmethod
    @cache
    def host(cls) -> Platform:
        """The platform of this machine."""
        return cls("linux", os.uname().machine).normalised()

    def normalised(self) -> Platform:
        """The usual spelling: ``linux/amd64`` for ``Linux/x86_64``, ``linux/arm64`` for ``linux/aarch64/v8``."""
        architecture, implied = _ALIASES.get(self.architecture.lower(), (self.architecture.lower(), ""))
        variant = implied or self.variant.lower()
        version = _version(architecture, variant)
        if version is not None:
            variant = _spell(architecture, version)
        return Platform(self.os.lower(), architecture, variant, self.os_version, self.os_features)

    def fallbacks(self) -> list[tuple[str, str]]:
        """What the processor of a normalised platform runs, best first: architectures and variants."""
        architecture, variant = self.architecture, self.variant
        version = _version(architecture, variant)
        rows = [(architecture, variant)]
        if version is None:
            return rows
        major, minor = version
        if architecture == "amd64":
            rows += [("amd64", _spell("amd64", (older, 0))) for older in range(major - 1, 0, -1)]
            rows.append(("386", ""))
        elif architecture == "arm":
            rows += [("arm", f"v{older}") for older in range(major - 1, 4, -1)]
        elif major in (8, 9):
            rows += [("arm64", _spell("arm64", (major, older))) for older in range(minor - 1, -1, -1)]
            if major == 9:  # Armv9.N holds all of Armv8.(N+5)
                rows += [("arm64", _spell("arm64", (8, older))) for older in range(minor + 5, -1, -1)]
            rows += [("arm", f"v{older}") for older in range(8, 4, -1)]
        return rows

    def __str__(self) -> str:
        version = "+".join((self.os_version, *self.os_features))
        version = f"({version})" if version else ""
        variant = f"/{self.variant}" if self.variant else ""
        return f"{self.os}{version}/{self.architecture}{variant}"


def _completed(text: str) -> str:
    """A name alone with its other half; any other text as it is."""
    name = text.lower()
    if name.partition("(")[0] in _SYSTEMS and "/" not in name:
        host = Platform.host()
        return f"{text}/{host.architecture}" + (f"/{host.variant}" if host.variant else "")
    return f"linux/{text}" if name in _PROCESSORS or name in _ALIASES else text


def _version(architecture: str, variant: str) -> tuple[int, int] | None:
    """``v9.2`` as (9, 2); None where variants are not numbers, or this one is none."""
    default = _DEFAULTS.get(architecture)
    if default is None or not variant:
        return default
    match = _VARIANT.fullmatch(variant)
    if match is None or (match[2] and architecture != "arm64"):
        return None
    return int(match[1]), int(match[2] or 0)


def _spell(architecture: str, version: tuple[int, int]) -> str:
    if architecture in _UNWRITTEN and version == _DEFAULTS[architecture]:
        return ""
    major, minor = version
    return f"v{major}.{minor}" if minor else f"v{major}"
