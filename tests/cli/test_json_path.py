"""Paths into JSON values: names, indexes, all of something; and what is said of those that lead to nothing."""

from __future__ import annotations

import pytest

from fastoci.cli.json_path import PathError, parse, select

VALUE = {
    "config": {"Env": ["A=1", "B=2"], "Labels": {"org.test/a.b": "x", "it's": "y"}, "Cmd": None},
    "layers": [{"digest": "d1", "size": 1}, {"digest": "d2", "size": 2}],
    "ok": True,
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("config.Env", [["A=1", "B=2"]]),
        ("$.config.Env[0]", ["A=1"]),
        ("config.Env[-1]", ["B=2"]),
        ("layers[0].digest", ["d1"]),
        ("layers[*].digest", ["d1", "d2"]),
        ("layers.*.size", [1, 2]),
        ("config.Env[*]", ["A=1", "B=2"]),
        ("config.Labels['org.test/a.b']", ["x"]),
        ('config.Labels["it\'s"]', ["y"]),
        ("config['Env'][1]", ["B=2"]),
        ("['ok']", [True]),
        ("config.Labels.*", ["x", "y"]),
        ("$", [VALUE]),
        ("config.Cmd", [None]),
    ],
)
def test_a_path_leads_to_what_it_names(path: str, found: list[object]) -> None:
    assert list(select(VALUE, path)) == found


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("config.Nothing", "$.config has no 'Nothing'"),
        ("Nothing", "$ has no 'Nothing'; there are 'config', "),
        ("config.env", "did you mean 'Env'?"),
        ("layers[2]", "$.layers has 2 elements, and no [2]"),
        ("layers[-3]", "no [-3]"),
        ("layers.digest", "$.layers is an array, and no object"),
        ("config[0]", "$.config is an object, and no array"),
        ("ok.x", "$.ok is a boolean"),
        ("config.Cmd.x", "$.config.Cmd is null"),
        ("config.Env[0].x", "is a text"),
        ("layers[0].size[*]", "is a number: there is nothing in it"),
    ],
)
def test_a_path_that_leads_to_nothing_says_where_it_ends(path: str, said: str) -> None:
    with pytest.raises(PathError) as caught:
        list(select(VALUE, path))
    assert said in str(caught.value)


@pytest.mark.parametrize("path", ["", "a[", "a..b", "a[b]", "a[0", "a['x]", "a b", ".", "[]", "a[1234567890]"])
def test_a_text_that_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        parse(path)


def test_the_message_names_the_first_character_that_is_wrong() -> None:
    with pytest.raises(PathError, match=r"from character 3 on: '\[x\]'"):
        parse("ab[x]")
