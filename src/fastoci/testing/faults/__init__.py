"""Registry faults as data, a server that plays them, and a table of how somebody's puller takes them.

``python -m fastoci.testing.faults --help`` runs the table; docs/faults.md explains the scenarios.
"""

from __future__ import annotations

from fastoci.testing.faults.plans import random_plan
from fastoci.testing.faults.scenario import Rule, Scenario, Tweak
from fastoci.testing.faults.server import Asked, FaultServer
from fastoci.testing.faults.table import SCENARIOS

__all__ = ["SCENARIOS", "Asked", "FaultServer", "Rule", "Scenario", "Tweak", "random_plan"]
