"""Platforms: spellings, and which manifest of an index a machine gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci.errors import ReferenceSyntaxError
from fastoci.image import index, mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.index import select
from fastoci.image.platform import Platform


def entry(text: str | None) -> Descriptor:
    """A manifest for the platform as written, without normalising it."""
    platform = None
    if text is not None:
        system, architecture, variant = f"{text}//".split("/")[:3]
        platform = Platform(system, architecture, variant)
    return Descriptor(mediatype.OCI_MANIFEST, Digest.of(repr(text).encode()), 1, platform=platform)


def chosen(wanted: str, *offered: str | None) -> str | None:
    """What a machine gets, as written in the index."""
    found = select([entry(text) for text in offered], Platform.parse(wanted))
    return None if found is None else str(found.platform)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/X86_64", "linux/amd64"),
        ("linux/x86-64/v1", "linux/amd64"),
        ("linux/amd64/V3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm64/v9.2", "linux/arm64/v9.2"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/ppc64le", "linux/ppc64le"),
        ("linux/riscv64/rva23u64", "linux/riscv64/rva23u64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
    ],
)
def test_a_platform_is_normalised(text: str, normalised: str) -> None:
    assert str(Platform.parse(text)) == normalised
    assert Platform.parse(normalised) == Platform.parse(text)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("arm64", "linux/arm64"),
        ("aarch64", "linux/arm64"),
        ("AMD64", "linux/amd64"),
        ("armhf", "linux/arm/v7"),
        ("arm", "linux/arm/v7"),
        ("386", "linux/386"),
        ("s390x", "linux/s390x"),
        ("linux", str(Platform.host())),
        ("Linux", str(Platform.host())),
        ("windows", f"windows/{Platform.host().architecture}"),
        ("windows(10.0.17763)", f"windows(10.0.17763)/{Platform.host().architecture}"),
    ],
)
def test_a_system_or_a_processor_alone_is_completed_as_docker_does(text: str, whole: str) -> None:
    assert str(Platform.parse(text)) == whole


@pytest.mark.parametrize(
    "text", ["", "linus", "linux/", "(1)", "/amd64", "linux/arm64/v8/x", "linux amd64", "linux/amd64\n"]
)
def test_another_form_raises_reference_syntax_error(text: str) -> None:
    with pytest.raises(ReferenceSyntaxError, match="not a platform"):
        Platform.parse(text)


def test_the_host_is_a_linux_with_a_known_processor() -> None:
    assert str(Platform.host()) in {"linux/amd64", "linux/arm64"}


@pytest.mark.parametrize(
    ("wanted", "offered", "best"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/386", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/386"], "linux/386"),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64/v3"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v4", "linux/amd64/v2"], "linux/amd64/v2"),
        ("linux/amd64", ["linux/x86_64"], "linux/x86_64"),
        ("linux/arm", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], "linux/arm/v6"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/arm/v7", ["linux/arm"], "linux/arm"),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm64", ["linux/arm64/v9", "linux/arm64/v8.1"], None),
        ("linux/arm64/v8.2", ["linux/arm64", "linux/arm64/v8.1", "linux/arm64/v8.3"], "linux/arm64/v8.1"),
        ("linux/arm64/v9.1", ["linux/arm64/v8.6", "linux/arm64/v8.7", "linux/arm64/v9.2"], "linux/arm64/v8.6"),
        ("linux/arm64/v9.1", ["linux/arm64/v8.6", "linux/arm64/v9"], "linux/arm64/v9"),
        ("linux/s390x", ["linux/amd64"], None),
        ("linux/amd64", ["windows/amd64"], None),
        ("linux/amd64", ["unknown/unknown", None], None),
        ("unknown/unknown", ["unknown/unknown"], None),
        ("linux/amd64", [], None),
    ],
)
def test_the_best_rank_wins(wanted: str, offered: list[str | None], best: str | None) -> None:
    assert chosen(wanted, *offered) == best


def test_the_first_of_the_best_rank_wins() -> None:
    first, second = entry("linux/amd64"), entry("linux/x86_64/v1")
    assert select([entry("linux/386"), first, second], Platform.parse("linux/amd64")) is first
    assert select([second, first], Platform.parse("linux/amd64")) is second


def test_an_os_version_matches_by_whole_parts() -> None:
    rows = [
        Descriptor(mediatype.OCI_MANIFEST, Digest.of(v.encode()), 1, platform=Platform("windows", "amd64", "", v))
        for v in ("10.0.177", "10.0.17763.6054", "10.0.20348.1")
    ]
    assert select(rows, Platform.parse("windows(10.0.17763)/amd64")) is rows[1]
    assert select(rows, Platform.parse("windows(10.0.1)/amd64")) is None
    assert select(rows, Platform.parse("windows/amd64")) is rows[0]


def test_an_entry_that_demands_a_feature_is_chosen_only_where_that_is_asked_for() -> None:
    rows = [
        Descriptor(mediatype.OCI_MANIFEST, Digest.of(text.encode()), 1, platform=Platform.parse(text))
        for text in ("linux(+erofs+x)/amd64", "linux(+erofs)/amd64", "linux/amd64", "windows(10.0.1+win32k)/amd64")
    ]
    assert select(rows[:2], Platform.parse("linux/amd64")) is None
    assert select(rows, Platform.parse("linux/amd64")) is rows[2]
    assert select(rows, Platform.parse("linux(+erofs)/amd64")) is rows[1]
    assert select(rows, Platform.parse("linux(+x+erofs)/amd64")) is rows[0]
    assert select(rows, Platform.parse("windows/amd64")) is rows[3]  # of Windows, image-spec has all understand it
    assert str(rows[0].platform) == "linux(+erofs+x)/amd64" and str(rows[3].platform) == "windows(10.0.1+win32k)/amd64"


def test_an_entry_with_an_unknown_variant_is_left_alone(shared: Path) -> None:
    folder = shared / "corpora/containers-image/internal/manifest/testdata"
    data = (folder / "ocilist-variants.json").read_bytes()
    rows = index.parse(data, mediatype.OCI_INDEX).manifests
    variants = [row["platform"].get("variant") for row in json.loads(data)["manifests"]]
    unknown = rows[variants.index("unrecognized-present")]
    for text in ("linux/arm", "linux/arm/v6", "linux/arm64"):
        found = select(rows, Platform.parse(text))
        assert found is not None and found is not unknown
    assert select(rows, Platform.parse("linux/arm/unrecognized-present")) is unknown


@settings(database=None)
@given(
    st.builds(
        Platform,
        st.sampled_from(["linux", "Linux", "windows"]),
        st.sampled_from(["amd64", "x86_64", "arm", "arm64", "aarch64", "386", "i686", "armhf", "s390x"]),
        st.from_regex(r"\Av?[0-9]{1,2}(\.[0-9]{1,2})?\Z") | st.sampled_from(["", "odd"]),
    )
)
def test_normalising_is_stable_and_round_trips(platform: Platform) -> None:
    once = platform.normalised()
    assert once.normalised() == once
    assert Platform.parse(str(once)) == once
    itself = Descriptor(mediatype.OCI_MANIFEST, Digest.of(b""), 0, platform=platform)
    assert select([itself], platform) is itself
