"""Random fault plans, many at a time in this process: no wrong bytes ever, the right ones while one source is good.

``make fault-plans`` plays 1,000; the short form is part of ``make test``. Waits that are the client's own (silence,
stalls) are shorter here than in life; those that a server asks for are not. Plans are numbered by their seed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from fastoci import Engine, Limits, RegistryOptions
from fastoci.errors import FastociError
from fastoci.registry import opening
from fastoci.registry.fetch import body, retry
from fastoci.registry.http import throughput
from fastoci.testing.faults import SCENARIOS, FaultServer, Rule, Scenario, Tweak, random_plan
from fastoci.testing.faults.command import Ended, Workdir
from fastoci.testing.faults.verdict import Verdict, verdict_on

PLANS = int(os.environ.get("FASTOCI_PLANS", "8"))
FIRST = int(os.environ.get("FASTOCI_SEED", "0"))
AT_ONCE = 24
MIB = 1 << 20
LIMITS = Limits(memory=24 * MIB, workers=1, read_s=2.0, connect_s=5.0, first_byte_s=4.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is slow is found out in a tenth of the time."""
    monkeypatch.setattr(throughput, "FLOOR_S", throughput.FLOOR_S / 10)
    monkeypatch.setattr(body, "_CHECK_S", body._CHECK_S / 10)
    monkeypatch.setattr(opening, "RetryPolicy", functools.partial(retry.RetryPolicy, first_s=0.02, limited_s=0.1))


async def play(plan: Scenario, root: Path, *, authorities: Path | None = None) -> Verdict:
    """Pull the plan's image with a store of its own; over TLS when there is a file for the server's authority."""
    place = Workdir(root)
    root.mkdir()
    began, said, code = time.monotonic(), "", 0
    async with FaultServer(plan, tls=authorities is not None, second_s=0.02) as server:
        words = place.prepare(server)
        if authorities is not None:
            with authorities.open("ab") as file:
                file.write(server.ca)
        async with Engine(
            words["store"],
            limits=LIMITS,
            registry=RegistryOptions(authfile=words["authfile"], registries_conf=f"{words['config']}/registries.conf"),
        ) as engine:
            try:
                await engine.pull(server.image)
            except FastociError as error:
                said, code = f"{type(error).__name__}: {error}", 1
        ended = Ended(code, False, time.monotonic() - began, 0, said)
        verdict = verdict_on(server, ended, place.results)
    if verdict.state != "ok":
        print(f"{plan}\n  {verdict.remarks} {said}")
    return verdict


@pytest.mark.parametrize("tls", [False, True], ids=["http", "tls"])
@pytest.mark.usefixtures("quick")
async def test_the_table_of_faults_in_one_process(tmp_path: Path, tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that needs no process of its own: no kill, no proxy variables. Memory is measured by ``make faults``.

    Every second, over TLS those that only TLS has and every third of the others: ``make faults`` runs all both ways.
    """
    room = asyncio.Semaphore(AT_ONCE)
    authorities = tmp_path / "ca.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))

    async def one(scenario: Scenario) -> Verdict:
        async with room:
            return await play(scenario, tmp_path / scenario.name, authorities=authorities if tls else None)

    able = [each for each in SCENARIOS if each.run == "pull" and not each.proxy and (tls or not each.tls)]
    assert len(able) > 100
    chosen = [each for number, each in enumerate(able) if each.tls or number % (3 if tls else 2) == 0]
    verdicts = await asyncio.gather(*map(one, chosen))
    assert [(each.scenario.name, each.remarks) for each in verdicts if each.state != "ok"] == []


@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("quick")
async def test_random_plans_end_with_the_right_bytes_and_no_request_comes_too_early(tmp_path: Path) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(seed: int) -> Verdict:
        async with room:
            return await play(random_plan(seed), tmp_path / str(seed))

    verdicts = await asyncio.gather(*(one(seed) for seed in range(FIRST, FIRST + PLANS)))
    outcomes = Counter(verdict.got for verdict in verdicts)
    remarks = Counter(remark for verdict in verdicts for remark in verdict.remarks)
    asked = sum(verdict.asked for verdict in verdicts)
    print(f"{PLANS} plans from {FIRST}, {asked} requests: {dict(outcomes)}; {dict(remarks)}")
    assert outcomes["wrong"] == 0
    assert not [remark for remark in remarks if "Retry-After" in remark or "secret" in remark]
    assert outcomes["ok"] >= 0.999 * PLANS


@pytest.mark.parametrize("auth", ["none", "bearer"])
async def test_with_a_reset_every_mib_hardly_anything_is_fetched_twice(tmp_path: Path, auth: str) -> None:
    rules = (Rule("layer", Tweak(upto=MIB, end="reset")),)
    size = 24 * MIB
    plan = Scenario("R", "a reset every MiB", "", "ok", rules=rules, layer=size, auth=auth)  # type: ignore[arg-type]
    place = Workdir(tmp_path / "place")
    place.root.mkdir()
    async with FaultServer(plan) as server:
        words = place.prepare(server)
        async with Engine(words["store"], registry=RegistryOptions(authfile=words["authfile"])) as engine:
            await engine.pull(server.image)
        digest = str(server.images[0].layers[-1].descriptor.digest)
        layer = [asked for asked in server.requests if digest in asked.target]
        real = server.images[0].layers[-1].descriptor.size
    sent = sum(asked.sent for asked in layer)
    print(f"{len(layer)} requests, {sent / real - 1:.2%} fetched twice")
    assert len(layer) >= real // MIB
    assert sent <= 1.05 * real
