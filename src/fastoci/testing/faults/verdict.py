"""Whether a command did right: what it left on disk, how it ended, and what it asked for.

Reads only; knows nothing of how requests are answered.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fastoci.testing.faults.command import Ended
from fastoci.testing.faults.scenario import Scenario
from fastoci.testing.faults.server import Asked, FaultServer

State = Literal["ok", "failed", "error", "skipped"]

_MEMORY: Final = 256 << 20  # bytes
_GRACE_S: Final = 0.25  # requests under way when a 429 is sent
_DIGEST: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one scenario. ``error``: it could not be played; ``skipped``: it is none for this run."""

    scenario: Scenario
    state: State
    remarks: tuple[str, ...] = ()
    got: str = ""  # "ok", "error", or what else came of it
    seconds: float = 0.0
    peak: int = 0  # bytes
    asked: int = 0  # requests


def verdict_on(server: FaultServer, ended: Ended, results: Sequence[Path]) -> Verdict:
    """Compare what came of the command with what the scenario wants."""
    scenario = server.scenario
    got, remarks = _outcome(server, ended, results)
    if got in ("ok", "error") and scenario.expect not in ("either", got):
        remarks.append("refuses what is right in the end" if got == "error" else "accepts what it must refuse")
    remarks += _asked(server)
    remarks += _bounds(server, ended)
    state: State = "failed" if remarks else "ok"
    return Verdict(scenario, state, tuple(remarks), got, ended.seconds, ended.peak, len(server.requests))


def _outcome(server: FaultServer, ended: Ended, results: Sequence[Path]) -> tuple[str, list[str]]:
    found, wrong = _found(server, results)
    if wrong:
        return "wrong", [f"wrong bytes under the name {name[:12]}" for name in wrong]
    if ended.late:
        return "late", [f"not done after {ended.seconds:.0f} s"]
    if ended.code < 0:
        return "signal", [f"ended by signal {-ended.code}"]
    if ended.code:
        return "error", []
    # A foreign layer may stay where it is.
    left = {str(image.layers[-1].descriptor.digest) for image in server.images if server.scenario.foreign}
    missing = min(len(blobs.keys() - found - left) for blobs in server.blobs)
    return ("ok", []) if not missing else ("empty", [f"says it is done, and {missing} blobs are missing"])


def _found(server: FaultServer, results: Sequence[Path]) -> tuple[set[str], list[str]]:
    """The digests of the scenario that are there with the right bytes, and the names of those with wrong ones."""
    wanted = {digest: data for blobs in server.blobs for digest, data in blobs.items()}
    sizes = {len(data) for data in wanted.values()}
    found, wrong = set(), []
    for path in _files(results):
        claimed = f"sha256:{path.name}" if _DIGEST.fullmatch(path.name) else ""
        if claimed not in wanted and path.stat().st_size not in sizes:
            continue
        with path.open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        if digest in wanted:
            found.add(digest)
        if claimed in wanted and digest != claimed:
            wrong.append(path.name)
    return found, wrong


def _files(results: Sequence[Path]) -> Iterator[Path]:
    for result in results:
        yield from (path for path in result.rglob("*") if path.is_file() and not path.is_symlink())


def _asked(server: FaultServer) -> Iterator[str]:
    """What the log shows that it must not."""
    scenario, log = server.scenario, server.requests
    leaked_to = {
        asked.host
        for asked in log
        for secret, hosts in server.secrets.items()
        if asked.host not in hosts and secret in _text(asked)
    }
    yield from (f"tells {host} a secret" for host in sorted(leaked_to))
    yield from (f"asks {host}" for host in scenario.silent if any(asked.host == host for asked in log))
    early = sum(_inside(asked, other) for asked in log if asked.retry_after_s for other in log)
    if early:
        yield f"{early} requests before Retry-After was over"
    often = Counter((asked.host, asked.method, asked.target.partition("?")[0]) for asked in log)
    if scenario.max_requests and often and max(often.values()) > scenario.max_requests:
        yield f"asks {max(often.values())} times for the same"


def _text(asked: Asked) -> str:
    return "\n".join([asked.target, *asked.headers.values(), asked.body.decode("latin-1")])


def _inside(asked: Asked, other: Asked) -> bool:
    after_s = other.at_s - asked.at_s
    return other.host == asked.host and _GRACE_S < after_s < asked.retry_after_s


def _bounds(server: FaultServer, ended: Ended) -> Iterator[str]:
    taken = sum(asked.sent for asked in server.requests)
    if server.scenario.max_bytes and taken > server.scenario.max_bytes:
        yield f"takes {taken >> 20} MiB"
    if ended.peak > _MEMORY:
        yield f"uses {ended.peak >> 20} MiB of memory"
    if any(secret in ended.output for secret in server.secrets):
        yield "prints a secret"
