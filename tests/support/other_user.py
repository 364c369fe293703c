"""A user without rights, who can run the package under test wherever its files are: by root, in a mount namespace.

The user has a name, and ids in ``/etc/subuid`` when the test wants that; both are seen in that namespace alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from support.scratch import SOURCE, scratch

UID: Final = 54321
FIRST, COUNT = 600_000, 65_536  # of the subordinate ids
_NAME: Final = "fastocitest"
_ENTER: Final = """
at=$1; uid=$2; shift 2
mount --bind "$SOURCE" "$at/source"
mount --bind "$SITE" "$at/site"
mount --bind "$BASE" "$at/base"
for name in passwd group subuid subgid; do
  test ! -e "$at/etc/$name" || mount --bind "$at/etc/$name" "/etc/$name"
done
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups -- "$@"
"""


class OtherUser:
    """The user. ``place`` is a directory of this user's."""

    def __init__(self, at: Path) -> None:
        self._at = at
        self.place = at / "place"

    @property
    def python(self) -> str:
        """This Python, as this user finds it."""
        return str(self._at / "base" / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")

    def run(self, *command: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command as this user; ``python`` is this Python with the package."""
        words = [self.python if word == "python" else str(word) for word in command]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-ec", _ENTER, "sh", str(self._at), str(UID), *words],
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self.place),
                "XDG_RUNTIME_DIR": str(self.place),
                "PYTHONPATH": f"{self._at / 'source'}:{self._at / 'site'}",
                "LD_LIBRARY_PATH": str(self._at / "base" / "lib"),  # the path that it was built with is another's
                "PYTHONDONTWRITEBYTECODE": "1",
                "SOURCE": str(SOURCE),
                "SITE": sysconfig.get_paths()["purelib"],
                "BASE": sys.base_prefix,
            },
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    def fastoci(self, *arguments: str | Path, code: int = 0) -> str:
        """Run the program; what it says on stderr."""
        return self.run("python", "-m", "fastoci", *arguments, code=code).stderr


@contextmanager
def other_user(*, with_ids: bool) -> Iterator[OtherUser]:
    """Such a user, with or without subordinate ids. The test is skipped where that is not to be had."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    for program in ("unshare", "setpriv", *(("newuidmap", "newgidmap") if with_ids else ())):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with scratch("user") as at:
        at.chmod(0o755)
        for name in ("source", "site", "base", "etc"):
            (at / name).mkdir()
        for name, line in (("passwd", f"{_NAME}:x:{UID}:{UID}::{at}:/bin/sh\n"), ("group", f"{_NAME}:x:{UID}:\n")):
            (at / "etc" / name).write_text(Path("/etc", name).read_text() + line)
        for name in ("subuid", "subgid"):
            if Path("/etc", name).exists():
                (at / "etc" / name).write_text(f"{_NAME}:{FIRST}:{COUNT}\n" if with_ids else "")
            elif with_ids:
                pytest.skip(f"/etc/{name} is not there")
        (at / "place").mkdir()
        os.chown(at / "place", UID, UID)
        yield OtherUser(at)
