"""A push that is killed, and the one after it: what the registry kept is not sent again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from fastoci.testing.uploads import Uploads

MIB = 1 << 20
LAYER = Layer.build([Entry("file", data=os.urandom(20 * MIB))])
IMAGE = Image.build([LAYER])


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "pushed").mkdir()
    return Uploads(tmp_path / "pushed")


@pytest.fixture
def registry(uploads: Uploads) -> Iterator[Registry]:
    with serve(Registry(uploads=uploads)) as registry:
        yield registry


def test_the_push_after_a_kill_sends_what_had_not_arrived(
    registry: Registry, uploads: Uploads, cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    source = Registry()
    source.add_image("app", "1", IMAGE)
    store, target = ("--store", str(tmp_path / "store")), f"{registry.address}/team/app:1"
    with serve(source):
        name = f"{source.address}/app:1"
        assert cli("pull", name, *store).returncode == 0
    uploads.faults.pause_s = 0.01
    pushing = subprocess.Popen([sys.executable, "-m", "fastoci", "push", name, target, *store])
    until = time.monotonic() + 60
    while uploads.received < 10 * MIB and time.monotonic() < until:
        time.sleep(0.01)
    pushing.kill()
    assert pushing.wait() == -9
    assert len(list((tmp_path / "store/uploads").iterdir())) == 1
    uploads.faults.pause_s = 0.0
    assert cli("push", name, target, *store).returncode == 0
    size = sum(blob.size for blob, _ in IMAGE.blobs())
    assert size <= uploads.received <= 1.2 * size
    assert list((tmp_path / "store/uploads").iterdir()) == []
    path = uploads.blob("team/app", str(LAYER.descriptor.digest))
    assert path is not None
    assert path.stat().st_size == LAYER.descriptor.size
