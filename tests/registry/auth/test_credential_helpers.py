"""Credential helpers: real programs that answer as the tests want."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import CredentialError
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credential_helpers import CredentialHelpers
from support.helper_programs import HelperProgram

Make = Callable[..., HelperProgram]


async def test_a_helper_is_asked_by_its_protocol(helper_program: Make) -> None:
    helper = helper_program("test", {"r.test:5000": ("me", "hunter2")})
    assert await CredentialHelpers(helper.environ).get("test", "R.test:5000") == Credential("me", "hunter2")
    assert helper.calls() == [("get", "r.test:5000")]


@pytest.mark.parametrize("domain", ["docker.io", "index.docker.io", "registry-1.docker.io"])
async def test_docker_hub_has_its_old_name_for_helpers(helper_program: Make, domain: str) -> None:
    helper = helper_program("test", {"https://index.docker.io/v1/": ("me", "hunter2")})
    assert await CredentialHelpers(helper.environ).get("test", domain) == Credential("me", "hunter2")


async def test_the_user_token_means_an_identity_token(helper_program: Make) -> None:
    helper = helper_program("test", {"r.test": ("<token>", "refresh")})
    assert await CredentialHelpers(helper.environ).get("test", "r.test") == Credential("", identity_token="refresh")


async def test_what_a_helper_does_not_know_is_no_failure(helper_program: Make) -> None:
    helper = helper_program("test", {"empty.test": ("", "")})
    helpers = CredentialHelpers(helper.environ)
    assert await helpers.get("test", "r.test") is None
    assert await helpers.get("test", "empty.test") is None


async def test_each_server_is_asked_about_once_whoever_wants_to_know(helper_program: Make) -> None:
    helper = helper_program("test", {"r.test": ("me", "hunter2")})
    helpers = CredentialHelpers(helper.environ)
    found = await asyncio.gather(*(helpers.get("test", domain) for domain in ["r.test", "other.test"] * 20))
    assert found == [Credential("me", "hunter2"), None] * 20
    assert sorted(helper.calls()) == [("get", "other.test"), ("get", "r.test")]


async def test_a_failure_is_raised_to_all_and_the_helper_is_not_asked_again(helper_program: Make) -> None:
    helper = helper_program("test", fails="hunter2: keychain locked")
    helpers = CredentialHelpers(helper.environ)
    results = await asyncio.gather(*(helpers.get("test", "r.test") for _ in range(5)), return_exceptions=True)
    errors = [error for error in results if isinstance(error, CredentialError)]
    assert len({id(error) for error in errors}) == 5
    assert all(error.program == "docker-credential-test" for error in errors)
    assert "docker-credential-test: it failed for r.test" in str(errors[0])
    assert not any("hunter2" in str(error) for error in errors)
    assert len(helper.calls()) == 1


async def test_one_that_asked_first_and_was_cancelled_leaves_the_question_to_the_next(helper_program: Make) -> None:
    helper = helper_program("test", {"r.test": ("me", "hunter2")}, waits=True)
    helpers = CredentialHelpers(helper.environ)
    first, second = (asyncio.create_task(helpers.get("test", "r.test")) for _ in range(2))
    await helper.called(1)
    first.cancel()
    await helper.called(2)
    helper.go_on()
    assert await second == Credential("me", "hunter2")
    assert first.cancelled() or first.cancelling()
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize(
    "answer", ["", "hunter2", "[]", "{}", '{"Username":"me"}', '{"Username":1,"Secret":"hunter2"}', "[" * 100_000]
)
async def test_an_answer_that_is_none_is_an_error_without_its_text(helper_program: Make, answer: str) -> None:
    helper = helper_program("test", answers=answer)
    with pytest.raises(CredentialError, match=r"docker-credential-test: its answer for r.test") as caught:
        await CredentialHelpers(helper.environ).get("test", "r.test")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        '{"username":"me","secret":"hunter2"}',
        '{"SERVERURL":"r.test","USERNAME":"me","SECRET":"hunter2"}',
        '\n {"Username":"me","Secret":"hunter2"}\nan update is available: {"Username":"you"}',
        '{"Username":"me","Secret":"hunter2"}{"Username":"you","Secret":"x"}',
    ],
)
async def test_an_answer_is_taken_in_any_case_and_with_text_behind_it(helper_program: Make, answer: str) -> None:
    helper = helper_program("test", answers=answer)
    assert await CredentialHelpers(helper.environ).get("test", "r.test") == Credential("me", "hunter2")


async def test_a_helper_that_is_not_on_the_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="docker-credential-desktop: not found"):
        await CredentialHelpers({"PATH": str(tmp_path)}).get("desktop", "r.test")


async def test_a_helper_without_an_end_is_an_error(helper_program: Make) -> None:
    helper = helper_program("test", waits=True)
    with pytest.raises(CredentialError, match="docker-credential-test: no answer within"):
        await CredentialHelpers(helper.environ, timeout_s=0.05).get("test", "r.test")


async def test_credentials_are_stored_and_erased(helper_program: Make) -> None:
    helper = helper_program("test", {"r.test": ("me", "hunter2")})
    helpers = CredentialHelpers(helper.environ)
    await helpers.store("test", "docker.io", Credential("me", "hunter2"))
    await helpers.store("test", "r.test", Credential("", identity_token="refresh"))
    assert [(action, json.loads(given)) for action, given in helper.calls()] == [
        ("store", {"ServerURL": "https://index.docker.io/v1/", "Username": "me", "Secret": "hunter2"}),
        ("store", {"ServerURL": "r.test", "Username": "<token>", "Secret": "refresh"}),
    ]
    assert await helpers.erase("test", "r.test") is True
    assert await helpers.erase("test", "absent.test") is False


async def test_a_helper_that_does_not_store_is_an_error(helper_program: Make) -> None:
    helper = helper_program("test", fails="hunter2")
    with pytest.raises(CredentialError, match=r"docker-credential-test store: it failed for r\.test") as caught:
        await CredentialHelpers(helper.environ).store("test", "r.test", Credential("me", "hunter2"))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(CredentialError, match="docker-credential-test erase: it failed"):
        await CredentialHelpers(helper.environ).erase("test", "r.test")
