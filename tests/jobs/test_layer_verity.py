"""Layer files that are to be held against their fs-verity digests: recorded while they are written, and what is said.

Covers: unpack/measured_layer.py, store/layers/verity.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import fastoci
from fastoci import Layers
from fastoci.events import Event, Warned
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory
from fastoci.testing.registry import Registry
from fastoci.verity.fs_verity import FsVerity
from support.disks import disk

IMAGE = Image.build([Layer.build([directory("etc"), Entry("etc/a", data=b"a" * 100_000)]), Layer.build([Entry("b")])])
HAS_VERITY = os.path.exists("/sys/fs/ext4/features/verity")


async def pulled(store: Path, layers: Layers) -> list[str]:
    """Pull the image; what was warned of."""
    events: list[Event] = []
    async with Registry() as registry, fastoci.Engine(store, observer=events.append) as engine:
        registry.add_image("team/app", "1", IMAGE)
        await engine.pull(f"{registry.address}/team/app:1", layers=layers)
    return [event.message for event in events if isinstance(event, Warned)]


def digests(store: Path) -> dict[Path, str]:
    """What is recorded of each layer file."""
    found = {path: json.loads(path.with_suffix(".json").read_bytes()) for path in (store / "layers").rglob("*.erofs")}
    assert len(found) == 2
    return {path: record["fs_verity"] for path, record in found.items()}


async def test_digests_are_recorded_and_it_is_said_that_nothing_enforces_them(tmp_path: Path) -> None:
    if HAS_VERITY:
        pytest.skip("this kernel has fs-verity")
    warned = await pulled(tmp_path, Layers("erofs", verity=True))
    assert [text for text in warned if "fs-verity" in text] == [
        f"no fs-verity: the kernel, or the file system of {tmp_path}/layers, has none; nothing is enforced"
    ]
    for path, digest in digests(tmp_path).items():
        with path.open("rb") as file:
            assert digest == FsVerity().finish(file.fileno(), str(path))


async def test_no_digest_is_computed_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert await pulled(tmp_path, Layers("erofs")) == []
    assert set(digests(tmp_path).values()) == {""}
    before = {path: path.stat().st_ino for path in digests(tmp_path)}
    assert len(await pulled(tmp_path, Layers("erofs", verity=True))) == (0 if HAS_VERITY else 1)
    assert {path: path.stat().st_ino for path in digests(tmp_path)} == before, "what is there is not made again"


async def test_the_kernel_holds_a_pulled_image_against_its_digests(tmp_path: Path) -> None:
    if not HAS_VERITY:
        pytest.skip("this kernel has no fs-verity")
    with disk(tmp_path, "ext4", 64 << 20, "-O", "verity") as mounted:
        assert await pulled(mounted / "store", Layers("erofs", verity=True)) == []
        assert "" not in digests(mounted / "store").values()


@pytest.mark.parametrize("form", ["none", "overlay", "rootfs"])
def test_only_layer_files_have_such_digests(form: str) -> None:
    with pytest.raises(ValueError, match="verity: layer files can be held"):
        Layers(form, verity=True)  # type: ignore[arg-type]
