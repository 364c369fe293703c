"""WWW-Authenticate: the rows of a shared table of challenges, and any text at all."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fastoci.registry.auth import challenge


def _cases(shared: Path) -> list[dict[str, object]]:
    cases = json.loads((shared / "corpora/tables/www_authenticate.json").read_text())["cases"]
    assert isinstance(cases, list)
    return cases


def test_the_rows_with_parameters_are_read_as_they_say(shared: Path) -> None:
    rows = [case for case in _cases(shared) if "scheme" in case]
    assert len(rows) > 12
    for case in rows:
        found = [c for c in challenge.parse(str(case["header"])) if c.scheme in ("basic", "bearer")]
        if case["scheme"] == "unknown":
            assert not found, case["name"]
            continue
        assert found[0].scheme == case["scheme"], case["name"]
        if case["params"] is not None:
            assert dict(found[0].params) == case["params"], case["name"]


def test_the_rows_that_are_not_valid_name_no_token_service(shared: Path) -> None:
    # Two rows are about what the realm is, not about how it is written: the authenticator refuses those.
    rows = [case for case in _cases(shared) if case.get("valid") is False]
    judged = {"own: realm gopher", "own: realm plain http from https registry"}
    for case in rows:
        found = [c for c in challenge.parse(str(case["header"])) if c.scheme == "bearer" and c.params.get("realm")]
        assert bool(found) == (case["name"] in judged), case["name"]


def test_the_rows_that_are_valid_are_read(shared: Path) -> None:
    for case in _cases(shared):
        if case.get("valid") is True:
            assert any(
                c.scheme in ("basic", "bearer") and "realm" in c.params for c in challenge.parse(str(case["header"]))
            )


def test_a_parameter_that_comes_twice_is_one_when_it_says_the_same() -> None:
    [found] = challenge.parse('Bearer realm="https://a/t",scope=s,realm="https://a/t",scope="s"')
    assert found.params == {"realm": "https://a/t", "scope": "s"}
    assert challenge.parse('Bearer realm="https://a/t",realm="https://b/t"') == ()


def test_a_cut_realm_makes_no_challenge() -> None:
    assert challenge.parse('Basic realm="cut') == ()


def test_several_challenges_keep_their_order_and_parameters() -> None:
    found = challenge.parse('Negotiate YII=, Basic realm="x, Bearer realm=y", Bearer realm="https://a/t",service=s')
    assert [c.scheme for c in found] == ["negotiate", "basic", "bearer"]
    assert found[1].params == {"realm": "x, Bearer realm=y"}
    assert found[2].params == {"realm": "https://a/t", "service": "s"}


@given(st.text(max_size=200) | st.text(alphabet='Bearer realm="\\,=a ', max_size=80))
def test_any_text_is_read_without_an_exception(header: str) -> None:
    challenge.parse(header)


def test_a_long_run_of_quotes_is_read_in_linear_time() -> None:
    challenge.parse('Bearer realm="' + '\\"' * 8000)
