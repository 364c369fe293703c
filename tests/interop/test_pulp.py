"""Pulls from Pulp's registry, with its token service and its blobs on a second server.

``make pulp`` installs Pulp from PyPI into an environment of its own and runs this; ``FASTOCI_PULP`` is that
environment's folder of programs. It needs PostgreSQL's programs, too.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastoci.testing.registry import Registry, serve
from support.images import FIRST, SECOND, image_of, same
from support.scratch import scratch

if TYPE_CHECKING:
    from conftest import Cli, CopyImage

PULP = os.environ.get("FASTOCI_PULP", "")  # before the fixture that cleans the environment
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
IMAGE = image_of(FIRST, SECOND)
LOGIN = "admin:password"
pytestmark = [
    pytest.mark.skipif(not PULP, reason="FASTOCI_PULP is not set: make pulp"),
    pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not installed"),
    pytest.mark.timeout(600),
]
SETTINGS = """
SECRET_KEY = "x"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "HOST": "{at}/db"}}}}
DB_ENCRYPTION_KEY = "{at}/key"
DEPLOY_ROOT = MEDIA_ROOT = WORKING_DIRECTORY = FILE_UPLOAD_TEMP_DIR = "{at}/data"
STATIC_ROOT = "{at}/assets"
CONTENT_ORIGIN = "http://127.0.0.1:{content}"
TOKEN_SERVER = "http://127.0.0.1:{api}/token/"
TOKEN_SIGNATURE_ALGORITHM = "ES256"
PUBLIC_KEY_PATH = "{at}/public.pem"
PRIVATE_KEY_PATH = "{at}/private.pem"
FLATPAK_INDEX = CACHE_ENABLED = False
"""


@contextmanager
def running(*command: str | Path, user: str | None = None) -> Iterator[None]:
    """A server, until the end of the block."""
    process = subprocess.Popen(
        command,
        user=user,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.2)


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def database(stack: ExitStack, at: Path) -> str:
    """Start PostgreSQL on a socket below ``at``; its user's name. It does not run as root."""
    user = "postgres" if os.geteuid() == 0 else None
    (at / "db").mkdir(mode=0o700)
    if user is not None:
        at.chmod(0o755)
        shutil.chown(at / "db", user)
    subprocess.run(
        [POSTGRES[-1] / "initdb", "-A", "trust", "-D", at / "db"], user=user, check=True, capture_output=True
    )
    options: list[str | Path] = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", at / "db", "-D", at / "db"]
    stack.enter_context(running(POSTGRES[-1] / "postgres", *options, user=user))
    name = user or pwd.getpwuid(os.geteuid()).pw_name
    ask: list[str | Path] = [POSTGRES[-1] / "psql", "-h", at / "db", "-U", name, "-c", "select 1", "postgres"]
    until(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0, "PostgreSQL")
    return name


@pytest.fixture(scope="module")
def pulp(copy_image: CopyImage) -> Iterator[str]:
    """The address of Pulp's registry, which has ``IMAGE`` as ``team/app:v1``."""
    with scratch("pulp") as at, ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        environment.setenv("PGUSER", database(stack, at))
        api, content = free_port(), free_port()
        for name in ("data", "assets"):
            (at / name).mkdir()
        key, private = at / "key", at / "private.pem"
        openssl = "openssl"
        key.write_bytes(subprocess.run([openssl, "rand", "-base64", "32"], check=True, capture_output=True).stdout)
        subprocess.run(
            [openssl, "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", private],
            check=True,
            capture_output=True,
        )
        subprocess.run(
            [openssl, "ec", "-in", private, "-pubout", "-out", at / "public.pem"], check=True, capture_output=True
        )
        (at / "settings.py").write_text(SETTINGS.format(at=at, api=api, content=content))
        environment.setenv("PULP_SETTINGS", str(at / "settings.py"))
        manager = Path(PULP) / "pulpcore-manager"
        for command in (["migrate", "--noinput"], ["reset-admin-password", "--password", LOGIN.partition(":")[2]]):
            subprocess.run([manager, *command], check=True, capture_output=True)
        for program, port in (("pulpcore-api", api), ("pulpcore-content", content)):
            stack.enter_context(running(Path(PULP) / program, "-b", f"127.0.0.1:{port}", "-w", "1"))
        stack.enter_context(running(Path(PULP) / "pulpcore-worker"))
        until(lambda: answers(api) and answers(content), "Pulp")
        source = Registry()
        source.add_image("team/app", "v1", IMAGE)
        with serve(source):
            options = ["--src-no-creds", "--dest-creds", LOGIN]
            copy_image(f"docker://{source.address}/team/app:v1", f"docker://127.0.0.1:{api}/team/app:v1", *options)
        yield f"127.0.0.1:{api}"


@pytest.mark.parametrize("options", [["--creds", LOGIN], []], ids=["as a user", "as nobody"])
def test_an_image_in_pulp_is_pulled(cli: Cli, tmp_path: Path, pulp: str, options: list[str]) -> None:
    store = tmp_path / "store"
    done = cli("pull", f"{pulp}/team/app:v1", "--store", store, "--rootfs", tmp_path / "root", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{pulp}/team/app@{IMAGE.descriptor.digest}\n"
    assert same(tmp_path / "root", FIRST, SECOND)


def test_a_tag_that_pulp_lacks_is_not_found(cli: Cli, tmp_path: Path, pulp: str) -> None:
    done = cli("pull", f"{pulp}/team/app:absent", "--store", tmp_path / "store", "--creds", LOGIN)
    assert done.returncode == 3, done.stderr
