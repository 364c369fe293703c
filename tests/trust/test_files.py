"""Which policy counts on a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastoci.errors import ConfigError
from fastoci.trust.files import load
from fastoci.trust.requirements import AcceptAnything, Reject

REJECT = '{"default": [{"type": "reject"}]}'


def put(path: Path, text: str = REJECT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_machine_without_a_policy_accepts_anything(tmp_path: Path) -> None:
    assert load({"HOME": str(tmp_path / "home")}, tmp_path).default == (AcceptAnything(),)
    assert load({}, tmp_path).default == (AcceptAnything(),)


def test_the_users_policy_counts_before_the_machines_and_that_of_its_vendor(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home")}
    paths = [
        tmp_path / "usr/share/containers/policy.json",
        tmp_path / "etc/containers/policy.json",
        tmp_path / "home/.config/containers/policy.json",
    ]
    for path in paths:
        assert load(environ, tmp_path).file != str(put(path))
        policy = load(environ, tmp_path)
        assert (policy.file, policy.default) == (str(path), (Reject(),))
    moved = put(tmp_path / "config/containers/policy.json")
    assert load({**environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}, tmp_path).file == str(moved)


def test_a_policy_that_the_environment_names_counts_alone_and_must_be_there(tmp_path: Path) -> None:
    put(tmp_path / "etc/containers/policy.json")
    named = tmp_path / "named.json"
    environ = {"CONTAINERS_POLICY_JSON": str(named)}
    with pytest.raises(ConfigError, match=r"named.json: cannot read this policy of trust: No such file"):
        load(environ, tmp_path)
    put(named, '{"default": [{"type": "insecureAcceptAnything"}]}')
    assert load(environ, tmp_path).default == (AcceptAnything(),)


def test_a_policy_that_cannot_be_used_is_not_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "usr/share/containers/policy.json")
    path = put(tmp_path / "etc/containers/policy.json", "{}")
    with pytest.raises(ConfigError, match=r"etc/containers/policy.json: default is missing"):
        load({}, tmp_path)
    path.write_text(" " * (1 << 20) + REJECT)
    with pytest.raises(ConfigError, match="is larger than 1048576 bytes"):
        load({}, tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot read this policy of trust"):
        load({}, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_the_policy_of_another_user_whose_home_was_kept_is_absent(tmp_path: Path) -> None:
    path = put(tmp_path / "home/.config/containers/policy.json")
    path.chmod(0)
    assert load({"HOME": str(tmp_path / "home")}, tmp_path).default == (AcceptAnything(),)
