"""``FASTOCI_*``: each option has its variable; a value that cannot be used is blamed on it; helpers see none.

Covers: cli/environment.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

import fastoci
from conftest import Cli
from fastoci.cli import environment
from fastoci.cli.commands.pull import policy_of, pull
from fastoci.cli.main import program
from fastoci.registry.auth import helper_process

assert isinstance(program, click.Group)
OPTIONS = list(environment.options_of(program))


def test_every_option_that_is_not_eager_has_the_variable_of_its_name() -> None:
    assert [
        option.opts for option in OPTIONS if not option.is_eager and option.envvar != environment.variable(option)
    ] == []
    assert {str(option.envvar) for option in OPTIONS} > {
        "FASTOCI_STORE",
        "FASTOCI_CREDS",
        "FASTOCI_MAX_WAIT",
        "FASTOCI_LOW",
    }


def test_a_store_named_by_the_environment_is_used_and_an_option_wins(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTOCI_STORE", str(tmp_path / "named"))
    assert f"there is no store at {tmp_path / 'named'}" in cli("ls").stderr
    assert f"there is no store at {tmp_path / 'given'}" in cli("ls", "--store", tmp_path / "given").stderr


@pytest.mark.parametrize(
    ("name", "value", "command", "text"),
    [
        ("FASTOCI_MEMORY", "lots", ("pull", "a"), "Invalid value for FASTOCI_MEMORY: 'lots' is not a size"),
        ("FASTOCI_MAX_AGE", "30", ("gc",), "Invalid value for FASTOCI_MAX_AGE: 30 has no unit: 30s, 30m, 30h or 30d"),
        ("FASTOCI_DRY_RUN", "perhaps", ("gc",), "Invalid value for FASTOCI_DRY_RUN: 'perhaps' is not a valid boolean"),
        ("FASTOCI_PROGRESS", "loud", ("verify",), "Invalid value for FASTOCI_PROGRESS: 'loud' is not one of"),
    ],
)
def test_a_value_that_cannot_be_used_is_a_usage_error_that_names_the_variable(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str, command: tuple[str, ...], text: str
) -> None:
    monkeypatch.setenv(name, value)
    done = cli(*command)
    assert done.returncode == 2
    assert text in done.stderr


def test_several_values_are_separated_as_the_shell_separates_paths(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTOCI_ADDITIONAL_STORE", f"{tmp_path}/one:{tmp_path}/two")
    done = cli("df", "--store", tmp_path / "none", "--additional-store", tmp_path)
    assert f"there is no store at {tmp_path / 'none'}" in done.stderr
    command = program.commands["df"]
    with command.make_context("df", []) as context:
        assert context.params["additional"] == (tmp_path / "one", tmp_path / "two")


def test_a_colon_too_many_names_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTOCI_ADDITIONAL_STORE", ":/one::/two:")
    with program.commands["df"].make_context("df", []) as context:
        assert context.params["additional"] == (Path("/one"), Path("/two"))


@pytest.mark.parametrize(
    ("variables", "options", "policy"),
    [
        ({}, (), "always"),
        ({}, ("--offline",), "never"),
        ({}, ("--offline", "--pull", "never"), "never"),
        ({}, ("--offline", "--pull", "always"), None),
        ({}, ("--pull", "missing", "--offline"), None),
        ({"FASTOCI_OFFLINE": "1"}, (), "never"),
        ({"FASTOCI_OFFLINE": "0"}, (), "always"),
        ({"FASTOCI_OFFLINE": "false"}, (), "always"),
        ({"FASTOCI_OFFLINE": ""}, (), "always"),
        ({"FASTOCI_OFFLINE": "perhaps"}, (), None),
        ({"FASTOCI_OFFLINE": "1"}, ("--pull", "always"), "always"),
        ({"FASTOCI_PULL": "always"}, ("--offline",), "never"),
        ({"FASTOCI_PULL": "missing"}, (), "missing"),
        ({"FASTOCI_OFFLINE": "0", "FASTOCI_PULL": "never"}, (), "never"),
        ({"FASTOCI_OFFLINE": "1", "FASTOCI_PULL": "never"}, (), "never"),
        ({"FASTOCI_OFFLINE": "1", "FASTOCI_PULL": "always"}, (), None),
    ],
)
def test_who_is_offline_asks_no_registry_and_a_contradiction_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], options: tuple[str, ...], policy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with program.make_context("fastoci", ["pull"]) as parent:
        if policy is None:
            with pytest.raises(click.UsageError):
                policy_of(pull.make_context("pull", ["a", *options], parent=parent))
        else:
            assert policy_of(pull.make_context("pull", ["a", *options], parent=parent)) == policy


async def test_a_helper_program_inherits_none_of_them(tmp_path: Path) -> None:
    environ = {"FASTOCI_CREDS": "me:hunter2", "FASTOCI_STORE": "/s", "PATH": "/usr/bin:/bin"}
    status, output = await helper_process.run(["/usr/bin/env"], b"", environ=environ, timeout_s=30)
    assert status == 0
    assert b"PATH=" in output
    assert b"FASTOCI_" not in output


def test_help_does_not_show_the_value_of_a_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTOCI_CREDS", "me:hunter2")
    assert "hunter2" not in cli("pull", "--help").stdout


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("FASTOCI_STOER", ": did you mean FASTOCI_STORE?"),
        ("FASTOCI_MAX_AGES", ": did you mean FASTOCI_MAX_AGE?"),  # of another command
        ("FASTOCI_LOGLEVEL", ": did you mean FASTOCI_LOG_LEVEL?"),
        ("FASTOCI_XYZZY_QUUX", ""),
    ],
)
def test_a_variable_of_no_option_is_warned_of_once_with_the_nearest(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, nearest: str
) -> None:
    monkeypatch.setenv(name, "1")
    done = cli("ls", "--store", tmp_path / "none")
    assert done.returncode == 3
    assert done.stderr.splitlines()[0] == f"fastoci: warning: {name} is no variable of fastoci{nearest}"
    assert done.stderr.count(name) == 1


def test_variables_of_all_commands_are_known(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {str(option.envvar) for option in environment.options_of(program) if option.envvar is not None}
    assert sorted(own | {"FASTOCI_SHA256"}) == sorted(f"FASTOCI_{name}" for name in environment.NAMES)
    for name in environment.NAMES:
        monkeypatch.setenv(f"FASTOCI_{name}", "")
    assert cli("config", "show").stderr == ""


def test_the_warning_is_a_line_of_json_where_those_are_asked_for(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTOCI_STOER", "/s")
    monkeypatch.setenv("FASTOCI_PROGRESS", "json")
    done = cli("verify", "--store", tmp_path / "none")
    first = json.loads(done.stderr.splitlines()[0])
    assert (first["event"], first["image"]) == ("warned", "")
    assert "did you mean FASTOCI_STORE?" in first["message"]


def test_the_library_takes_no_variable_and_warns_of_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTOCI_STOER", "/s")
    monkeypatch.setenv("FASTOCI_STORE", str(tmp_path / "other"))
    assert fastoci.Engine(tmp_path / "store").store_path == tmp_path / "store"
    assert capfd.readouterr().err == ""
