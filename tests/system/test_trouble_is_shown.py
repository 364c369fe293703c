"""What ``fastoci pull`` shows of a registry in trouble, as a process against the server of faults."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from conftest import Cli
from fastoci.testing.faults import FaultServer, Rule, Scenario, Tweak
from fastoci.testing.faults.command import Workdir

Pull = Callable[..., Awaitable[tuple[int, list[str]]]]

MIB = 1 << 20
UNAVAILABLE = Scenario("T", "503 always", "", "error", rules=(Rule("any", Tweak(status=503, body="")),))
CUT = Scenario("T", "a cut", "", "ok", rules=(Rule("layer", Tweak(upto=2 * MIB, end="reset"), 1, 1),), layer=4 * MIB)
TWICE = Scenario("T", "503 twice", "", "ok", rules=(Rule("manifest", Tweak(status=503, body=""), 1, 2),))
REFUSED = (Rule("any", Tweak(status=404), host="mirror"),)
NO_SUCH_IMAGE = Scenario("T", "no such image at a mirror", "", "ok", rules=REFUSED, mirror="good")


@pytest.fixture
def pull(cli: Cli) -> Pull:
    """The exit code of a pull, and its lines on stderr, with the registry's own address as HOST."""

    async def called(plan: Scenario, root: Path, *options: str) -> tuple[int, list[str]]:
        workdir = Workdir(root)
        root.mkdir()
        async with FaultServer(plan) as server:
            words = workdir.prepare(server)
            arguments = ["pull", server.image, "--store", words["store"], "--authfile", words["authfile"]]
            if plan.mirror:
                arguments += ["--registries-conf", f"{words['config']}/registries.conf"]
            environ = workdir.environment(server)
            done = await asyncio.to_thread(cli, *arguments, *options, environ=environ, hasty=True)
            return done.returncode, done.stderr.replace(server.host, "HOST").splitlines()

    return called


async def test_a_registry_that_answers_503_always_has_a_line_for_each_retry_and_an_error_that_counts_them(
    pull: Pull, tmp_path: Path
) -> None:
    code, lines = await pull(UNAVAILABLE, tmp_path / "place", "--progress", "log")
    assert code == 5
    form = r"HOST/\S+: 503 Service Unavailable, try (\d) of 8 (?:in [\d.]+ s|now) \(http://HOST/v2\)"
    tries = [match[1] for line in lines if (match := re.fullmatch(form, line))]
    assert tries == ["2", "3", "4", "5", "6", "7", "8"], lines
    (error,) = [line for line in lines if line.startswith("fastoci: HOST")]
    assert re.search(r": 8 tries in [\d.]+ s, last: 503 Service Unavailable", error)
    assert error.count("503") == 1


async def test_each_retry_is_an_object_of_json_and_a_request_in_the_log(pull: Pull, tmp_path: Path) -> None:
    code, lines = await pull(TWICE, tmp_path / "place", "--progress", "json", "--debug")
    assert code == 0
    events = [json.loads(line) for line in lines if line.startswith("{")]
    retries = [event for event in events if event["event"] == "retrying"]
    assert [(each["attempt"], each["attempts"]) for each in retries] == [(1, 8), (2, 8)]
    texts = [event["text"] for event in events if event["event"] == "log"]
    asked = [text for text in texts if re.search(r"DEBUG fastoci\.registry\S*: GET http://HOST/v2/\S+: 503", text)]
    assert len(asked) == 2


async def test_a_body_that_is_cut_has_a_line_that_says_where_it_goes_on(pull: Pull, tmp_path: Path) -> None:
    code, lines = await pull(CUT, tmp_path / "place", "--progress", "log", "--connections", "1")
    assert code == 0
    (line,) = [line for line in lines if "goes on at" in line]
    assert re.fullmatch(r"HOST/\S+: .+, goes on at 2\.\d MB \(http://HOST/v2, [0-9a-f]{12}\)", line), line


async def test_a_mirror_that_is_left_has_a_line_that_says_who_is_asked_instead(pull: Pull, tmp_path: Path) -> None:
    code, lines = await pull(NO_SUCH_IMAGE, tmp_path / "place", "--progress", "log")
    assert code == 0
    assert any(re.fullmatch(r"HOST/\S+: .*404.*, http://HOST/v2 is asked \(http://\S+/v2\S*\)", line) for line in lines)
