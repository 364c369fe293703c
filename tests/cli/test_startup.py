"""What starting the program costs: nothing that its commands alone need, and no command what another one needs.

``imports.toml`` holds which of our modules and of the packages we depend on each command imports when it runs;
``PYTHONPATH=tests python tests/cli/test_startup.py`` writes it anew, for the reader of a diff to judge.

Covers: cli/command_table.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fastoci
from fastoci.cli.command_table import GROUPS
from fastoci.testing.registry import Registry, serve
from support.images import image_of, made

SOURCE = str(Path(fastoci.__file__).parents[1])
IMPORTS = Path(__file__).with_name("imports.toml")
NATIVE = {"fastoci._core", "fastoci._inflate", "fastoci._extract"}
HEAVY = NATIVE | {"aiohttp", "asyncio", "isal", "msgspec", "rich", "ssl", "uvloop", "zstandard"}
# Of others: what pyproject.toml names, and what of rich and of Python takes long, whatever files a machine has.
WATCHED = {
    "aiohttp",
    "h2",
    "isal",
    "msgspec",
    "prometheus_client",
    "uvloop",
    "yaml",
    "yarl",
    "zstandard",
    "rich.console",
    "rich.table",
}
WATCHED |= {"asyncio", "dataclasses", "decimal", "http.client", "logging", "pathlib", "ssl", "subprocess"}
WATCHED |= {"aiohttp.tracing", "attr", "email.message", "http.cookies", "pickle", "urllib.request"}

COMMANDS = {
    "--help": "--help",
    "pull --help": "pull --help",
    "pull": "pull IMAGE --tls-verify=false --progress none",
    "pull REPOSITORY@DIGEST": "pull IMAGE@DIGEST --tls-verify=false --progress none",
    "pull --rootfs": "pull IMAGE --rootfs WORK/rootfs --tls-verify=false --progress none",
    "prefetch": "prefetch IMAGE --tls-verify=false --progress none",
    "unpack": "unpack IMAGE WORK/files",
    "bundle": "bundle IMAGE WORK/bundle",
    "push": "push IMAGE 127.0.0.1:1/pushed:1 --retries 0",
    "tags": "tags 127.0.0.1:1/app --retries 0",
    "tag": "tag 127.0.0.1:1/app:1 127.0.0.1:1/app:2 --retries 0",
    "delete": "delete 127.0.0.1:1/app:1 --yes --retries 0",
    "publish": "publish IMAGE 127.0.0.1:1/fast:1 --retries 0",
    "pack": "pack WORK/files --tag h/app:1",
    "ls": "ls",
    "ls REF": "ls IMAGE",
    "find": "find IMAGE",
    "cat": "cat IMAGE made1/0000/000000",
    "export": "export IMAGE WORK/exported.tar",
    "copy": "copy docker://IMAGE oci:WORK/copied --tls-verify=false --progress none",
    "inspect": "inspect IMAGE",
    "diff": "diff IMAGE IMAGE --files",
    "view": "view WORK/view IMAGE",
    "rm": "rm IMAGE",
    "pin": "pin IMAGE",
    "unpin": "unpin IMAGE",
    "apply": "apply WORK/applied WORK/layer.tar",
    "df": "df",
    "gc": "gc --dry-run",
    "verify": "verify",
    "repair": "repair",
    "login": "login --get-login 127.0.0.1:1",
    "logout": "logout 127.0.0.1:1",
    "config": "config show",
    "configure": "configure docker --config-file WORK/daemon.json",
    "mount": "mount --help",
    "umount": "umount WORK",
    "mounts": "mounts",
    "differ": "differ --help",
    "info": "info",
}

_IMAGE = image_of(made(1, files=1, size=1000))

PROBE = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv[0] = "fastoci"
from fastoci import whole_process
whole_process.OURS = True  # as fastoci.__main__ has it, which ends before anything could be registered for the end
from fastoci.cli.main import main
main()
"""


def imported(*arguments: str, **variables: str) -> set[str]:
    """The modules of a process of the program when it ends."""
    environment = {**os.environ, "PYTHONPATH": SOURCE, **variables}
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    return set(json.loads(done.stderr.splitlines()[-1]))


def watched(words: str, image: str, work: Path) -> set[str]:
    """What a command imports of what is watched, in a store that has the image."""
    shutil.copytree(work / "filled", work / "store")
    try:
        words = words.replace("IMAGE", image).replace("DIGEST", str(_IMAGE.descriptor.digest))
        arguments = [word.replace("WORK", str(work)) for word in words.split()]
        modules = imported(*arguments, FASTOCI_STORE=str(work / "store"), REGISTRY_AUTH_FILE=str(work / "auth.json"))
    finally:
        shutil.rmtree(work / "store")
    return {name for name in modules if name.partition(".")[0] == "fastoci" or name in WATCHED} - {"fastoci.__main__"}


@contextmanager
def filled(work: Path) -> Iterator[str]:
    """A store with an image, a layer and an auth file in ``work``; gives the image's name at a registry."""
    layer = _IMAGE.layers[0].content
    assert isinstance(layer, bytes)
    (work / "layer.tar").write_bytes(layer)
    (work / "auth.json").write_text('{"auths": {"127.0.0.1:1": {"auth": "bWU6c2VjcmV0"}}}')
    with serve(Registry()) as registry:
        registry.add_image("app", "1", _IMAGE)
        name = f"{registry.address}/app:1"
        for each in (name, f"{name}@{_IMAGE.descriptor.digest}"):
            fastoci.pull(each, store=work / "filled", registry=fastoci.RegistryOptions(tls_verify=False))
        yield name


def tree(found: set[str], known: set[str]) -> str:
    """What is imported, and in front of what is new or gone a sign."""
    signs = {True: "+ ", False: "  "}
    lines = [f"{signs[name not in known]}{name}" for name in sorted(found)]
    return "\n".join([*lines, *(f"- {name}" for name in sorted(known - found))])


def test_commands_import_what_they_are_known_to_import(tmp_path: Path) -> None:
    table, wrong = tomllib.loads(IMPORTS.read_text()), []
    with filled(tmp_path) as image:
        for name, words in COMMANDS.items():
            known = set(table[name]["own"]).union(*(table["common"][part] for part in table[name]["common"]))
            found = watched(words, image, tmp_path)
            if found != known:
                wrong.append(f"fastoci {name} imports\n{tree(found, known)}")
    assert not wrong, "\n\n".join(wrong)


def test_every_command_is_among_those_whose_imports_are_known() -> None:
    assert {name for group in GROUPS.values() for name in group} <= COMMANDS.keys()


@pytest.mark.parametrize("arguments", [["--help"], ["pull", "--help"], ["login", "--help"], ["--version"], ["pull"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    modules = imported(*arguments)
    assert "click" in modules
    assert not modules & HEAVY


def written(found: dict[str, set[str]]) -> str:
    """The table: what several commands import together is written once."""
    program = found["--help"]
    engine = (found["ls"] & found["df"] & found["pull"] & found["unpack"]) - program
    options = (found["pull"] & found["repair"]) - program - engine
    client = (found["pull"] & found["login"]) - program - engine - options
    pull = (found["pull"] & found["pull --rootfs"]) - program - engine - options - client
    common = {"program": program, "engine": engine, "options": options, "client": client, "pull": pull}
    lines = ["[common]"]
    lines += [f"{name} = {json.dumps(sorted(modules), indent=2)}" for name, modules in common.items()]
    for name, modules in found.items():
        parts = [part for part, its in common.items() if its <= modules]
        own = sorted(modules.difference(*(common[part] for part in parts)))
        lines += ["", f"[{json.dumps(name)}]", f"common = {json.dumps(parts)}", f"own = {json.dumps(own, indent=2)}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, filled(Path(directory)) as reference:
        IMPORTS.write_text(
            written({name: watched(words, reference, Path(directory)) for name, words in COMMANDS.items()})
        )
