"""What counts as right: made-up ends of a command and logs, judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastoci.testing.faults import Asked, FaultServer, Scenario
from fastoci.testing.faults.command import Ended
from fastoci.testing.faults.scenario import Expect
from fastoci.testing.faults.verdict import Verdict, verdict_on

DONE = Ended(0, False, 1.0, 50 << 20, "")
FAILED = Ended(1, False, 1.0, 50 << 20, "fault: no")


def scenario(expect: Expect = "ok", **settings: object) -> Scenario:
    return Scenario("T", "test", "", expect, layer=1000, **settings)  # type: ignore[arg-type]


def store(server: FaultServer, directory: Path, *, named: bool = True) -> Path:
    """All blobs of the scenario's image, by their digests or by other names."""
    for number, (digest, data) in enumerate(server.blobs[0].items()):
        path = directory / (digest.replace(":", "/") if named else f"file{number}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return directory


def asked(host: str, at_s: float = 0.0, **settings: object) -> Asked:
    return Asked(host, "GET", "/v2/", {}, b"", at_s, **settings)  # type: ignore[arg-type]


async def verdict(
    tmp_path: Path, wanted: Scenario, ended: Ended, *log: Asked, filled: bool = True, named: bool = True
) -> Verdict:
    async with FaultServer(wanted) as server:
        server.requests.extend(log)
        if filled:
            store(server, tmp_path, named=named)
        return verdict_on(server, ended, [tmp_path])


@pytest.mark.parametrize("named", [True, False])
async def test_right_bytes_are_found_whatever_their_names(tmp_path: Path, named: bool) -> None:
    found = await verdict(tmp_path, scenario(), DONE, named=named)
    assert (found.state, found.got, found.remarks) == ("ok", "ok", ())


async def test_done_without_the_bytes_is_a_failure(tmp_path: Path) -> None:
    found = await verdict(tmp_path, scenario("either"), DONE, filled=False)
    assert (found.state, found.got) == ("failed", "empty")
    assert found.remarks == ("says it is done, and 4 blobs are missing",)


@pytest.mark.parametrize("ended", [DONE, FAILED])
async def test_wrong_bytes_under_a_digest_are_a_failure_whatever_else(tmp_path: Path, ended: Ended) -> None:
    async with FaultServer(scenario("either")) as server:
        store(server, tmp_path)
        path = sorted((tmp_path / "sha256").iterdir())[0]
        path.write_bytes(b"short")
        found = verdict_on(server, ended, [tmp_path])
    assert (found.state, found.got) == ("failed", "wrong")


@pytest.mark.parametrize(
    ("expect", "ended", "state"),
    [
        ("ok", DONE, "ok"),
        ("ok", FAILED, "failed"),
        ("error", DONE, "failed"),
        ("error", FAILED, "ok"),
        ("either", DONE, "ok"),
        ("either", FAILED, "ok"),
        ("error", Ended(-11, False, 1.0, 0, ""), "failed"),
        ("error", Ended(-9, True, 60.0, 0, ""), "failed"),
        ("ok", Ended(0, False, 1.0, 300 << 20, ""), "failed"),
    ],
)
async def test_the_end_must_be_the_one_that_the_scenario_wants(
    tmp_path: Path, expect: Expect, ended: Ended, state: str
) -> None:
    assert (await verdict(tmp_path, scenario(expect), ended)).state == state


async def test_secrets_belong_to_their_host_and_not_into_the_output(tmp_path: Path) -> None:
    async with FaultServer(scenario(auth="basic")) as server:
        store(server, tmp_path)
        server.requests.append(asked("registry"))
        server.requests[0].headers["authorization"] = f"Basic {server.password}"
        assert verdict_on(server, DONE, [tmp_path]).state == "ok"
        server.requests.append(asked("evil"))
        server.requests[1].body = f"password={server.password}".encode()
        assert verdict_on(server, DONE, [tmp_path]).remarks == ("tells evil a secret",)
        server.requests.clear()
        loud = Ended(0, False, 1.0, 0, f"GET /?{server.password}")
        assert verdict_on(server, loud, [tmp_path]).remarks == ("prints a secret",)


async def test_credentials_for_other_names_are_for_nobody(tmp_path: Path) -> None:
    async with FaultServer(scenario("either", auth="basic", credentials="elsewhere")) as server:
        server.requests.append(asked("registry"))
        server.requests[0].headers["authorization"] = server.password
        assert verdict_on(server, FAILED, [tmp_path]).remarks == ("tells registry a secret",)


@pytest.mark.parametrize(
    ("log", "remarks"),
    [
        ([asked("registry", 0.0, retry_after_s=2.0), asked("registry", 2.1)], ()),
        ([asked("registry", 0.0, retry_after_s=2.0), asked("registry", 0.01)], ()),
        ([asked("registry", 0.0, retry_after_s=2.0), asked("mirror", 1.0)], ()),
        (
            [asked("registry", 0.0, retry_after_s=2.0), asked("registry", 1.0)],
            ("1 requests before Retry-After was over",),
        ),
        ([asked("metadata")], ("asks metadata",)),
        ([asked("registry")] * 4, ("asks 4 times for the same",)),
        ([asked("registry", sent=3 << 20)], ("takes 3 MiB",)),
    ],
)
async def test_the_log_is_held_against_the_scenario(tmp_path: Path, log: list[Asked], remarks: tuple[str, ...]) -> None:
    wanted = scenario(max_requests=3, max_bytes=2 << 20)
    assert (await verdict(tmp_path, wanted, DONE, *log)).remarks == remarks
