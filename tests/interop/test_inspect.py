"""What skopeo prints of an image, wherever that is, is what ``inspect`` prints: the same bytes.

Covers: cli/commands/inspect.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Cli, CopyImage, DockerRegistry
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index, write_layout
from fastoci.testing.layers import Entry, Layer

BASE = Layer.build([Entry("a", data=b"a")], "gzip")
AMD = Image.build([BASE], command=["caf\u00e9 <&>"])
BOTH = Index.build([AMD, Image.build([BASE], platform=Platform("linux", "arm64"))])
LINUX = ("--override-os", "linux", "--override-arch", "amd64")
PLATFORM = ("--platform", "linux/amd64")


@pytest.fixture
def ends(docker_registry: DockerRegistry, copy_image: CopyImage, tmp_path: Path) -> dict[str, str]:
    """An index in a registry and in a layout; its image for this test alone in a layout."""
    write_layout({"both": BOTH, "amd": AMD}, tmp_path / "layout")
    copy_image(f"oci:{tmp_path}/layout:both", f"docker://{docker_registry.address}/inspect/both:1", "--all")
    return {
        "registry": f"docker://{docker_registry.address}/inspect/both:1",
        "layout": f"oci:{tmp_path}/layout:both",
        "one": f"oci:{tmp_path}/layout:amd",
    }


@pytest.mark.parametrize("kind", ["registry", "layout", "one"])
def test_raw_documents_are_the_bytes_that_skopeo_prints(
    ends: dict[str, str], peer: Callable[[str], str], tmp_path: Path, cli: Cli, kind: str
) -> None:
    def ours(*options: str) -> bytes:
        done = cli("inspect", ends[kind], "--store", tmp_path / "store", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.encode()

    def theirs(*options: str) -> bytes:
        secure = ["--tls-verify=false"] if kind == "registry" else []
        command = [peer("skopeo"), *LINUX, "inspect", *secure, *options, ends[kind]]
        return subprocess.run(command, check=True, capture_output=True).stdout

    assert ours("--raw") == theirs("--raw") == (AMD.manifest if kind == "one" else BOTH.index)
    assert ours("--config", "--raw", *PLATFORM) == theirs("--config", "--raw") == AMD.config
    assert json.loads(ours("--config", *PLATFORM))["config"] == json.loads(theirs("--config"))["config"]
