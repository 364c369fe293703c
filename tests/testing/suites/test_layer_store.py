"""The suite of ``LayerStore`` over the store on disk, and over two that break what it promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastoci.image.digest import Digest
from fastoci.layer_interfaces import LayerStore
from fastoci.limits import Level
from fastoci.store.layers import ingest
from fastoci.store.layers.layers import Layers
from fastoci.testing.suites.layer_store import LayerStoreSuite
from support.stores import on_disk


class TestStore(LayerStoreSuite):
    level: Level = "commit"

    @asynccontextmanager
    async def open(self, directory: Path) -> AsyncIterator[LayerStore]:
        async with on_disk(directory, self.level) as store:
            yield store.layers


class TestStoreThatSyncsOnceAJob(TestStore):
    level: Level = "batch"


def test_a_store_that_believes_any_proof_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def commit(self: ingest.LayerFile, facts: Any, proof: Any) -> object:
        return await self._finish("", lambda: self._name(facts, "", b""))

    monkeypatch.setattr(ingest.LayerFile, "commit", commit)
    with pytest.raises(AssertionError, match="a proof of another layer"):
        TestStore().test_nothing_gets_a_name_without_the_proof_of_its_layers(tmp_path)


def test_a_store_that_shows_merged_metadata_without_layer_files_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_device(self: Layers, diff_id: Digest, layout: int) -> bool:
        return True

    monkeypatch.setattr(Layers, "_is_device", is_device)
    with pytest.raises(AssertionError):
        TestStore().test_merged_metadata_is_there_while_its_layer_files_are(tmp_path)
