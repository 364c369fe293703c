"""The table, run over pullers of known virtue, and over skopeo.

Covers: testing/faults/__main__.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.testing.faults import SCENARIOS, FaultServer, Rule, Scenario, Tweak, random_plan
from fastoci.testing.faults.__main__ import main, play
from fastoci.testing.faults.command import Workdir, run
from fastoci.testing.faults.verdict import Verdict, verdict_on
from support import minimal_puller
from support.scratch import SOURCE, scratch

PULLER = f"{sys.executable} {minimal_puller.__file__}"


async def play_named(name: str, mode: str, *, timeout_s: float = 60.0) -> Verdict:
    chosen = next(each for each in SCENARIOS if each.name == name)
    return await play(chosen, f"{PULLER} {mode} {{image}} {{dir}}", tls=False, timeout_s=timeout_s)


@pytest.mark.parametrize(
    "name",
    ["N01", "N03", "N04", "N13", "N24", "N31", "N47.json", "N48.seconds", "N51.503", "N68", "N69", "N70"],
)
async def test_a_good_puller_is_ok(name: str) -> None:
    # Tokens are beyond it, so it meets the redirect of N24 without.
    chosen = next(each for each in SCENARIOS if each.name == name)
    plain = Scenario("N24", "", "", "ok", cdn_uses=0, auth="basic") if name == "N24" else chosen
    found = await play(plain, f"{PULLER} good {{image}} {{dir}}", tls=False, timeout_s=60.0)
    assert found.state == "ok", found
    assert found.peak > 1 << 20 and found.asked > 0


async def test_plans_at_random_end_well_for_a_good_puller() -> None:
    """Those without tokens, which are beyond it, and without the faults that take it its patience."""
    slow = {"stall", "trickle"}
    plans = [plan for plan in map(random_plan, range(100)) if plan.auth != "bearer" and not slow & kinds(plan)][:10]
    for plan in plans:
        found = await play(plan, f"{PULLER} good {{image}} {{dir}}", tls=False, timeout_s=60.0)
        assert found.state == "ok", (str(plan), found)


def kinds(plan: Scenario) -> set[str]:
    acts = [rule.tweak for rule in plan.rules]
    return {act.end for act in acts} | {"trickle" for act in acts if act.pause_s}


@pytest.mark.parametrize(
    ("name", "remark"),
    [
        ("N01", "wrong bytes under the name"),
        ("N02", "wrong bytes under the name"),
        ("N48.seconds", "refuses what is right in the end"),
    ],
)
async def test_a_naive_puller_fails(name: str, remark: str) -> None:
    found = await play_named(name, "naive")
    assert found.state == "failed" and found.remarks[0].startswith(remark), found


async def test_a_leaky_puller_fails_though_its_bytes_are_right() -> None:
    chosen = Scenario("T", "a redirect", "", "ok", auth="basic", cdn_uses=0)
    found = await play(chosen, f"{PULLER} leaky {{image}} {{dir}}", tls=False, timeout_s=60.0)
    assert (found.got, found.remarks) == ("ok", ("tells cdn a secret", "prints a secret"))


async def test_a_puller_that_hangs_is_ended_with_all_that_it_started() -> None:
    found = await play(SCENARIOS[0], "sh -c 'sleep 1000 & sleep 1000'", tls=False, timeout_s=0.5)
    assert (found.state, found.got) == ("failed", "late")


async def test_a_scenario_that_cannot_be_played_is_an_error() -> None:
    broken = Scenario("T", "no such act", "", "ok", rules=(Rule("api", Tweak(headers=(("A",),))),))  # type: ignore[arg-type]
    found = await play(broken, f"{PULLER} good {{image}} {{dir}}", tls=False, timeout_s=60.0)
    assert found.state == "error" and found.remarks[0].startswith("ValueError"), found


async def test_what_is_no_pull_or_needs_tls_is_skipped() -> None:
    assert (await play_named("N71", "good")).remarks == ("not a pull",)
    assert (await play_named("N65.expired", "good")).remarks == ("needs --tls",)


@pytest.mark.parametrize("tls", [False, True])
async def test_skopeo_finds_the_mirror_the_credentials_and_the_authority(peer: Callable[[str], str], tls: bool) -> None:
    command = f"{peer('skopeo')} --insecure-policy copy docker://{{image}} oci:{{dir}}:x"
    for wanted, host in (
        (Scenario("T", "", "", "ok", mirror="good", layer=1000), "mirror"),
        (Scenario("T", "", "", "ok", auth="bearer", layer=1000), "registry"),
    ):
        with scratch("faults") as directory:
            async with FaultServer(wanted, tls=tls) as server:
                place = Workdir(directory)
                ended = await run(command, server, place, timeout_s=60.0)
                assert verdict_on(server, ended, place.results).state == "ok", ended
                assert {asked.host for asked in server.requests} == {host}


def test_the_metadata_service_is_watched_where_its_address_is_the_machines(peer: Callable[[str], str]) -> None:
    network = "ip link set lo up && ip addr add 169.254.169.254/32 dev lo"
    unshare = [peer("unshare"), "-rn", "sh", "-c"]
    if subprocess.run([*unshare, network], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here")
    table = f"{sys.executable} -m fastoci.testing.faults --only N28.plain,N38 --cmd '{PULLER} good {{image}} {{dir}}'"
    with scratch("faults") as directory:
        environment = {"PYTHONPATH": str(SOURCE), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(directory)}
        done = subprocess.run(
            [*unshare, f"{network} && {table}"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=100,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("N28.plain") and "failed" in lines[0] and "asks metadata" in lines[0]
    assert lines[1].startswith("N38") and " ok " in lines[1]  # it asks for no tokens


def test_the_table_is_printed_and_written(tmp_path: Path) -> None:
    with scratch("faults") as directory:
        command = [sys.executable, "-m", "fastoci.testing.faults", "--cmd", f"{PULLER} naive {{image}} {{dir}}"]
        command += ["--only", "N02,N20,N33", "--json", str(directory / "verdicts.json")]
        environment = {"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin", "TMPDIR": str(directory)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)
        rows = json.loads((directory / "verdicts.json").read_text())
    assert done.returncode == 1, done.stderr
    assert [(row["scenario"], row["state"]) for row in rows] == [("N02", "failed"), ("N20", "ok"), ("N33", "skipped")]
    assert done.stdout.splitlines()[-2:] == [
        "cases:  1 ok, 1 failed, 0 error, 1 skipped of 3",
        "faults: 1 ok, 1 failed, 0 error, 1 skipped of 3",
    ]
    assert done.stderr.splitlines() == ["N02 failed", "N20 ok", "N33 skipped"]


def test_without_a_command_the_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "N13"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("N13 ") and len(printed) == 3


@pytest.mark.parametrize("arguments", [["--cmd", "no-such-program {image}"], ["--only", "N99"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "no such" in capsys.readouterr().err
