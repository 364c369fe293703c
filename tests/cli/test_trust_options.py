"""The policy of trust by options and by the environment, of the commands that bring images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Cli
from fastoci.testing.registry import Registry, serve
from support.policy_rules import IMAGE, SIGNER, by, written
from support.signing import sign


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    registry.add_image("ns/app", "1", IMAGE)
    with serve(registry) as served:
        yield served


def test_a_policy_by_option_goes_before_the_machines(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    reject, key = tmp_path / "reject.json", SIGNER.write(tmp_path / "cosign.pub")
    reject.write_text(json.dumps({"default": [{"type": "reject"}]}))
    monkeypatch.setenv("CONTAINERS_POLICY_JSON", str(reject))
    call = ("pull", f"{registry.address}/ns/app:1", "--store", tmp_path / "store", "--platform", "linux/amd64")
    refused = cli(*call)
    assert refused.returncode == 11
    assert f"{registry.address}/ns/app:1: refused by {reject} (default): it rejects every image" in refused.stderr
    assert "hint: ask who wrote this policy, or name another one with --policy" in refused.stderr
    policy = tmp_path / "policy.json"
    policy.write_bytes(written({registry.address: [by("matchRepository")]}, registry.address, key))
    assert cli(*call, "--policy", policy).returncode == 11
    sign(registry, "ns/app", IMAGE.descriptor.digest, SIGNER)
    assert cli(*call, "--policy", policy).returncode == 0
    assert cli("prefetch", *call[1:], "--insecure-policy").returncode == 0
    copied = (f"docker://{registry.address}/ns/app:1", f"oci:{tmp_path}/layout", "--store", tmp_path / "store")
    assert cli("--policy", reject, "copy", *copied).returncode == 11
    assert cli("--insecure-policy", "copy", *copied, "--override-arch", "amd64").returncode == 0
    both = cli(*call, "--insecure-policy", "--policy", policy)
    assert (both.returncode, "--policy and --insecure-policy exclude each other" in both.stderr) == (2, True)
    policy.write_text("{}")
    assert cli(*call, "--policy", policy).returncode == 2
