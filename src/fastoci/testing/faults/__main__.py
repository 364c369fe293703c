"""``python -m fastoci.testing.faults``: run somebody's puller against every fault, and print how it took them."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from fastoci.testing.faults.command import Workdir, run
from fastoci.testing.faults.scenario import Scenario
from fastoci.testing.faults.server import FaultServer
from fastoci.testing.faults.table import SCENARIOS
from fastoci.testing.faults.verdict import Verdict, verdict_on

_WORDS: Final = """\
words of CMD, each put in place of {word}:
  {image}     the reference to pull, HOST:PORT/NAME:TAG
  {dir}       an empty directory for the result; blobs are found in it by their hash, whatever their names
  {store}     another one, for a tool with a store of its own
  {ca}        the authority of the servers' certificates, with --tls; SSL_CERT_FILE is the same
  {authfile}  credentials; REGISTRY_AUTH_FILE and DOCKER_CONFIG are the same
  {config}    a directory with registries.conf and certs.d/HOST/hosts.toml, which name the mirror where there is one

CMD is not a shell command; use sh -c '...' for one. Each scenario has a server, a home and directories of its own.

  ok       the right bytes, or a failure with nothing wrong left behind, as the scenario wants; in bounded time,
           memory and traffic; no secret sent to another host or printed; no request before Retry-After was over
  failed   not so; the remarks say what
  error    the scenario could not be played
  skipped  not a matter of one pull, or only with --tls

Exit code 0: nothing failed; 1: something did; 2: wrong usage.
The metadata service is watched when 169.254.169.254 is an address of this machine, and port 80 may be used.

  python -m fastoci.testing.faults --cmd 'skopeo copy --src-tls-verify=false docker://{image} oci:{dir}:x'
  python -m fastoci.testing.faults --cmd 'fastoci pull --store {dir} {image}' --only N04,N11.overflow
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the table."""
    parser = argparse.ArgumentParser(
        "python -m fastoci.testing.faults",
        description=__doc__,
        epilog=_WORDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cmd", metavar="CMD", help="the puller; without it the scenarios are listed")
    parser.add_argument("--tls", action="store_true", help="serve https; needs trustme")
    parser.add_argument("--only", metavar="ID,...", default="", help="these scenarios, as N04 or N11.overflow")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the verdicts there, too")
    parser.add_argument("--timeout", metavar="S", type=float, default=60.0, help="seconds for each (default: 60)")
    given = parser.parse_args(arguments)
    chosen = _chosen(given.only)
    if not chosen:
        parser.error(f"no such scenario: {given.only}")
    if given.cmd is None:
        print("\n".join(map(str, chosen)))
        return 0
    words = shlex.split(given.cmd)
    if not words or shutil.which(words[0]) is None:
        parser.error(f"no such program: {given.cmd}")
    verdicts = asyncio.run(_play_all(chosen, given.cmd, tls=given.tls, timeout_s=given.timeout))
    _print(verdicts)
    if given.json is not None:
        given.json.write_text(json.dumps([_row(verdict) for verdict in verdicts], indent=1) + "\n")
    return 1 if any(verdict.state in ("failed", "error") for verdict in verdicts) else 0


def _chosen(only: str) -> list[Scenario]:
    names = [name for name in only.split(",") if name]
    return [each for each in SCENARIOS if not names or each.id in names or each.name in names]


async def _play_all(scenarios: Iterable[Scenario], command: str, *, tls: bool, timeout_s: float) -> list[Verdict]:
    verdicts = []
    for scenario in scenarios:
        verdict = await play(scenario, command, tls=tls, timeout_s=timeout_s)
        print(f"{scenario.name} {verdict.state}", file=sys.stderr, flush=True)
        verdicts.append(verdict)
    return verdicts


async def play(scenario: Scenario, command: str, *, tls: bool, timeout_s: float) -> Verdict:
    """Run the command against one scenario, with a server and directories of its own."""
    if scenario.run == "never":
        return Verdict(scenario, "skipped", ("not a pull",))
    if scenario.tls and not tls:
        return Verdict(scenario, "skipped", ("needs --tls",))
    try:
        with tempfile.TemporaryDirectory(prefix="fastoci-faults-", ignore_cleanup_errors=True) as name:
            async with FaultServer(scenario, tls=tls) as server:
                workdir = Workdir(Path(name))
                return verdict_on(server, await run(command, server, workdir, timeout_s=timeout_s), workdir.results)
    except Exception as error:  # whatever it is, the other scenarios go on
        return Verdict(scenario, "error", (f"{type(error).__name__}: {error}",))


def _print(verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        scenario = verdict.scenario
        facts = f"{verdict.seconds:6.1f} s {verdict.peak >> 20:4d} MiB {verdict.asked:4d} requests"
        facts = facts if verdict.got else " " * len(facts)
        remarks = "; ".join(verdict.remarks)
        line = f"{scenario.name:14} {verdict.state:7}  wants {scenario.expect:6} got {verdict.got or '-':6} {facts}"
        print(f"{line}  {scenario.title}{': ' + remarks if remarks else ''}")
    whole: dict[str, set[str]] = defaultdict(set)
    for verdict in verdicts:
        whole[verdict.scenario.id].add(verdict.state)
    print(f"\ncases:  {_score([verdict.state for verdict in verdicts])}")
    print(f"faults: {_score([_worst(states) for states in whole.values()])}")


def _worst(states: set[str]) -> str:
    return next(each for each in ("error", "failed", "ok", "skipped") if each in states)


def _score(states: Sequence[str]) -> str:
    counts = ", ".join(f"{states.count(each)} {each}" for each in ("ok", "failed", "error", "skipped"))
    return f"{counts} of {len(states)}"


def _row(verdict: Verdict) -> dict[str, object]:
    row = asdict(verdict)
    row["scenario"] = verdict.scenario.name
    row["expect"] = verdict.scenario.expect
    return row


if __name__ == "__main__":
    sys.exit(main())
