"""Metrics of a job: what a registry with faults really did, in a file and at a port, bounded and harmless.

Covers: cli/results/metrics.py, cli/results/metrics_server.py.
"""

from __future__ import annotations

import asyncio
import re
import socket
import stat
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastoci import Engine, PrefetchRequest, RegistryOptions, TagQuery
from fastoci.cli.report import Report
from fastoci.cli.results import metrics_server
from fastoci.cli.results.metrics import Metrics
from fastoci.cli.results.metrics_server import MetricsServer
from fastoci.cli.results.options import ResultOptions
from fastoci.cli.results.outputs import Outputs
from fastoci.cli.results.recorder import Recorder
from fastoci.cli.signals import Stopped
from fastoci.errors import FastociError
from fastoci.events import Retrying
from fastoci.testing.faults import FaultServer, Rule, Scenario, Tweak
from fastoci.testing.registry import Registry
from support.images import image_of, made

PAGE = Path(__file__).resolve().parents[3] / "docs" / "prefetch.md"
TROUBLE = Scenario(
    "T",
    "trouble",
    "",
    "ok",
    rules=(
        Rule("manifest", Tweak(status=503, body=""), 1, 2),
        Rule("layer", Tweak(flip=100), 1, 1),
    ),
)
Values = dict[tuple[str, str], float]


def values(text: str) -> Values:
    """Each sample by its name and the value of its label."""
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type in ("gauge", "counter") for family in families)
    return {(each.name, "".join(each.labels.values())): each.value for family in families for each in family.samples}


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def run(outputs: Outputs, store: Path, wanted: list[PrefetchRequest], code: int) -> None:
    options = RegistryOptions(retry_delay_s=0.01)
    async with Engine(store, registry=options, observer=outputs.recorder) as engine:
        with outputs.run(wanted, store):
            result = await engine.prefetch(wanted)
            await outputs.measure(engine)
    outputs.end(result, code)


async def test_the_file_has_what_a_registry_in_trouble_did_and_what_became_of_the_images(tmp_path: Path) -> None:
    path, store = tmp_path / "fastoci.prom", tmp_path / "store"
    async with FaultServer(TROUBLE) as server:
        registry = server.image.partition("/")[0]
        absent = f"{server.image.rpartition(':')[0]}:absent"
        wanted = [PrefetchRequest(each) for each in (server.image, absent, "NOT A NAME")]
        with Outputs(ResultOptions(metrics=path), Report()) as outputs:
            await run(outputs, store, wanted, 9)
            before = time.time()
            await run(outputs, store, wanted[:1], 0)
    found = values(path.read_text())
    size = sum(each.stat().st_size for each in (store / "blobs" / "sha256").iterdir())
    assert found["fastoci_prefetch_retries_total", registry] == 2
    assert found["fastoci_prefetch_received_bytes_total", registry] > size  # the wrong bytes came, too
    assert found["fastoci_prefetch_images_wanted", ""] == found["fastoci_prefetch_images_present", ""] == 1
    assert not [name for name, _ in found if name == "fastoci_prefetch_images_failed"]
    assert found["fastoci_store_size_bytes", ""] == size
    assert found["fastoci_store_free_bytes", ""] > 0
    assert before <= found["fastoci_prefetch_last_success_timestamp_seconds", ""] <= time.time()
    assert 0 < found["fastoci_prefetch_last_success_duration_seconds", ""] < 60
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


async def test_failures_are_counted_by_cause_and_the_last_success_stays(tmp_path: Path) -> None:
    path = tmp_path / "fastoci.prom"
    async with Registry() as registry:
        registry.add_image("app", "1", image_of(made(1, files=1, size=1000)))
        name = f"{registry.address}/app"
        wanted = [PrefetchRequest(f"{name}:{tag}") for tag in ("1", "absent", "gone")]
        with Outputs(ResultOptions(metrics=path), Report()) as outputs:
            await run(outputs, tmp_path / "store", wanted[:1], 0)
            good = values(path.read_text())
        with Outputs(ResultOptions(metrics=path), Report()) as outputs:  # as another process does
            await run(outputs, tmp_path / "store", wanted, 9)
    found = values(path.read_text())
    assert found["fastoci_prefetch_images_failed", "NotFoundError"] == 2
    assert (found["fastoci_prefetch_images_wanted", ""], found["fastoci_prefetch_images_present", ""]) == (3, 1)
    for name in ("timestamp", "duration"):
        key = (f"fastoci_prefetch_last_success_{name}_seconds", "")
        assert found[key] == good[key]
    received = ("fastoci_prefetch_received_bytes_total", registry.address)
    assert found[received] == good[received] > 0  # goes on, and nothing more came


async def test_images_that_a_rule_for_tags_finds_are_wanted_too(tmp_path: Path) -> None:
    path = tmp_path / "fastoci.prom"
    async with Registry() as registry:
        for tag in ("1", "2"):
            registry.add_image("app", tag, image_of(made(int(tag), files=1, size=1000)))
        with Outputs(ResultOptions(metrics=path, reports=(tmp_path / "r.json",)), Report()) as outputs:
            async with Engine(tmp_path / "store", observer=outputs.recorder) as engine:
                with outputs.run([], tmp_path / "store"):
                    result = await engine.prefetch([TagQuery(f"{registry.address}/app", "all")])
                    during = values(Metrics(outputs.recorder).text().decode())
            outputs.end(result, 0)
    found = values(path.read_text())
    for each in (during, found):
        assert each["fastoci_prefetch_images_wanted", ""] == each["fastoci_prefetch_images_present", ""] == 2


@pytest.mark.parametrize(("error", "cause"), [(Stopped(15), "interrupted"), (FastociError("no"), "FastociError")])
def test_images_of_a_run_that_ends_early_failed_by_what_ended_it(
    tmp_path: Path, error: BaseException, cause: str
) -> None:
    path = tmp_path / "fastoci.prom"
    with (
        pytest.raises(type(error)),
        Outputs(ResultOptions(metrics=path), Report()) as outputs,
        outputs.run([PrefetchRequest("redis"), PrefetchRequest("nginx")], tmp_path),
    ):
        raise error
    found = values(path.read_text())
    assert found["fastoci_prefetch_images_failed", cause] == found["fastoci_prefetch_images_wanted", ""] == 2
    assert ("fastoci_prefetch_last_success_timestamp_seconds", "") not in found


@pytest.mark.parametrize("old", ["", "\0\0", "no_metric{", "fastoci_prefetch_retries_total NaN\n", "x" * 100_000])
def test_what_an_earlier_file_has_of_another_form_counts_for_nothing(old: str) -> None:
    recorder = Recorder()
    Metrics(recorder).go_on_from(old)
    assert (recorder.retries.total(), recorder.received.total(), recorder.last_success) == (0, 0, None)


def test_registries_beyond_a_hundred_share_a_label_and_what_they_had_stays_theirs() -> None:
    recorder = Recorder()
    metrics = Metrics(recorder)
    for number in range(150):
        recorder(Retrying(f"r{number}.test/app", "", "", "", 1, 2, 0.0))
    text = metrics.text().decode()
    found = values(text)
    again = Recorder()
    Metrics(again).go_on_from(text)
    assert len(found) - 2 == 101  # with the images that are wanted and present
    assert found["fastoci_prefetch_retries_total", "other"] == 50
    assert values(Metrics(again).text().decode()) == found


def test_the_port_serves_while_the_job_runs_and_not_longer(tmp_path: Path) -> None:
    port = free_port()
    with Outputs(ResultOptions(metrics_port=("127.0.0.1", port)), Report()) as outputs:
        assert values(get(port))["fastoci_prefetch_images_wanted", ""] == 0
        with pytest.raises(FastociError), outputs.run([PrefetchRequest("redis")], tmp_path):
            assert values(get(port))["fastoci_prefetch_images_wanted", ""] == 1
            raise FastociError("ends")
    with pytest.raises(urllib.error.URLError):
        get(port)


async def test_the_port_tells_of_bytes_that_come_just_now(tmp_path: Path) -> None:
    slow = Scenario("T", "slow", "", "ok", rules=(Rule("layer", Tweak(rate=1_000_000)),), layer=1_500_000)
    seen: list[float] = []
    with Outputs(ResultOptions(metrics_port=("127.0.0.1", port := free_port())), Report()) as outputs:
        async with FaultServer(slow) as server:
            registry = server.image.partition("/")[0]
            job = asyncio.create_task(run(outputs, tmp_path, [PrefetchRequest(server.image)], 0))
            while not job.done():
                found = values(await asyncio.to_thread(get, port))
                seen.append(found.get(("fastoci_prefetch_received_bytes_total", registry), 0))
                await asyncio.wait([job], timeout=0.1)
            await job
    assert seen == sorted(seen)
    assert any(0 < count < 1_000_000 for count in seen)


def test_a_port_in_use_is_an_error() -> None:
    registry = Metrics(Recorder()).registry
    with MetricsServer("127.0.0.1", 0, registry) as server:
        with pytest.raises(FastociError) as caught:
            MetricsServer("127.0.0.1", server.port, registry)
        assert str(caught.value) == f"cannot serve metrics at 127.0.0.1:{server.port}: Address already in use"


def test_whoever_sends_nothing_or_never_ends_holds_up_others_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_server, "_DEADLINE_S", 0.1)
    with MetricsServer("127.0.0.1", 0, Metrics(Recorder()).registry) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        idle[1].sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        idle[2].sendall(b"\0\xff\r\n" * 100)
        try:
            assert values(get(server.port))
        finally:
            for each in idle:
                each.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_the_port_is_at_the_address_that_is_named(host: str) -> None:
    if ":" in host and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with MetricsServer(host, 0, Metrics(Recorder()).registry) as server:
        assert server.host == host


def test_the_page_has_each_metric_and_no_other(tmp_path: Path) -> None:
    recorder = Recorder()
    recorder.begin([], tmp_path)
    recorder.last_success, recorder.store_size = (1.0, 1.0), 1
    metrics = Metrics(recorder)
    names = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.collect()}
    assert set(re.findall(r"^\| `(fastoci_\w+)", PAGE.read_text(), re.MULTILINE)) == names
