"""Layer files whose fs-verity digest is computed while they are written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastoci import _core
from fastoci.image.digest import Digest
from fastoci.image.layer_file import Form
from fastoci.testing.layers import Entry, tar
from fastoci.unpack.erofs import LayerFileWriter
from fastoci.unpack.measured_layer import MeasuredLayerFile
from fastoci.verity.fs_verity import FsVerity

BOUNDS = {"max_entries": 1000, "max_bytes": 1 << 30, "max_memory": 1 << 26}


def written(path: Path, layer: bytes, form: Form, kind: type[LayerFileWriter], piece: int) -> LayerFileWriter:
    """Write a layer file, by buffers of a pool."""
    pool = _core.Pool(_core.BUFFER_SIZE)
    with path.open("wb+") as file:
        writer = kind(file.fileno(), layer=Digest.of(layer), form=form, **BOUNDS)
        for start in range(0, len(layer), piece):
            buffer = pool.take()
            assert buffer is not None
            buffer.append(layer[start : start + piece])
            writer.feed(buffer)
            buffer.release()
        writer.finish()
        writer.abort()
    return writer


@pytest.mark.parametrize("form", ["tar", "4k"])
@pytest.mark.parametrize("piece", [_core.BUFFER_SIZE, 7_777], ids=["buffers", "odd pieces"])
def test_the_digest_is_that_of_the_file_which_is_as_without(form: Form, piece: int, tmp_path: Path) -> None:
    layer = b"".join(tar([Entry(f"file-{number}", data=os.urandom(300_000)) for number in range(6)]))
    measured = written(tmp_path / "measured", layer, form, MeasuredLayerFile, piece)
    assert isinstance(measured, MeasuredLayerFile)
    written(tmp_path / "plain", layer, form, LayerFileWriter, piece)
    assert (tmp_path / "measured").read_bytes() == (tmp_path / "plain").read_bytes()
    with (tmp_path / "measured").open("rb") as file:
        assert measured.fs_verity == FsVerity().finish(file.fileno(), "layer")


def test_an_empty_layer_has_a_digest_too(tmp_path: Path) -> None:
    measured = written(tmp_path / "file", bytes(1024), "tar", MeasuredLayerFile, 100)
    assert isinstance(measured, MeasuredLayerFile)
    with (tmp_path / "file").open("rb") as file:
        assert measured.fs_verity == FsVerity().finish(file.fileno(), "layer")
