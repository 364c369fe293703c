"""The configuration file: what counts before what, and what is refused by file and key.

Covers: cli/config_file.py, cli/sections.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click
import pytest

from conftest import Cli
from fastoci.cli import config_file, environment, sections
from fastoci.cli.main import program

assert isinstance(program, click.Group)
PROGRAM: click.Group = program
KEYS = config_file.keys_of(program)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file, which a test may write."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "fastoci" / "config.toml"


def parameters(command: str, *arguments: str) -> dict[str, Any]:
    """What a command gets."""
    with PROGRAM.make_context("fastoci", [command]) as parent:
        return PROGRAM.commands[command].make_context(command, list(arguments), parent=parent).params


def test_an_option_counts_before_its_variable_before_the_users_file_before_the_machines(
    users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parameters("gc")["max_count"] is None
    machine = write(tmp_path / "etc" / "config.toml", "[gc]\nmax-count = 1\nmax-age = '30d'\n")
    monkeypatch.setattr(config_file, "MACHINE", machine)
    assert parameters("gc")["max_count"] == 1
    write(users, "[gc]\nmax-count = 2\n")
    assert (parameters("gc")["max_count"], parameters("gc")["max_age"]) == (2, 30 * 86400)
    monkeypatch.setenv("FASTOCI_MAX_COUNT", "3")
    assert parameters("gc")["max_count"] == 3
    assert parameters("gc", "--max-count", "4")["max_count"] == 4


def test_a_file_that_is_named_is_read_instead_of_the_usual_ones(users: Path, tmp_path: Path) -> None:
    write(users, "store = '/usual'\n[gc]\nmax-count = 2\n")
    named = write(tmp_path / "named.toml", "store = '/named'\n")
    found = parameters("gc", "--config", str(named))
    assert (found["store"], found["max_count"]) == (Path("/named"), None)
    assert parameters("gc", "--config", "/dev/null")["store"] is None
    assert parameters("gc")["store"] == Path("/usual")


@pytest.mark.parametrize("before", [True, False])
def test_the_file_is_named_before_and_behind_the_command_and_by_the_environment(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    named = write(tmp_path / "named.toml", f"store = '{tmp_path}/named'\n")
    words = ("--config", named, "ls") if before else ("ls", "--config", named)
    assert f"there is no store at {tmp_path}/named" in cli(*words).stderr
    monkeypatch.setenv("FASTOCI_CONFIG", str(named))
    assert f"there is no store at {tmp_path}/named" in cli("ls").stderr


def test_every_key_is_taken_by_a_command_and_the_values_are_those_of_the_options(users: Path) -> None:
    write(
        users,
        "store = '/s'\nadditional-store = ['/a', '/b']\nplatform = 'linux/arm64'\nprogress = 'none'\n"
        "[registry]\ntls-verify = false\nauthfile = '/f'\nhosts-dir = '/h'\nregistries-conf = '/r'\ncert-dir = '/c'\n"
        "[limits]\nconnections = 3\nmemory = '32MiB'\nmax-wait = '5s'\nmax-store-size = 1000\nmax-unpacked = '1GB'\n",
    )
    options = {option.name: option for option in PROGRAM.commands["pull"].params}
    context = PROGRAM.commands["pull"].make_context("pull", ["a"], parent=PROGRAM.make_context("fastoci", ["pull"]))
    found = context.params
    assert (found["store"], found["additional"]) == (Path("/s"), (Path("/a"), Path("/b")))
    assert (found["platforms"], found["tls_verify"], found["authfile"]) == (("linux/arm64",), False, Path("/f"))
    assert (found["connections"], found["memory"], found["max_wait_s"]) == (3, 32 << 20, 5.0)
    assert (found["store_size"], found["unpacked_size"]) == (1000, 10**9)
    named = options["memory"]
    assert isinstance(named, click.Option)
    assert config_file.origin(context, named) == f"limits.memory in {users}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stor = '/s'", "there is no key stor"),
        ("[limits]\nmemry = 1", "there is no key limits.memry"),
        ("[gc]\nstore = '/s'", "there is no key gc.store"),
        ("[registry]\ncreds = 'me:hunter2'", "there is no key registry.creds"),
        ("[gc]\ndry-run = true", "there is no key gc.dry-run"),
        ("[limits.memory]\nx = 1", "limits.memory has to be a string, a number, or true or false"),
        ("gc = 1", "there is no key gc"),
        ("store = 's'", "store has to be an absolute path"),
        ("store = 5", "store has to be an absolute path"),
        ("store = ['/s']", "store has to be one value"),
        ("additional-store = 's'", "additional-store has to be an absolute path"),
        ("platform = 1.5", "platform has to be a string, a number, or true or false"),
        ("store = ", "this is not TOML"),
        ("store = '\udcff'", "this is not TOML"),
        ("a = " + "[" * 5000, "this is not TOML"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error_that_names_file_and_key(users: Path, text: str, message: str) -> None:
    users.parent.mkdir(parents=True)
    users.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(click.UsageError) as raised:
        parameters("pull", "a")
    assert raised.value.message.startswith(f"{users}: {message}")
    assert "hunter2" not in raised.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stoer = '/s'", "there is no key stoer: store is one"),
        ("max-wait = '5s'", "there is no key max-wait: limits.max-wait is one"),
        ("[limit]\nmax-wait = '5s'", "there is no key limit.max-wait: limits.max-wait is one"),
        ("[limits]\nmax_wait = '5s'", "there is no key limits.max_wait: limits.max-wait is one"),
        ("[gc]\nmaxage = '5d'", "there is no key gc.maxage: gc.max-age is one"),
        ("[registry]\ncreds = 'me:hunter2'", "there is no key registry.creds"),
    ],
)
def test_a_key_that_is_none_is_answered_with_the_one_that_is_meant(users: Path, text: str, message: str) -> None:
    write(users, text)
    with pytest.raises(click.UsageError, match=re.escape(message) + "$"):
        parameters("pull", "a")


def test_a_value_that_an_option_refuses_is_blamed_on_file_and_key(cli: Cli, users: Path) -> None:
    write(users, "[gc]\nmax-age = 30\n")
    done = cli("gc")
    assert done.returncode == 2
    assert f"Invalid value for gc.max-age in {users}: 30 has no unit: 30s, 30m, 30h or 30d" in done.stderr


@pytest.mark.parametrize(("mode", "refused"), [(0o666, True), (0o664, True), (0o644, False), (0o600, False)])
def test_a_file_that_others_may_write_is_refused(users: Path, mode: int, refused: bool) -> None:
    write(users, "store = '/s'\n").chmod(mode)
    if not refused:
        assert parameters("ls")["store"] == Path("/s")
        return
    with pytest.raises(click.UsageError, match="others may write this configuration file: `chmod go-w` it"):
        parameters("ls")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(users: Path) -> None:
    os.chown(write(users, "store = '/s'\n"), 12345, 12345)
    with pytest.raises(click.UsageError, match="belongs to another user"):
        parameters("ls")


def test_a_named_file_that_cannot_be_read_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, text in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe", "is not a regular file"),
    ):
        done = cli("ls", "--config", path)
        assert done.returncode == 2
        assert f"{path}: " in done.stderr
        assert text in done.stderr


def test_help_is_shown_whatever_the_file_says(cli: Cli, users: Path) -> None:
    write(users, "nonsense")
    assert cli("pull", "--help").returncode == 0


def test_help_shows_commands_and_options_of_a_pull_by_what_they_are_for(cli: Cli) -> None:
    shown = cli("--help").stdout
    assert [shown.index(f"\n{title}:\n") for title in ("Images", "Store", "Registries", "Program")]
    assert "Commands:" not in shown
    sectioned = [each for each in environment.commands_of(PROGRAM) if isinstance(each, sections.Command)]
    assert {"pull", "repair"} <= {each.name for each in sectioned}
    text = cli("pull", "--help").stdout
    at = [text.index(f"\n{title}:\n") for title in ("Target", "Registry", "Limits", "Output")]
    assert at == sorted(at)
    for option in PROGRAM.commands["pull"].params:
        if isinstance(option, click.Option):
            assert len(re.findall(rf"^  (?:-\w, )?{environment.flag(option)}[ ,/\n]", text, re.MULTILINE)) == 1, (
                option.opts
            )


def test_a_grouped_command_is_one_of_the_program(cli: Cli) -> None:
    shown = cli("--help").stdout
    for name in PROGRAM.commands:
        assert shown.count(f"\n  {name} ") == 1, name
