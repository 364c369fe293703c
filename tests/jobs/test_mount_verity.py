"""Mounts that are refused unless the kernel verifies what they read.

Covers: jobs/mount_verity.py.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import DigestMismatchError, MountError
from fastoci.jobs import mounts
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from support.disks import disk, mounted
from support.mount_namespaces import mount_namespace, nothing_left
from support.scratch import scratch

IMAGE = Image.build([Layer.build([Entry("file", data=b"data" * 5000)]), Layer.build([Entry("other")])])
HAS_VERITY = os.path.exists("/sys/fs/ext4/features/verity")


@pytest.fixture
def memory() -> Iterator[Path]:
    with mount_namespace(), nothing_left(), scratch("mount") as directory:
        yield directory


@asynccontextmanager
async def pulled(store: Path) -> AsyncIterator[fastoci.Image]:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", IMAGE)
        async with fastoci.Engine(store) as engine:
            yield await engine.pull(f"{registry.address}/app:1")


async def test_what_no_kernel_verifies_is_not_mounted(memory: Path) -> None:
    async with pulled(memory / "store") as image:  # tmpfs has no fs-verity
        with pytest.raises(MountError, match="no kernel holds it against a digest"):
            await image.mount(memory / "root", verity=True)
        assert mounts.mounts() == ()
        assert not (memory / "root").exists()
        (memory / "tree").mkdir()
        await image.unpack(memory / "tree")
        with pytest.raises(MountError, match="no kernel holds it against a digest"):
            await image.mount(memory / "tree", verity=True)


@pytest.mark.skipif(not HAS_VERITY, reason="this kernel has no fs-verity")
async def test_what_the_kernel_verifies_is_mounted_and_other_bytes_are_not(memory: Path) -> None:
    with disk(memory, "ext4", 64 << 20, "-O", "verity") as place:
        async with pulled(place / "store") as image:
            assert (await image.mount(place / "root", verity=True)).way == "file-backed"
            assert (place / "root/file").read_bytes() == b"data" * 5000
            mounts.umount(place / "root")
            record = next((place / "store/images").glob("*.json"))
            record.write_text(record.read_text().replace('"fs_verity": "sha256:', '"fs_verity": "sha256:0'))
            with pytest.raises(DigestMismatchError):
                await image.mount(place / "root", verity=True)


async def test_an_image_that_is_mounted_out_of_directories_is_not_taken_for_verified(memory: Path) -> None:
    async with pulled(memory / "store") as image:
        with mounted(Path("/dev/loop-control"), "--bind", "/dev/null"):
            assert (await image.mount(memory / "root")).way == "overlay"
            with pytest.raises(MountError, match="mounted already, as overlay, which no kernel verifies"):
                await image.mount(memory / "other", verity=True)
            mounts.umount(memory / "root")
