"""SIGINT ends every command soon, whatever it is at, with 130; and the next one goes on where it stopped.

The bound here is for machines at work; `benchmarks/micro/interrupt.py` measures it on an idle one.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.interrupts import SITUATIONS, interrupt, run
from support.scratch import scratch

SOON_S = 5.0


@pytest.mark.parametrize("name", list(SITUATIONS))
def test_an_interrupt_ends_a_command_soon(name: str, tmp_path: Path) -> None:
    with scratch("interrupt") as memory, contextmanager(SITUATIONS[name])(memory, tmp_path) as slow:
        ended = interrupt(slow)
        assert ended.took_s < SOON_S, ended
        # 0: it was through before; -2: it was not yet loaded
        assert ended.status in (128 + signal.SIGINT, 0, -signal.SIGINT), ended
        assert ("stopped by SIGINT" in ended.said) == (ended.status == 128 + signal.SIGINT)
        assert "Traceback" not in ended.said
        if slow.again is not None:
            done = run(slow.again)
            assert done.returncode == 0, done.stderr
