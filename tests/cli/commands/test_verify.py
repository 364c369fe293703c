"""``ls``, ``df``, ``verify``, ``repair`` and ``view`` as processes, over a store that was pulled from a registry.

Covers: cli/commands/df.py, cli/commands/repair.py, cli/commands/view.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from fastoci.testing.images import Index
from fastoci.testing.registry import Registry, serve
from support.images import FIRST, SECOND, image_of

IMAGE = image_of(FIRST, SECOND)
LAYER = IMAGE.layers[1].descriptor


class Cli(Protocol):
    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", IMAGE)
        registry.add_image("both", "1", Index.build([IMAGE]))
        yield registry


@pytest.fixture
def store(cli: Cli, registry: Registry, tmp_path: Path) -> Path:
    done = cli("pull", f"{registry.address}/app:1", "--store", tmp_path / "s", "--progress", "none")
    assert done.returncode == 0, done.stderr
    return tmp_path / "s"


def damage(store: Path) -> Path:
    path = store / "blobs" / "sha256" / LAYER.digest.hex
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    return path


def test_df_adds_up_and_names_images(cli: Cli, registry: Registry, store: Path) -> None:
    cli("pull", f"{registry.address}/both:1", "--store", store, "--progress", "none")
    done = cli("df", "-v", "--store", store)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:5]] == ["total", "unique", "shared", "reclaimable"]
    result = json.loads(cli("df", "-v", "--store", store, "--format", "json").stdout)
    blobs = list((store / "blobs" / "sha256").iterdir())
    assert result["total"] == {"blobs": len(blobs), "size": sum(blob.stat().st_size for blob in blobs)}
    assert result["shared"]["blobs"] == 4 and result["unique"]["blobs"] == 1
    assert [ref["name"] for ref in result["references"]] == [f"{registry.address}/{name}:1" for name in ("app", "both")]


def test_verify_says_what_is_bad_and_repair_mends_it(cli: Cli, registry: Registry, store: Path) -> None:
    good = cli("verify", "--store", store)
    assert (good.returncode, good.stdout.count("\n")) == (0, 1) and "all good" in good.stdout
    damage(store)
    bad = cli("verify", "--store", store, "--progress", "none", "--rate", "1G/s")
    assert bad.returncode == 6
    line, total = bad.stdout.splitlines()
    assert line.startswith(f"{LAYER.digest}: corrupt: expected {LAYER.size} bytes, found {LAYER.size} (sha256:")
    assert line.endswith(f"of {registry.address}/app:1") and "1 bad one" in total and bad.stderr == ""
    result = json.loads(cli("verify", f"{registry.address}/app:1", "--store", store, "--format", "json").stdout)
    assert [(each["digest"], each["kind"]) for each in result["bad"]] == [(str(LAYER.digest), "corrupt")]
    mended = cli("repair", "--store", store, "--progress", "none")
    assert (mended.returncode, mended.stdout) == (0, f"{LAYER.digest}\n")
    assert cli("verify", "--store", store).returncode == 0


def test_a_missing_blob_exits_with_3_and_a_repair_that_fails_with_its_reason(
    cli: Cli, registry: Registry, store: Path
) -> None:
    (store / "blobs" / "sha256" / LAYER.digest.hex).unlink()
    assert cli("verify", "--store", store).returncode == 3
    registry.remove_blob(str(LAYER.digest))
    done = cli("repair", "--store", store, "--progress", "none")
    assert done.returncode == 3 and str(LAYER.digest) in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    "arguments", [("verify", "--rate", "0"), ("verify", "--rate", "fast"), ("df", "--format", "x")]
)
def test_wrong_usage_exits_with_2(cli: Cli, store: Path, arguments: tuple[str, ...]) -> None:
    assert cli(*arguments, "--store", store).returncode == 2


def test_a_view_shares_its_blobs_and_other_tools_read_it(
    cli: Cli, registry: Registry, store: Path, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    view = tmp_path / "view"
    done = cli("view", view, f"{registry.address}/app:1", "--store", store)
    assert done.returncode == 0, done.stderr
    for blob in (view / "blobs" / "sha256").iterdir():
        assert blob.stat().st_ino == (store / "blobs" / "sha256" / blob.name).stat().st_ino
    source = f"oci:{view}:{registry.address}/app:1"
    skopeo = [peer("skopeo"), "--insecure-policy", "copy", "-q", source, f"dir:{tmp_path}/copy"]
    assert subprocess.run(skopeo, check=False).returncode == 0
    umoci = [peer("umoci"), "ls", "--layout", str(view)]
    listed = subprocess.run(umoci, capture_output=True, text=True, check=True).stdout.split()
    assert listed == [f"{registry.address}/app:1"]
    assert cli("view", view, f"{registry.address}/none:1", "--store", store).returncode == 3


def test_a_view_of_all_images_extends_a_layout(cli: Cli, registry: Registry, store: Path, tmp_path: Path) -> None:
    cli("pull", f"{registry.address}/both:1", "--store", store, "--progress", "none")
    for _ in range(2):
        assert cli("view", tmp_path / "view", "--store", store).returncode == 0
    entries = json.loads((tmp_path / "view" / "index.json").read_bytes())["manifests"]
    assert len(entries) == 2


def test_a_pull_takes_blobs_from_an_additional_store(cli: Cli, registry: Registry, store: Path, tmp_path: Path) -> None:
    registry.log.clear()
    arguments = (f"{registry.address}/app:1", "--store", tmp_path / "t", "--additional-store", store)
    done = cli("pull", *arguments, "--rootfs", tmp_path / "r", "--progress", "none")
    assert done.returncode == 0, done.stderr
    assert not [record for record in registry.log if "/blobs/" in record.path]
    assert [path.name for path in (tmp_path / "t" / "blobs" / "sha256").iterdir()] == [IMAGE.descriptor.digest.hex]
    usage = json.loads(cli("df", "--store", tmp_path / "t", "--additional-store", store, "--format", "json").stdout)
    assert usage["elsewhere"]["blobs"] == 3 and usage["missing"]["blobs"] == 0
    without = cli("verify", "--store", tmp_path / "t")
    assert without.returncode == 3 and without.stdout.count("missing") == 3


def test_an_additional_store_that_is_gone_is_a_warning(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    done = cli("pull", f"{registry.address}/app:1", "--store", tmp_path / "t", "--additional-store", gone)
    assert done.returncode == 0
    assert f"warning: additional store left out: cannot open the store {gone}" in done.stderr


def test_a_refusal_for_lack_of_room_shows_a_table(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    done = cli("pull", f"{registry.address}/app:1", "--store", tmp_path / "t", "--max-store-size", "1000")
    assert done.returncode == 8
    lines = [line.split() for line in done.stderr.splitlines() if line.startswith("  ")]
    assert lines[0] == ["NEEDED", "FREE"]
    assert [line[0] for line in lines[1:]] == ["bytes", "inodes", "bytes"]
    assert lines[-1][:6] == ["bytes", "within", "the", "limit", "of", "1000"]


def test_ls_goes_on_past_files_that_are_no_references(cli: Cli, registry: Registry, store: Path) -> None:
    (store / "refs" / "zz").mkdir()
    (store / "refs" / "zz" / ("1" * 64)).write_text("{}")
    done = cli("ls", "--store", store)
    assert done.returncode == 0 and f"refs/zz/{'1' * 64} is not a reference" in done.stderr
    assert done.stdout.splitlines()[1].startswith(f"{registry.address}/app:1 ")
