"""Ends: what users call a place that images come from or go to, as skopeo spells it. Text, no files and no network.

Spec: containers-transports(5); image-spec v1.1 annotations.md, "org.opencontainers.image.ref.name".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, get_args

import msgspec

from fastoci.arguments import expect
from fastoci.errors import EndSyntaxError, ReferenceSyntaxError
from fastoci.image.reference import Reference

Transport = Literal["docker", "oci", "oci-archive", "docker-archive", "dir", "store"]
_TRANSPORTS: Final = ", ".join(f"{each}:" for each in get_args(Transport)).replace("docker:", "docker://", 1)
# Places that others have, and what brings images out of them.
_DAEMONS: Final = {"docker-daemon": "docker save", "containers-storage": "podman save"}
_COMPONENT: Final = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_INDEX: Final = re.compile(r"@(0|[1-9][0-9]{0,5})")
_SHOWN: Final = 300  # characters of a text in a message


class End(msgspec.Struct, frozen=True):
    """Where an image is, or goes: ``docker://redis:7``, ``oci:PATH:NAME``, ``docker-archive:FILE``, ``store:redis``.

    Args:
        path: of the directory or file; empty for a registry and for the store.
        name: of the image there, as the place has it; empty for the only one, and for one without a name.
        index: the image's place among all of them, instead of a name.
        reference: of the image in a registry.
    """

    transport: Transport
    path: str = ""
    name: str = ""
    index: int | None = None
    reference: Reference | None = None

    @classmethod
    def parse(cls, text: str) -> End:
        """Read what a user wrote.

        Raises:
            EndSyntaxError: it does not parse; says what was expected.
        """
        expect(str, text, "end")
        transport, colon, rest = text.partition(":")
        try:
            if not colon or transport not in get_args(Transport):
                raise EndSyntaxError(f"it begins with none of {_TRANSPORTS}; {_meant(transport, text)}")
            return _PARSERS[transport](rest)
        except ReferenceSyntaxError as error:
            raise EndSyntaxError(f"{text[:_SHOWN]!r}: {error.message}") from error

    @classmethod
    def parse_image(cls, text: str) -> End:
        """Read what a user wrote for an image that is there: an end, or the name of an image of the store as it is.

        ``oci:latest`` is a layout: an image of the store that is called so is ``store:oci:latest``.

        Raises:
            EndSyntaxError: it does not parse.
        """
        transport, colon, rest = expect(str, text, "end").partition(":")
        is_place = bool(colon) and transport in get_args(Transport) and (transport != "docker" or rest[:2] == "//")
        return cls.parse(text) if is_place else cls("store", name=text)

    def demand_writable(self) -> End:
        """The end itself, if images can be brought to it.

        Raises:
            EndSyntaxError: it names an image that is there, and no place.
        """
        if self.index is not None:
            raise EndSyntaxError(f"{self}: @{self.index} names an image that is there; give a name, or none")
        if self.transport == "store" and Reference.parse(self.name).digest is not None:
            raise EndSyntaxError(f"{self}: an image gets a name with a tag; its digest is known afterwards")
        return self

    def __str__(self) -> str:
        if self.reference is not None and self.transport == "docker":
            return f"docker://{self.reference}"
        image = f"@{self.index}" if self.index is not None else self.name
        return f"{self.transport}:{':'.join(each for each in (self.path, image) if each)}"


def _meant(transport: str, text: str) -> str:
    """What to write instead of a text that begins with no transport of these."""
    shown = text[:_SHOWN]
    if (save := _DAEMONS.get(transport)) is not None:
        name = shown.partition(":")[2] or "NAME"
        return f"from there `{save} {name} | fastoci copy docker-archive:/dev/stdin DESTINATION` copies"
    if transport.lower() in get_args(Transport):
        return f"small letters: {transport.lower()}:{shown.partition(':')[2]}"
    if text.startswith(("/", ".", "~")) or not text:
        return f"a layout in a directory is oci:{shown or 'PATH'}"
    if text == "-":
        return "an archive of stdin or stdout is docker-archive:/dev/stdin, oci-archive:/dev/stdout"
    return f"in a registry it is docker://{shown.partition('://')[2] or shown}, in the store store:{shown}"


def _docker(rest: str) -> End:
    if not rest.startswith("//"):
        raise EndSyntaxError("write docker://[domain/]path[:tag][@digest]")
    reference = Reference.parse(rest.removeprefix("//"))
    return End("docker", name=str(reference), reference=reference)


def _store(rest: str) -> End:
    if not rest:
        raise EndSyntaxError("write store:REF, of an image in the store")
    return End("store", name=rest)


def _directory(rest: str) -> End:
    if not rest:
        raise EndSyntaxError("write dir:PATH")
    return End("dir", path=rest)


def _layout(transport: Transport, rest: str) -> End:
    path, image, index = _split(transport, rest)
    if index is None and image and not _REF_NAME.fullmatch(image):
        what = "is not a name in a layout: words of A-Z a-z 0-9, joined by one of - . _ : @ + /"
        raise EndSyntaxError(f"{image[:_SHOWN]!r} {what}")
    return End(transport, path, image, index)


def _docker_archive(rest: str) -> End:
    path, image, index = _split("docker-archive", rest)
    reference = Reference.parse(image) if image else None
    if reference is not None and reference.digest is not None:
        raise EndSyntaxError("an archive of docker has names with tags, and no digests")
    return End("docker-archive", path, image if reference is None else str(reference), index, reference)


def _split(transport: Transport, rest: str) -> tuple[str, str, int | None]:
    """A path, and the name or the number of the image that is named behind it."""
    path, _, image = rest.partition(":")
    if not path:
        raise EndSyntaxError(f"write {transport}:PATH[:NAME], or {transport}:PATH:@NUMBER to read one")
    match = _INDEX.fullmatch(image)
    if image.startswith("@") and match is None:
        raise EndSyntaxError(f"{image[:_SHOWN]!r} is not the number of an image: @0 is the first")
    return (path, image, None) if match is None else (path, "", int(match[1]))


_PARSERS: Final[Mapping[str, Callable[[str], End]]] = {
    "docker": _docker,
    "oci": lambda rest: _layout("oci", rest),
    "oci-archive": lambda rest: _layout("oci-archive", rest),
    "docker-archive": _docker_archive,
    "dir": _directory,
    "store": _store,
}
