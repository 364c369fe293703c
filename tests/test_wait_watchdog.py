"""The watchdog over waits that ``conftest`` lets loose on all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.scratch import SOURCE

_CONFTEST = """
from support.wait_watchdog import Watchdog

def pytest_configure(config):
    config.pluginmanager.register(Watchdog(grace_s=1.0))
"""
_TEST = """
import asyncio
from fastoci.aio import wait_to_end

def test_that_is_over():
    pass

async def test_without_an_end():
    await wait_to_end(asyncio.get_running_loop().create_future())
"""
_VIRTUAL = """
import time

def test_in_virtual_time(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    time.sleep(0.8)  # longer than the watchdog sleeps
"""


def pytest_of(directory: Path, test: str) -> subprocess.CompletedProcess[str]:
    (directory / "conftest.py").write_text(_CONFTEST)
    (directory / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(directory)]
    command += ["-v", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-o", "timeout=1", str(directory)]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{Path(__file__).parent}"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)


def test_a_wait_that_neither_a_timeout_nor_a_cancellation_ends_takes_the_process_with_it(tmp_path: Path) -> None:
    done = pytest_of(tmp_path, _TEST)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_that_is_over PASSED" in done.stdout
    assert "a test has no end" in done.stderr
    assert "Current thread 0x" in done.stderr


def test_a_test_in_virtual_time_has_the_real_time_that_it_takes(tmp_path: Path) -> None:
    done = pytest_of(tmp_path, _VIRTUAL)
    assert done.returncode == 0, done.stdout + done.stderr
