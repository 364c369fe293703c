from __future__ import annotations

import tomllib
from typing import Any

import pytest

from fastoci.configure.toml_text import Place, parse, tables
from fastoci.errors import ConfigError

IMPORTS = Place("config.toml", (), "imports", by="us")
STORES = Place("storage.conf", ("storage", "options"), "additionalimagestores", by="us")

TEXTS = {
    "nothing": (IMPORTS, ""),
    "a version": (IMPORTS, "version = 2 # two\n# a comment\nroot = '/a'\n[grpc]\naddress = 'x'\n"),
    "an array with comments": (IMPORTS, '# c\nimports = [\'/a/*.toml\', # x ] "\n  "b\\"]", ]\n[a]\nimports = [1]\n'),
    "a table and no end of line": (IMPORTS, "[grpc]\na=1"),
    "lines that end as in DOS": (IMPORTS, "version = 2\r\nimports = [\r\n  'a',\r\n]\r\n"),
    "no table": (STORES, "[storage]\ndriver='o'\n"),
    "a table without the key": (
        STORES,
        "[storage]\n[ storage . options ] # o\n# additionalimagestores = []\nsize=''\n",
    ),
    "a table with the key": (STORES, '[storage.options]\nadditionalimagestores = [\n  "/a",\n  # c\n]\n[b]\nc=1\n'),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_string_comes_into_an_array_and_goes_again_and_nothing_else_changes(name: str) -> None:
    place, text = TEXTS[name]
    with_it = place.with_string(text.encode(), "/x/y.toml")
    values = place.values(parse(with_it, "f"))
    assert values == [*place.values(tomllib.loads(text)), "/x/y.toml"]
    assert place.with_string(with_it, "/x/y.toml") == with_it
    longer = with_it.decode()
    pieces = ((longer[:at], longer[at + len(longer) - len(text) :]) for at in range(len(text) + 1))
    assert any(before + behind == text for before, behind in pieces), "one piece was put in"
    assert place.without_string(with_it, "/x/y.toml").decode() == text
    assert place.without_string(text.encode(), "/x/y.toml").decode() == text


def test_a_string_goes_out_of_an_array_that_somebody_has_made_longer() -> None:
    text = IMPORTS.with_string(b"version = 3\n", "/x").decode().replace('["/x"]', '["/x", "/z"]')
    assert tomllib.loads(IMPORTS.without_string(text.encode(), "/x").decode()) == {"version": 3, "imports": ["/z"]}


@pytest.mark.parametrize(
    "text",
    ["storage.options.additionalimagestores = ['/a']\n", "[storage]\noptions = { additionalimagestores = ['/a'] }\n"],
    ids=["dotted", "inline"],
)
def test_a_form_that_is_not_edited_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"add .* yourself"):
        STORES.with_string(text.encode(), "/x")
    with pytest.raises(ConfigError, match=r"take .* yourself"):
        STORES.without_string(text.encode(), "/a")


def test_a_line_inside_a_longer_string_is_not_taken_for_the_array() -> None:
    text = "a = '''\nimports = [\n'x']\n'''\nimports = ['b']\n"
    with pytest.raises(ConfigError, match="yourself"):
        IMPORTS.with_string(text.encode(), "/x")


@pytest.mark.parametrize("data", [b"a = \n", b"\xff", b"imports = 3\n", b"imports = [3]\n"])
def test_what_is_not_an_array_of_strings_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml"):
        IMPORTS.with_string(data, "/x")


def test_a_mistake_is_said_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"f is not TOML: .*line 2"):
        parse(b"a = 1\nb = \n", "f")


def test_tables_say_what_they_were_given() -> None:
    document: dict[str, dict[str, Any]] = {
        "x": {"a.b": {"n": [1, 2.5, True, []], "s": 'q"\\\n\x7fé', "t": {"u": {"v": [{"w": 1}]}}, "e": {}}},
        "y": {"list": [{"p": "q"}, {"p": ["z"]}], "last": 1},
    }
    assert tomllib.loads(tables({("x", "a.b"): document["x"]["a.b"], ("y",): dict(document["y"])})) == document
