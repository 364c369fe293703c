"""OCI runtimes as programs: what they need of a machine that has cgroups in a form of its own."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import Final

# crun knows cgroups of version 2 alone, and not the mixture that some machines have.
_CGROUPS: Final = """
test -e /sys/fs/cgroup/cgroup.controllers || { umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; }
exec "$@"
"""


class Runtime:
    """One runtime. ``prefix`` is what runs a command as another user."""

    def __init__(self, program: str, unshare: str, prefix: tuple[str, ...] = ()) -> None:
        self._command = (*prefix, program)
        self._is_crun = Path(program).name == "crun"
        self._unshare = unshare

    def run(self, bundle: Path, *, state: Path | None = None, code: int = 0) -> str:
        """What a container of the bundle prints; ``code`` is its exit status."""
        state = state or bundle.parent / "state"
        command = [*self._command, "--root", str(state)]
        if self._is_crun:
            inside = [self._unshare, "-m", "sh", "-ec", _CGROUPS, "sh"]
            command = [*inside, *command, "--cgroup-manager=disabled"]
        done = subprocess.run(
            [*command, "run", "--bundle", str(bundle), f"fastoci-{secrets.token_hex(8)}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout
