"""A registry with a public address leads into a private network where the user allows it, and nowhere else.

In a network namespace, whose loopback interface has the addresses.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.public_registry import PUBLIC
from support.scratch import SOURCE, TESTS

PRIVATE = (
    "10.1.2.3",
    "100.64.3.4",
    "198.18.0.9",
    "240.240.0.7",
)  # RFC 1918, carriers', and what VPNs and meshes make up
NEVER = ("127.0.0.1", "169.254.169.254", "100.100.100.200")
ALLOWED = ("--allow-private-redirects", "$REGISTRY")
NETWORK = " && ".join(
    ["ip link set lo up", *(f"ip addr add {address}/32 dev lo" for address in (PUBLIC, *PRIVATE, *NEVER[1:]))]
)
UNSHARE = ("unshare", "-rn", "sh", "-c")

pytestmark = pytest.mark.skipif(
    shutil.which("ip") is None or subprocess.run([*UNSHARE, NETWORK], capture_output=True, check=False).returncode != 0,
    reason="needs network namespaces",
)


def fastoci(bucket: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "support.public_registry", bucket, *map(str, arguments), "--progress", "none"]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"}
    command = [*UNSHARE, f'{NETWORK} && exec "$0" "$@"', *program, "--tls-verify=false"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)


@pytest.mark.parametrize("bucket", PRIVATE)
def test_a_private_bucket_is_reached_by_the_option(tmp_path: Path, bucket: str) -> None:
    done = fastoci(bucket, "pull", "$REGISTRY/app:1", "--store", tmp_path / "store", *ALLOWED)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_private_bucket_is_refused_by_name_of_the_option(tmp_path: Path) -> None:
    refused = fastoci(PRIVATE[0], "pull", "$REGISTRY/app:1", "--store", tmp_path / "store")
    assert refused.returncode == 5, refused.stderr
    registry = refused.stderr.partition("fastoci: ")[2].partition("/")[0]
    assert f"--allow-private-redirects {registry}, or allow_private_redirects = true" in refused.stderr
    assert "hint" not in refused.stderr


@pytest.mark.parametrize("bucket", NEVER)
def test_no_option_leads_to_loopback_link_local_or_metadata_addresses(tmp_path: Path, bucket: str) -> None:
    done = fastoci(bucket, "pull", "$REGISTRY/app:1", "--store", tmp_path / "store", *ALLOWED)
    assert done.returncode == 5, done.stderr
    assert "to a loopback, link-local or metadata address" in done.stderr
    assert "--allow" not in done.stderr


@pytest.mark.parametrize(("host", "code"), [(PUBLIC, 0), (f"{PUBLIC}:1", 5)])
def test_the_option_is_for_one_host_and_without_a_port_for_every_port_of_it(
    tmp_path: Path, host: str, code: int
) -> None:
    options = ("--allow-private-redirects", "docker.io", "--allow-private-redirects", host)
    done = fastoci(PRIVATE[0], "pull", "$REGISTRY/app:1", "--store", tmp_path / "store", *options)
    assert done.returncode == code, done.stderr


def test_hosts_toml_may_allow_it(tmp_path: Path) -> None:
    (tmp_path / "hosts" / "_default").mkdir(parents=True)
    (tmp_path / "hosts" / "_default" / "hosts.toml").write_text("allow_private_redirects = true\n")
    options = ("--hosts-dir", tmp_path / "hosts", "--store", tmp_path / "store")
    done = fastoci(PRIVATE[0], "pull", "$REGISTRY/app:1", *options)
    assert (done.returncode, done.stderr) == (0, "")
