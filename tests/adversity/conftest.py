"""A harness for pulls that are killed or starved: on a file system with a device of its own where that can be had."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.testing.registry import Registry, serve
from support import disks
from support.crash_harness import LAYERS, CrashHarness, image
from support.scratch import scratch
from support.warm_program import WarmProgram

SIZE = 64 << 20


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Serves the image as ``app:1``."""
    registry = Registry()
    registry.add_image("app", "1", image())
    with serve(registry):
        yield registry


@pytest.fixture
def harness(registry: Registry, warm_program: WarmProgram) -> Iterator[CrashHarness]:
    with scratch("adversity") as directory:
        if os.geteuid() != 0:
            yield CrashHarness(directory, registry, warm_program)
        else:
            with disks.disk(directory, "ext4", SIZE, "-F", "-m", "0") as disk:
                yield CrashHarness(disk, registry, warm_program)


@pytest.fixture
def older(harness: CrashHarness, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which ``app:1`` is another image, of the first layer alone."""
    path = tmp_path_factory.mktemp("older") / "store"
    harness.clear()
    harness.registry.add_image("app", "1", image(LAYERS[:1]))
    try:
        done = harness.pull(rootfs=False)
        assert done.returncode == 0, done.stderr
    finally:
        harness.registry.add_image("app", "1", image())
    shutil.move(harness.store, path)
    return path
