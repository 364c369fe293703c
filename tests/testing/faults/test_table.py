"""The table of scenarios: every fault is there, and wants what the shared pages want.

Covers: testing/faults/plans.py, testing/faults/scenario.py, testing/faults/table_answers.py,
testing/faults/table_bodies.py, testing/faults/table_hosts.py, testing/faults/table_mirrors.py.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from fastoci.testing.faults import SCENARIOS
from fastoci.testing.faults.plans import random_plan
from fastoci.testing.faults.scenario import ALWAYS

_ROW = re.compile(r"^\| (?P<id>N\d\d) \|.*→ \*\*(?P<expect>ok|error|either)\*\*", re.MULTILINE)


def wants() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for scenario in SCENARIOS:
        found[scenario.id].add(scenario.expect)
    return found


def errors() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for scenario in SCENARIOS:
        found[scenario.id].add(scenario.error)
    return found


def test_every_fault_has_a_scenario_and_every_case_a_name() -> None:
    assert sorted(wants()) == [f"N{number:02}" for number in range(1, 80)]
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)


def test_the_shared_scenarios_are_covered_with_the_same_outcome(shared: Path) -> None:
    document = json.loads((shared / "corpora" / "hostile" / "http_faults.json").read_text())
    assert len(document["scenarios"]) == document["count"]
    for theirs in document["scenarios"]:
        assert theirs["expect"] in wants()[theirs["id"]], theirs
        assert not theirs["error"] or theirs["error"] in errors()[theirs["id"]], theirs


def test_the_threats_page_wants_the_same_outcome(shared: Path) -> None:
    rows = [(row["id"], row["expect"]) for row in _ROW.finditer((shared / "threats.md").read_text())]
    assert len(rows) > 60
    assert [row for row in rows if row[1] not in wants()[row[0]]] == []


def test_a_case_is_either_played_or_said_not_to_be_a_pull() -> None:
    never = {scenario.id for scenario in SCENARIOS if scenario.run == "never"}
    assert never == {"N33", "N34", "N50", "N71"}
    assert all(not scenario.rules for scenario in SCENARIOS if scenario.run == "never")


def test_a_plan_follows_from_its_seed_and_comes_to_an_end() -> None:
    made = [random_plan(seed) for seed in range(1000)]
    assert made == [random_plan(seed) for seed in range(1000)]
    assert len({str(plan) for plan in made}) == len(made)
    for plan in made:
        assert 2 <= len(plan.rules) <= 5 and plan.expect == "ok"
        assert all(rule.last < ALWAYS for rule in plan.rules)
        assert plan.mirror or all(rule.host == "registry" for rule in plan.rules)
        assert all(rule.last <= 4 for rule in plan.rules)
        assert (
            sum(rule.tweak.other or rule.tweak.flip is not None or rule.tweak.body is not None for rule in plan.rules)
            <= 1
        )
        silent = [rule for rule in plan.rules if rule.tweak.end == "stall" or rule.tweak.pause_s]
        assert sum(rule.host == "registry" for rule in silent) <= 1
    assert {rule.host for plan in made for rule in plan.rules} == {"mirror", "registry"}
