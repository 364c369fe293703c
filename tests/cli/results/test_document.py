"""The document of a job: true after any end, by a registry with faults, too; as its schema and its page say.

Covers: cli/results/document.py, cli/results/outputs.py, cli/results/recorder.py.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastoci import Engine, PrefetchRequest, PrefetchResult, RegistryOptions
from fastoci.cli.report import Report
from fastoci.cli.results import document
from fastoci.cli.results.document import Document
from fastoci.cli.results.options import ResultOptions
from fastoci.cli.results.outputs import Outputs
from fastoci.cli.signals import Stopped
from fastoci.errors import StoreFullError
from fastoci.events import BlobDone, Event, ImageDone
from fastoci.testing.faults import FaultServer, Rule, Scenario, Tweak
from fastoci.testing.registry import Registry
from support.images import image_of, made

DOCS = Path(__file__).resolve().parents[3] / "docs"
SCHEMA = DOCS / "prefetch-report.schema.json"
IMAGES = [image_of(made(1, files=2, size=50_000), made(10 + number, files=2, size=9_000)) for number in range(3)]
CUT = Rule("layer", Tweak(part=0.5, end="cut"), 1, 1)
REFUSED = Rule("manifest", Tweak(status=503, body=""), 1, 2)


def requests(registry: Registry, *tags: int | str) -> list[PrefetchRequest]:
    return [PrefetchRequest(f"{registry.address}/app:{tag}", origin=f"list:{n}") for n, tag in enumerate(tags, 1)]


def serving(registry: Registry) -> Registry:
    for number, image in enumerate(IMAGES):
        registry.add_image("app", str(number), image)
    return registry


def read(path: Path) -> Document:
    """The document in a file, which has every field and type of the schema."""
    text = path.read_text()
    assert text.isascii()
    found = msgspec.json.decode(text, type=Document)
    assert msgspec.to_builtins(found) == json.loads(text)
    return found


async def test_a_job_that_ends_has_its_plan_images_blobs_and_registries_in_it(tmp_path: Path) -> None:
    async with serving(Registry()) as registry:
        wanted = requests(registry, 0, 1, 2, "absent")
        with Outputs(ResultOptions((tmp_path / "r.json",)), Report()) as outputs:
            async with Engine(tmp_path / "store", observer=outputs.recorder) as engine:
                with outputs.run(wanted, tmp_path / "store"):
                    result = await engine.prefetch(wanted)
            assert outputs.end(result, 9) == 9
    found = read(tmp_path / "r.json")
    shared = IMAGES[0].layers[0].descriptor
    assert (found.state, found.exit_code, found.error) == ("complete", 9, None)
    assert found.plan is not None
    assert (found.plan.images, found.plan.refused, found.plan.missing_size) == (3, 1, result.plan.missing_size)
    assert (found.plan.shared_size, found.plan.present_size) == (2 * shared.size, 0)
    assert [image.outcome for image in found.images] == ["fetched"] * 3 + ["failed"]
    assert [image.origin for image in found.images] == [f"list:{number}" for number in range(1, 5)]
    failure = found.images[3].error
    assert failure is not None
    assert (failure.kind, failure.exit_code, failure.retryable) == ("NotFoundError", 3, False)
    users = {blob.digest: blob.images for blob in found.blobs}
    assert users[str(shared.digest)] == [0, 1, 2]
    assert [users[str(image.layers[1].descriptor.digest)] for image in IMAGES] == [[0], [1], [2]]
    assert all(blob.ended is not None and 0 <= blob.began <= blob.ended <= found.seconds for blob in found.blobs)
    (told,) = found.registries
    assert (told.registry, told.blobs, told.size) == (registry.address, len(found.blobs), found.plan.missing_size)
    assert sum(blob.size for blob in found.blobs) == told.size == sum(image.fetched for image in found.images)
    manifests = sum(len(image.manifest) for image in IMAGES)
    assert (told.received, told.retries) == (told.size + manifests, 0)


async def test_what_is_there_is_told_as_present_and_nothing_as_received(tmp_path: Path) -> None:
    async with serving(Registry()) as registry, Engine(tmp_path) as engine:
        await engine.prefetch(requests(registry, 0, 1))
    async with serving(Registry()) as other:
        with Outputs(ResultOptions((tmp_path / "r.json",)), Report()) as outputs:
            async with Engine(tmp_path, observer=outputs.recorder) as engine:
                with outputs.run(requests(other, 0, 1), tmp_path):
                    result = await engine.prefetch(requests(other, 0, 1))
            outputs.end(result, 0)
    found = read(tmp_path / "r.json")
    assert [image.outcome for image in found.images] == ["present"] * 2
    assert found.plan is not None
    assert found.plan.present_size == sum(
        {blob.digest: blob.size for i in IMAGES[:2] for blob, _ in i.blobs()}.values()
    )
    assert found.blobs == []


@pytest.mark.parametrize(("rules", "retries"), [((REFUSED,), 2), ((CUT,), 1), ((REFUSED, CUT), 3)])
async def test_retries_and_lost_bytes_are_counted_for_the_registry(
    tmp_path: Path, rules: tuple[Rule, ...], retries: int
) -> None:
    plan = Scenario("T", "trouble", "", "ok", rules=rules, layer=1 << 20)
    with Outputs(ResultOptions((tmp_path / "r.json",)), Report()) as outputs:
        async with (
            FaultServer(plan) as server,
            Engine(tmp_path, registry=RegistryOptions(retry_delay_s=0.01), observer=outputs.recorder) as engine,
        ):
            with outputs.run([PrefetchRequest(server.image)], tmp_path):
                result = await engine.prefetch([PrefetchRequest(server.image)])
        outputs.end(result, 0)
    (told,) = read(tmp_path / "r.json").registries
    assert told.registry == server.image.partition("/")[0]
    assert told.retries == retries
    assert told.received >= told.size == result.plan.missing_size
    assert outputs.recorder.retries == {told.registry: retries}


class Ended(Exception):
    """As what nobody expects."""


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [(Stopped(15), "interrupted", 143), (StoreFullError("no space", path="/"), "failed", 8), (Ended(), "failed", 1)],
    ids=["a signal", "the disk", "a fault"],
)
async def test_a_job_that_ends_early_tells_what_is_known_by_then(
    tmp_path: Path, error: BaseException, state: str, code: int
) -> None:
    """The first image is whole, the second has one blob of three, the name of the third leads nowhere."""
    held = asyncio.Event()
    last = str(IMAGES[1].layers[1].descriptor.digest)

    class Slow(Registry):
        async def blob(self, name: str, digest: str) -> Any:
            if digest == last:
                await held.wait()
            return await super().blob(name, digest)

    async with serving(Slow()) as registry:
        wanted = [*requests(registry, 0, 1, "absent"), PrefetchRequest("NOT A NAME", origin="list:4")]
        with (
            pytest.raises(type(error)),
            Outputs(ResultOptions((tmp_path / "r.json",)), Report()) as outputs,
            outputs.run(wanted, tmp_path / "store"),
        ):
            await _until(tmp_path / "store", wanted, outputs, error)
        held.set()
    found = read(tmp_path / "r.json")
    assert (found.state, found.exit_code, found.plan) == (state, code, None)
    assert (found.error is None) == (state == "interrupted")
    outcomes = [image.outcome for image in found.images]
    assert outcomes[:3] == ["fetched", "unfinished", "failed"]
    assert outcomes[3] in ("failed", "unfinished")
    assert found.images[0].digest == str(IMAGES[0].descriptor.digest)
    assert found.images[0].fetched + found.images[1].fetched == sum(b.size for b in found.blobs if b.digest != last)
    under_way = {blob.digest: blob for blob in found.blobs}[last]
    assert (under_way.images, under_way.error) == ([1], "cancelled")
    assert {blob.digest: blob.images for blob in found.blobs}[str(IMAGES[0].layers[0].descriptor.digest)] == [0, 1]


async def _until(store: Path, wanted: list[PrefetchRequest], outputs: Outputs, error: BaseException) -> PrefetchResult:
    """A job that ends by ``error`` when the first image is there and all of the second but one layer."""
    expected = {wanted[0].reference, *(str(blob.digest) for image in IMAGES[:2] for blob, _ in image.blobs())}
    expected.discard(str(IMAGES[1].layers[1].descriptor.digest))
    enough = asyncio.Event()

    def observe(event: Event) -> None:
        outputs.recorder(event)
        if isinstance(event, BlobDone | ImageDone):
            expected.discard(event.blob if isinstance(event, BlobDone) else event.image)
            if not expected:
                enough.set()

    async with Engine(store, observer=observe) as engine:
        job = asyncio.create_task(engine.prefetch(wanted))
        await enough.wait()
        job.cancel()
        await asyncio.wait([job])
    raise error


async def test_an_image_that_is_spelled_in_two_ways_is_one(tmp_path: Path) -> None:
    async with serving(Registry()) as registry:
        name = f"{registry.address}/app:0"
        wanted = [
            PrefetchRequest(name),
            PrefetchRequest(name),
            PrefetchRequest("redis"),
            PrefetchRequest("redis:latest"),
        ]
        with (
            Outputs(ResultOptions((tmp_path / "r.json",)), Report()) as outputs,
            pytest.raises(Ended),
            outputs.run(wanted, tmp_path / "store"),
        ):
            raise Ended
    assert [image.reference for image in read(tmp_path / "r.json").images] == [name, "redis"]


def test_a_file_that_cannot_be_written_in_the_end_is_told_and_makes_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Outputs(ResultOptions((tmp_path / "r.json", tmp_path / "s.json")), Report()) as outputs:
        (tmp_path / "r.json").mkdir()
        with pytest.raises(Ended), outputs.run([PrefetchRequest("redis")], tmp_path):
            raise Ended
    assert "r.json: it is not a regular file" in capsys.readouterr().err
    assert [image.outcome for image in read(tmp_path / "s.json").images] == ["unfinished"]


def test_the_schema_in_docs_is_that_of_the_document() -> None:
    """``python tests/cli/results/test_document.py`` writes it anew."""
    assert json.loads(SCHEMA.read_text()) == document.schema()


def test_the_page_says_what_each_field_is() -> None:
    section = (DOCS / "prefetch.md").read_text().partition("## Results and metrics")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    fields = {name for each in document.schema()["$defs"].values() for name in each["properties"]}
    assert fields - named == set()


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(document.schema(), indent=2) + "\n")
