"""``FASTOCI_*``: a variable of the environment for each option, of whatever command. docs/configuration.md lists them.

``--max-wait`` is ``FASTOCI_MAX_WAIT``, of every command that has it. Options that may be given several times take
several values: paths with colons between them, others with blanks. A variable that is nobody's is told of: a typing
error must not look like an option.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from fastoci.cli import report

_PREFIX: Final = "FASTOCI_"
# All that there are, so that a command knows those of the others without importing them. SHA256 is no option's.
NAMES: Final = frozenset(
    """
    ADDITIONAL_STORE ALL ALLOW_EMPTY ALLOW_PRIVATE_REDIRECTS ALL_PLATFORMS AUTHFILE CERT_DIR CONFIG CONNECTIONS CREDS
    DEBUG DRY_RUN DURABILITY EVERY FAIL_FAST FILE FIRST_BYTE_TIMEOUT FORMAT GC GET_LOGIN HOSTS_DIR
    IMAGE_CREDENTIAL_PROVIDER_BIN_DIR IMAGE_CREDENTIAL_PROVIDER_CONFIG KEEP_FREE LIST_NAME LOG_LEVEL LOW MAX_AGE
    MAX_BANDWIDTH MAX_CONNECTIONS MAX_COUNT MAX_ENTRIES MAX_REQUESTS MAX_SIZE MAX_STORE_SIZE MAX_UNPACKED MAX_WAIT
    MEMORY METRICS METRICS_PORT NICE OCI OFFLINE PASSWORD_STDIN PIN PLATFORM PROGRESS PRUNE PULL QUIET RATE RAW
    REGISTRIES_CONF REPORT RETRIES RETRY_DELAY ROOTFS SAME_OWNER SPLAY STORE TLS_VERIFY USERNAME VERBOSE WORKERS YES
    SHA256 AGAINST BASE COMPRESSION TAG UPPER VERITY LAYERS LAYERS_ONLY CONTEXT MOUNT WRITABLE
    SOCKET CONTAINERD_ADDRESS CONFIG_FILE MIRROR SNAPSHOTTER UNDO INTO IN UNPACK DOWNLOAD_FOREIGN_LAYERS
    POLICY INSECURE_POLICY FILES GET TREE
    OVERRIDE_OS OVERRIDE_ARCH OVERRIDE_VARIANT PRESERVE_DIGESTS DIGESTFILE ADDITIONAL_TAG SRC_CREDS SRC_AUTHFILE
    SRC_CERT_DIR SRC_TLS_VERIFY SRC_SHARED_BLOB_DIR DEST_CREDS DEST_AUTHFILE DEST_CERT_DIR DEST_TLS_VERIFY
    DEST_SHARED_BLOB_DIR SRC_NO_CREDS SRC_USERNAME SRC_PASSWORD DEST_NO_CREDS DEST_USERNAME DEST_PASSWORD
    REFERRERS SIGNATURES COMPRESS
    """.split()  # noqa: SIM905 (45 lines otherwise)
)


def add_to(command: click.Command) -> None:
    """Let each option of the program, or of a command, be given by its variable, but those that have one, or none."""
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar is None and not option.is_eager:
            option.envvar = variable(option)


def commands_of(program: click.Group) -> Iterator[click.Command]:
    """Each command that does something, also those of a group."""
    for command in program.commands.values():
        if isinstance(command, click.Group):
            yield from commands_of(command)
        else:
            yield command


def options_of(program: click.Group) -> Iterator[click.Option]:
    """Each option of the program and of its commands."""
    for command in (program, *commands_of(program)):
        yield from (option for option in command.params if isinstance(option, click.Option))


def tell_unknown(command: click.Command, environ: Mapping[str, str]) -> None:
    """Let a command warn of variables that are no option's, before it does its work."""
    work = command.callback
    assert work is not None

    @functools.wraps(work)
    def telling(*given: Any, **named: Any) -> Any:
        for name in sorted(environ):
            if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in NAMES:
                report.current().warn(_unknown(name))
        return work(*given, **named)

    command.callback = telling


def _unknown(name: str) -> str:
    from difflib import get_close_matches  # when somebody erred

    near = [f": did you mean {_PREFIX}{word}?" for word in get_close_matches(name.removeprefix(_PREFIX), NAMES, n=1)]
    return "".join((f"{name} is no variable of fastoci", *near))


def flag(option: click.Option) -> str:
    """The name that users know an option by: ``--max-wait``."""
    return max(option.opts, key=len)


def variable(option: click.Option) -> str:
    """``FASTOCI_MAX_WAIT``, of ``--max-wait``."""
    return _PREFIX + flag(option).removeprefix("--").replace("-", "_").upper()
