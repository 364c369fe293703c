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
def end_of(docker_registry: DockerRegistry, copy_image: CopyImage, tmp_path: Path) -> Callable[[str], str]:
    """An index in a registry and in a layout; one image of it in a layout, archives and a directory."""
    write_layout({"both": BOTH, "amd": AMD}, tmp_path / "layout")
    layout = f"oci:{tmp_path}/layout"
    ends = {
        "registry": f"docker://{docker_registry.address}/inspect/both:1",
        "layout": f"{layout}:both",
        "one": f"{layout}:amd",
        "archive": f"oci-archive:{tmp_path}/oci.tar:amd",
        "directory": f"dir:{tmp_path}/directory",
        "docker": f"docker-archive:{tmp_path}/docker.tar:h/amd:1",
    }

    def made(kind: str) -> str:
        if kind == "registry":
            copy_image(ends["layout"], ends[kind], "--all")
        elif not ends[kind].startswith(layout):
            copy_image(ends["one"], ends[kind])
        return ends[kind]

    return made


@pytest.mark.parametrize("kind", ["registry", "layout", "one", "archive", "directory", "docker"])
def test_raw_documents_are_the_bytes_that_skopeo_prints(
    end_of: Callable[[str], str], peer: Callable[[str], str], tmp_path: Path, cli: Cli, kind: str
) -> None:
    end = end_of(kind)

    def ours(*options: str) -> bytes:
        done = cli("inspect", end, "--store", tmp_path / "store", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.encode()

    def theirs(*options: str) -> bytes:
        secure = ["--tls-verify=false"] if kind == "registry" else []
        command = [peer("skopeo"), *LINUX, "inspect", *secure, *options, end]
        return subprocess.run(command, check=True, capture_output=True).stdout

    if kind != "docker":  # which has no manifest: each makes one
        assert ours("--raw") == theirs("--raw") == (BOTH.index if kind in ("registry", "layout") else AMD.manifest)
    assert ours("--config", "--raw", *PLATFORM) == theirs("--config", "--raw") == AMD.config
    assert json.loads(ours("--config", *PLATFORM))["config"] == json.loads(theirs("--config"))["config"]
