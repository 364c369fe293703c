"""Documents that lie: a copy of them ends with an error that says so, gives nothing a name, and writes nowhere else."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastoci import CopyOptions, Engine, RegistryOptions
from fastoci.errors import FastociError, FormatError
from fastoci.testing.registry import Registry
from fastoci.testing.uploads import Uploads
from support.bad_layouts import BAD, BadLayout, archive, directory

ALL = CopyOptions(platforms=("all",))
# Of the document at the top a directory says neither its type nor its digest: it is what it says itself.
UNSAID = {
    "an index that is called a manifest",
    "a manifest that is called an index",
    "a path as the digest of the top",
    "data that is other",
}
SERVED = [name for name, bad in BAD.items() if bad.served is not FastociError]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with Engine(tmp_path / "store", registry=RegistryOptions(retries=0)) as engine:
        yield engine


def outside(tmp_path: Path) -> set[str]:
    """All that is beside the store and the destination."""
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    return {path for path in found if not path.startswith(("store", "copy"))}


async def demand_nothing(engine: Engine, tmp_path: Path) -> None:
    assert await engine.images() == ()
    index = tmp_path / "copy/index.json"
    assert not index.exists() or json.loads(index.read_bytes())["manifests"] == []


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_layout_is_copied_nowhere(engine: Engine, tmp_path: Path, name: str) -> None:
    layout = BadLayout(tmp_path / "bad")
    BAD[name].write(layout)
    (tmp_path / "copy-uploads").mkdir()
    before = outside(tmp_path)
    async with Registry(uploads=Uploads(tmp_path / "copy-uploads")) as target:
        for to in (f"oci:{tmp_path}/copy:x", "store:registry.test/x", f"docker://{target.address}/app:1"):
            with pytest.raises(BAD[name].error):
                await engine.copy(f"oci:{layout.directory}", to, ALL)
        assert not await target.tags("app")
    await demand_nothing(engine, tmp_path)
    assert outside(tmp_path) == before


@pytest.mark.parametrize("name", SERVED)
async def test_a_bad_image_of_a_registry_is_neither_copied_nor_pulled(
    engine: Engine, tmp_path: Path, name: str
) -> None:
    layout = BadLayout(tmp_path / "bad")
    BAD[name].write(layout)
    async with Registry() as registry:
        served = layout.serve(registry)
        with pytest.raises(BAD[name].served or BAD[name].error):
            await engine.copy(f"docker://{served}", f"oci:{tmp_path}/copy:x", ALL)
        if name not in ("an unknown algorithm in an index", "one digest with two sizes"):  # of platforms not wanted
            with pytest.raises(FastociError):
                await engine.pull(served, platform="linux/amd64", rootfs=tmp_path / "copy-rootfs")
            assert not (tmp_path / "copy-rootfs").exists() or not list((tmp_path / "copy-rootfs").iterdir())
    await demand_nothing(engine, tmp_path)


@pytest.mark.parametrize("stream", [False, True], ids=["file", "stream"])
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_layout_as_an_archive_is_copied_nowhere(
    engine: Engine, tmp_path: Path, name: str, stream: bool
) -> None:
    layout, path = BadLayout(tmp_path / "bad"), tmp_path / "bad.tar"
    BAD[name].write(layout)
    archive(layout, path)
    if stream:  # what goes by as a whole, as a pipe does
        path = path.rename(tmp_path / "plain.tar").with_name("bad.tar.gz")
        path.write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes(), 1))
    with pytest.raises(BAD[name].error):
        await engine.copy(f"oci-archive:{path}", f"oci:{tmp_path}/copy:x", ALL)
    await demand_nothing(engine, tmp_path)


@pytest.mark.parametrize("name", [name for name in BAD if name not in UNSAID])
async def test_a_bad_image_in_a_directory_is_copied_nowhere(engine: Engine, tmp_path: Path, name: str) -> None:
    layout = BadLayout(tmp_path / "bad")
    BAD[name].write(layout)
    directory(layout, tmp_path / "dir")
    error = FormatError if name == "other bytes of a manifest" else BAD[name].error  # no digest is known of the top
    with pytest.raises(error):
        await engine.copy(f"dir:{tmp_path}/dir", f"oci:{tmp_path}/copy:x", ALL)
    await demand_nothing(engine, tmp_path)
