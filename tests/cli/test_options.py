"""Values of options: sizes and durations in one system, read as they are shown.

Covers: cli/options.py.
"""

from __future__ import annotations

import re

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.cli import environment
from fastoci.cli.formatting import size
from fastoci.cli.main import program
from fastoci.cli.options import Duration, FilePath, Rate, Size

assert isinstance(program, click.Group)
PARAMETERS = [(command, each) for command in environment.commands_of(program) for each in command.params]
PATHS = [(command, each) for command, each in PARAMETERS if isinstance(each.type, click.Path)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1500", 1500),
        ("512B", 512),
        ("10K", 10_000),
        ("10kB", 10_000),
        ("10M", 10_000_000),
        ("10MB", 10_000_000),
        ("10mb", 10_000_000),
        ("1.5G", 1_500_000_000),
        ("2TB", 2 * 10**12),
        ("1P", 10**15),
        ("10KiB", 10_240),
        ("64MiB", 64 << 20),
        ("64Mi", 64 << 20),
        ("0.5GiB", 1 << 29),
        ("1.2 MB", 1_200_000),
        ("512 bytes", 512),
        ("4tib", 4 << 40),
    ],
)
def test_a_size_is_decimal_unless_its_unit_is_binary(text: str, count: int) -> None:
    assert Size().convert(text, None, None) == count


@pytest.mark.parametrize(
    "text", ["", "B", "M", "-1", "1e6", "10MM", "10iB", "10I", "1.M", ".5M", "1,5M", "\u0663M", "10 MB s"]
)
def test_what_is_no_size_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size: 512MB, 10G, 64MiB or a number of bytes"):
        Size().convert(text, None, None)


@pytest.mark.parametrize("text", ["9223372036854775808", "10000000P", "8192PiB"])
def test_a_size_that_no_file_can_have_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is more than any disk holds"):
        Size().convert(text, None, None)


@given(st.integers(0, 10**17))
def test_a_size_is_read_as_it_is_shown(count: int) -> None:
    assert abs(Size().convert(size(count), None, None) - count) <= 0.05 * count


def test_a_rate_is_a_size_a_second() -> None:
    assert [Rate().convert(text, None, None) for text in ("100M/s", "100M", "1MiB/S")] == [10**8, 10**8, 1 << 20]


@pytest.mark.parametrize("text", ["5", "30", "0030"])
def test_a_duration_without_a_unit_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"{text} has no unit: {text}s, {text}m, {text}h or {text}d"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("90s", 90.0), ("1h30m", 5400.0), ("30d", 2592000.0)])
def test_a_duration_has_units(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


def test_an_empty_path_is_refused_wherever_a_path_is_taken() -> None:
    assert {max(each.opts, key=len) for _, each in PATHS} >= {"--store", "--rootfs", "--oci", "--config", "--authfile"}
    for command, each in PATHS:
        assert isinstance(each.type, FilePath)
        context = command.make_context("command", [], resilient_parsing=True)
        with context, pytest.raises(click.BadParameter, match="an empty path names nothing"):
            each.type.convert("", each, context)


def test_the_help_of_an_option_means_something_without_its_neighbours() -> None:
    """It is a sentence, of words that are not another option's, and begins with what happens."""
    vague = re.compile(r"\b(of its|the former|the latter|the file|this mode)\b|^(Most|Longest|Same|The same)\b")
    for option in environment.options_of(program):
        text = (option.help or "").partition("  [default")[0]
        assert text[:1].isupper() or text.startswith("--"), (option.opts, text)
        assert text.endswith(".") and len(text.split()) >= 4, (option.opts, text)
        assert not vague.search(text), (option.opts, text)


def test_no_option_of_a_command_names_one_that_the_command_does_not_have() -> None:
    for command in environment.commands_of(program):
        own = {name for parameter in command.params for name in parameter.opts}
        for option in command.params:
            named = set(re.findall(r"--[a-z][a-z-]+", (isinstance(option, click.Option) and option.help) or ""))
            assert named <= own, (command.name, option.opts, named - own)
