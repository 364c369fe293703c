"""Registries, proxies, helpers and machines as people met them: each case of ``shared/corpora/field`` ends as it must.

A case prints what it runs, and how that ends. The short form runs the quick ones; ``make field`` runs all. ``held`` are
our own tests of the same kind, which need no such folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.scratch import SOURCE, scratch

TESTS = Path(__file__).resolve().parents[1]
EVERYTHING = os.environ.get("FASTOCI_FIELD") == "all"  # before the fixture that cleans the environment
ANOTHER_USER = 54321
STATUS = re.compile(r"^\$ (?P<command>.*)(?:\n +.*)*?\n +exit (?P<status>-?\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Case:
    """How a case ends: the exit codes that it prints of fastoci, and what it says, in order."""

    exits: tuple[int, ...]
    held: tuple[str, ...]
    says: str = ""
    quick: bool = False
    root: bool = False


CASES = {
    "01-head-refused": Case(
        exits=(0,) * 6,
        held=(
            "without_a_useful_head_the_manifest_is_fetched",
            "a_manifest_is_fetched_where_a_head_has_no_answer",
        ),
    ),
    "02-slow-first-byte": Case(
        exits=(0, 0),
        held=(
            "a_cache_that_has_answered_before_is_waited_for",
            "a_cache_that_never_answered_is_waited_for_when_it_answers_something_small",
        ),
    ),
    "04-loopback-tls": Case(
        exits=(0,) * 4,
        held=(
            "a_registry_of_this_machine_may_speak_tls",
            "the_certificates_of_a_directory_are_trusted",
            "without_verification_any_certificate_will_do",
        ),
    ),
    "05-private-ca-by-python-version": Case(
        exits=(0, 0),
        held=("any_certificate_of_a_file_is_an_anchor",),
        quick=True,
    ),
    "06-proxy-connect-hang": Case(
        exits=(5,),
        held=("a_request_ends_wherever_the_other_side_stops",),
        says="no connection in time, through the proxy http://10.9.9.6:3128",
        root=True,
    ),
    "08-hidden-repository": Case(
        exits=(0,) * 4,
        held=("credentials_are_offered_to_a_registry_that_hides_from_strangers",),
        says="(?:sent credentials: True.*){4}",
    ),
    "09-auth-file-entries": Case(
        exits=(0,) * 4,
        held=(
            "line_ends_in_base64_are_as_absent",
            "a_broken_entry_fails_for_its_own_host_alone_and_shows_no_secret",
            "null_is_an_empty_entry",
        ),
    ),
    "11-helper-ignores-stdin": Case(
        exits=(),
        held=("a_program_that_does_not_read_is_no_failure", "on_uvloop_the_bounds_are_the_same"),
        says=(
            r"does not read stdin \{\(0, ''\): 30\}.*reads stdin \{\(0, ''\): 10\}"
            r".*lower-case keys \{\(0, ''\): 1\}.*text behind the JSON \{\(0, ''\): 1\}"
        ),
    ),
    "12-index-os-features-and-unknown-types": Case(
        exits=(0,) * 3,
        held=(
            "an_entry_that_demands_a_feature_is_not_chosen",
            "an_entry_of_an_unknown_media_type_is_skipped_and_named_when_nothing_is_left",
            "an_artifact_is_not_chosen_where_there_is_an_image",
        ),
        quick=True,
    ),
    "14-home-and-config": Case(
        exits=(0, 0, 0, 8),
        held=(
            "without_home_and_passwd_entry_a_pull_into_a_named_store_works",
            "a_home_that_may_not_be_entered_is_as_absent",
            "a_relative_path_below_a_directory_that_was_removed_is_an_error",
        ),
        says="the working directory has been removed",
        root=True,
    ),
    "15-closed-stdio": Case(
        exits=(0, 1, 0),
        held=("a_pull_with_closed_streams_does_its_work",),
        says="cannot write to stdout",
    ),
    "16-rootfs-is-a-mount-point": Case(
        exits=(0, 0),
        held=("the_tree_is_made_inside_and_found_again", "a_mount_point_in_a_parent_that_is_read_only_gets_its_tree"),
        says=r"in it: \['etc'\]",
        quick=True,
        root=True,
    ),
    "18-user-namespace-owners": Case(
        exits=(8,),
        held=(
            "an_owner_that_a_user_namespace_lacks_is_named_with_what_to_do",
            "owners_are_left_alone_on_request",
        ),
        says="uid 1000, gid 1000: .*/etc/subuid.*--no-same-owner",
        quick=True,
    ),
    "19-public-name-private-bucket": Case(
        exits=(5,) * 3,
        held=(
            "a_private_bucket_is_refused_by_name_of_the_option",
            "a_private_bucket_is_reached_by_the_option",
            "hosts_toml_may_allow_it",
        ),
        says=r"(?:--allow-private-redirects 8\.8\.4\.5.*){3}",
        root=True,
    ),
    "21-slow-link": Case(
        exits=(0,),
        held=("a_link_below_the_floor_is_renewed_and_then_goes_on",),
    ),
    "22-messages": Case(
        exits=(5,),
        held=(
            "a_server_that_wants_a_client_certificate_says_so",
            "a_proxy_that_wants_credentials_is_named_with_the_variable_for_them",
        ),
        says="wants a client certificate: .*certs.d",
        quick=True,
    ),
}
NAMES = [name for name, case in CASES.items() if EVERYTHING or case.quick]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that all users may enter, with the program."""
    with scratch("field") as directory:
        directory.chmod(0o755)
        program = directory / "fastoci"
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{SOURCE}" exec "{sys.executable}" -m fastoci "$@"\n')
        program.chmod(0o755)
        yield directory


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", NAMES)
def test_a_case_ends_as_it_must(shared: Path, peer: Callable[[str], str], place: Path, name: str) -> None:
    case = CASES[name]
    if case.root and os.geteuid() != 0:
        pytest.skip("needs root")
    peer("skopeo"), peer("openssl"), peer("unshare")
    if name.startswith("14") and not _is_run_by_others(place / "fastoci"):
        pytest.skip("needs a program that other users may run: make field VENV=/opt/fastoci-field")
    done = subprocess.run(
        [sys.executable, f"{shared}/corpora/field/{name}/run.py"],
        env={**os.environ, "FASTOCI": str(place / "fastoci"), "SCRATCH": str(place)},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [(match["command"], int(match["status"])) for match in STATUS.finditer(done.stdout)]
    exits = tuple(status for command, status in found if "skopeo copy" not in command)
    assert (exits, bool(re.search(case.says, done.stdout, re.DOTALL))) == (case.exits, True), done.stdout
    assert "unexpected" not in done.stdout


def test_each_case_of_the_folder_has_its_end(shared: Path) -> None:
    found = {path.parent.name for path in (shared / "corpora" / "field").glob("*/run.py")}
    assert found == set(CASES)


def test_each_case_is_held_by_tests_of_ours() -> None:
    ours = "".join(path.read_text() for path in TESTS.rglob("test_*.py") if path != Path(__file__))
    held = [name for case in CASES.values() for name in case.held]
    assert [name for name in held if f"def test_{name}(" not in ours] == []


def _is_run_by_others(program: Path) -> bool:
    done = subprocess.run(
        [program, "--version"], user=ANOTHER_USER, group=ANOTHER_USER, capture_output=True, check=False
    )
    return done.returncode == 0
