"""The same policy, image and signatures: skopeo has the verdict that ours is held against. A few; all of them with
FASTOCI_POLICY_RULES=all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import ConfigError, PolicyError
from fastoci.testing.registry import Registry, serve
from support.policy_rules import BROKEN, HOST, IMAGE, INDEX, RULES, SIGNER, written
from support.signing import attach

FEW = ("accept", "the repository before the host", "signed by cosign", "of another manifest")
ALL = os.environ.get("FASTOCI_POLICY_RULES") == "all"

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed: make peers")


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    registry.add_image("ns/app", "1", IMAGE)
    registry.add_image("ns/app", "all", INDEX)
    with serve(registry) as served:
        yield served


def theirs(reference: str, place: Path) -> bool:
    """Whether skopeo takes the image; it must say why not."""
    (place / "registries.d").mkdir()
    (place / "registries.d" / "all.yaml").write_text("default-docker:\n  use-sigstore-attachments: true\n")
    command = ["skopeo", "--override-arch", "amd64", "--policy", str(place / "policy.json"), "--registries.d"]
    command += [str(place / "registries.d"), "copy", "-q", "--src-tls-verify=false", "--remove-signatures"]
    done = subprocess.run(
        [*command, f"docker://{reference}", f"dir:{place / 'out'}"], capture_output=True, text=True, timeout=60
    )
    if "sigstore disabled" in done.stderr:
        pytest.skip("this skopeo was built without signatures of sigstore, as Debian's is")
    assert done.returncode == 0 or "Source image rejected" in done.stderr, done.stderr
    return done.returncode == 0


async def ours(reference: str, place: Path) -> bool:
    trust = fastoci.read_trust_policy(place / "policy.json")
    async with fastoci.Engine(place / "store", trust=trust) as engine:
        try:
            await engine.pull(reference, platform="linux/amd64")
        except PolicyError:
            return False
    return True


@pytest.mark.parametrize("rule", RULES if ALL else FEW)
async def test_a_rule_has_one_verdict(registry: Registry, tmp_path: Path, rule: str) -> None:
    scopes, make, asked, verdict = RULES[rule]
    for digest, made in make(f"{registry.address}/ns/app").items():
        attach(registry, "ns/app", digest, made)
    (tmp_path / "policy.json").write_bytes(written(scopes, registry.address, SIGNER.write(tmp_path / "cosign.pub")))
    reference = asked.replace(HOST, registry.address)
    assert await ours(reference, tmp_path) == verdict
    assert theirs(reference, tmp_path) == verdict


@pytest.mark.parametrize("fault", BROKEN if ALL else ["a field that is none"])
def test_a_broken_policy_is_refused_by_both(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(BROKEN[fault]))
    with pytest.raises(ConfigError):
        fastoci.read_trust_policy(path)
    command = ["skopeo", "--policy", str(path), "copy", "-q", f"dir:{tmp_path}", f"dir:{tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "invalid policy in" in done.stderr
