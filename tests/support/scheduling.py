"""Which tests pytest-xdist gives to one worker: those of a file that share what is dear to set up; all others to any.

By files, not by marks of ``--dist loadgroup``: pytest-xdist 3.8 does not see these under pytest 9.
"""

from __future__ import annotations

from typing import Final

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

TOGETHER: Final = {
    "tests/golden/test_ctr_hosts_toml.py": "one containerd",
    "tests/interop/test_containerd_snapshots.py": "one containerd",
    "tests/interop/test_hostile.py": "the directory outside that attacks aim at",
    "tests/interop/test_pull.py": "images that are pushed to docker-registry once",
    "tests/system/test_memory.py": "large images, and the memory of a pull of them",
    "tests/test_csrc.py": "objects of one build",
}


def group(nodeid: str) -> str:
    """What is run by one worker, in the order of the files: a whole file, or one test."""
    file = nodeid.partition("::")[0]
    return file if file in TOGETHER else nodeid


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out the next group as soon as a worker has none left; the largest first."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)  # without a log of the session's, it prints a line for each test

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Forget a group that is done: xdist counts what is pending in all that a worker ever had, after each test."""
        groups = self.assigned_work[node]
        name = group(self.registered_collections[node][item_index])
        super().mark_test_complete(node, item_index, duration)
        if all(groups[name].values()):
            del groups[name]

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
