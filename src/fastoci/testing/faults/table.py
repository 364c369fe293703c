"""The table of all scenarios, N01 to N79, in order."""

from __future__ import annotations

from typing import Final

from fastoci.testing.faults.scenario import Scenario
from fastoci.testing.faults.table_answers import ANSWERS
from fastoci.testing.faults.table_bodies import BODIES
from fastoci.testing.faults.table_hosts import HOSTS
from fastoci.testing.faults.table_mirrors import MIRRORS

SCENARIOS: Final[tuple[Scenario, ...]] = (*BODIES, *HOSTS, *ANSWERS, *MIRRORS)
