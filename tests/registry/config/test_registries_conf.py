"""registries.conf and its drop-ins, key by key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.errors import FormatError
from fastoci.registry.config.registries_conf import Location, RegistriesConf, When, load, named, parse

FILE = Path("/etc/containers/registries.conf")


def _parse(text: str) -> RegistriesConf:
    return parse(text.encode(), FILE)


def _write(path: Path, *prefixes: str, location: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = (f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location or path.name}.test"\n' for prefix in prefixes)
    path.write_text("".join(tables))
    return path


def _origins(root: Path, uid: int, **environ: str) -> dict[str, str]:
    """Which location each prefix got: it is named after the file."""
    return {table.prefix: table.origin.location for table in load(environ, uid, root=root, only=named(environ)).tables}


def test_all_keys_are_read() -> None:
    (table,) = _parse(
        """
        unqualified-search-registries = ["docker.io"]
        short-name-mode = "enforcing"
        unknown = 5
        [aliases]
        alpine = "docker.io/library/alpine"
        [[registry]]
        prefix = "docker.io/"
        location = "r.test/hub/"
        insecure = true
        blocked = true
        unknown = {}
        [[registry.mirror]]
        location = "m.test:5000//"
        insecure = true
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "n.test"
        """
    ).tables
    assert (table.prefix, table.blocked, table.file) == ("docker.io", True, FILE)
    assert table.origin == Location("r.test/hub", insecure=True)
    assert table.mirrors == (Location("m.test:5000", True, When.TAG), Location("n.test"))


def test_credential_helpers_are_kept_for_those_who_ask_for_credentials() -> None:
    assert _parse('credential-helpers = ["containers-auth.json", "pass"]').credential_helpers == (
        "containers-auth.json",
        "pass",
    )


def test_the_last_file_that_names_credential_helpers_counts(tmp_path: Path) -> None:
    folder = tmp_path / "etc/containers/registries.conf.d"
    folder.mkdir(parents=True)
    for name, text in (("1", '["a"]'), ("2", '["b", "c"]'), ("3", "[]")):
        (folder / f"{name}.conf").write_text(f"credential-helpers = {text}")
    assert load({}, 0, root=tmp_path).credential_helpers == ("b", "c")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[registry]", "not TOML.*line 1"),
        ("a = " + "[" * 5000, "not TOML"),
        ("\xff", "not TOML"),
        ('[registries.search]\nregistries = ["docker.io"]', r"old form.*\[\[registry\]\]"),
        ('[registries.block]\nregistries = ["docker.io"]', r"old form.*\[\[registry\]\]"),
        ("[registry]", "two brackets"),
        ("registry = [5]", "two brackets"),
        ("[[registry]]", "number 1 has no location"),
        ('[[registry]]\nlocation = "a.test"\n[[registry]]\nprefix = "b.test"', "number 2 has no location"),
        ("[[registry]]\nlocation = 5", "location is not a string"),
        ('[[registry]]\nlocation = "https://a.test"', "location has a scheme"),
        ('[[registry]]\nlocation = "a.test"\ninsecure = "no"', "insecure is neither true nor false"),
        ('[[registry]]\nlocation = "a.test"\npull-from-mirror = "all"', "belongs to a"),
        ('[[registry]]\nlocation = "a.test"\n[[registry.mirror]]\n', "mirror]] number 1 has no location"),
        (
            '[[registry]]\nlocation = "a.test"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "never"',
            "'never'; write all",
        ),
        (
            '[[registry]]\nlocation = "a.test"\nmirror-by-digest-only = true\n'
            '[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "all"',
            "exclude each other",
        ),
        (
            '[[registry]]\nlocation = "a.test"\n[[registry]]\nprefix = "b"\nlocation = "a.test"\nblocked = true',
            "'a.test'.*'b'.*differ",
        ),
        ('credential-helpers = "pass"', "credential-helpers is not a list"),
    ],
)
def test_a_broken_file_is_named_with_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(FormatError, match=problem) as caught:
        parse(text.encode("latin-1"), FILE)
    assert str(caught.value).startswith(str(FILE))


def test_an_empty_old_form_is_nothing() -> None:
    assert _parse("[registries.search]\nregistries = []") == RegistriesConf()


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("r.test/a", "r.test"),
        ("r.test/team/a", "r.test/team"),
        ("r.test/teams/a", "r.test"),
        ("r.test/team", "r.test/team"),
        ("r.test:5000/a", "r.test"),
        ("a.r.test/a", "*.r.test"),
        ("a.b.r.test:5000/x/a", "*.r.test"),
        ("exact.r.test/a", "exact.r.test"),
        ("xr.test/a", None),
        ("r.test.evil/a", None),
        ("a.r.test.evil/a", None),
        ("evil/a.r.test/a", None),
    ],
)
def test_the_longest_prefix_that_ends_at_a_separator_is_found(name: str, prefix: str | None) -> None:
    prefixes = ("r.test", "r.test/team", "*.r.test", "exact.r.test")
    conf = _parse("".join(f'[[registry]]\nprefix = "{each}"\nlocation = "l.test"\n' for each in prefixes))
    found = conf.find(name)
    assert (found.prefix if found else None) == prefix


def test_the_user_s_file_hides_the_system_s_and_etc_hides_usr(tmp_path: Path) -> None:
    _write(tmp_path / "usr/share/containers/registries.conf", "a", location="usr")
    assert _origins(tmp_path, 0) == {"a": "usr.test"}
    _write(tmp_path / "etc/containers/registries.conf", "b", location="etc")
    assert _origins(tmp_path, 0) == {"b": "etc.test"}
    _write(tmp_path / "home/.config/containers/registries.conf", "c", location="home")
    assert _origins(tmp_path, 0, HOME=str(tmp_path / "home")) == {"c": "home.test"}
    _write(tmp_path / "xdg/containers/registries.conf", "d", location="xdg")
    environ = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert _origins(tmp_path, 0, **environ) == {"d": "xdg.test"}
    assert _origins(tmp_path, 0) == {"b": "etc.test"}


def test_drop_ins_replace_tables_in_the_order_of_their_names(tmp_path: Path) -> None:
    _write(tmp_path / "etc/containers/registries.conf", "a", "main", location="main")
    _write(tmp_path / "etc/containers/registries.conf.d/20.conf", "a", "b")
    _write(tmp_path / "usr/share/containers/registries.conf.d/10.conf", "a", "b", "c")
    _write(tmp_path / "etc/containers/registries.conf.d/90.conf.bak", "a")
    assert _origins(tmp_path, 0) == {"main": "main.test", "a": "20.conf.test", "b": "20.conf.test", "c": "10.conf.test"}


def _dropped(root: Path) -> Iterator[Path]:
    """The places of one drop-in, from the least to the most preferred, for user 1000."""
    for base in (root / "usr/share/containers", root / "etc/containers"):
        yield base / "registries.conf.d/x.conf"
        yield base / "registries.rootless.conf.d/x.conf"
        yield base / "registries.rootless.conf.d/1000/x.conf"
    yield root / "home/.config/containers/registries.conf.d/x.conf"


def test_a_drop_in_s_name_counts_once_the_nearest_to_the_user_first(tmp_path: Path) -> None:
    for number, path in enumerate(_dropped(tmp_path)):
        _write(path, f"p{number}")
        assert list(_origins(tmp_path, 1000, HOME=str(tmp_path / "home"))) == [f"p{number}"]
    assert list(_origins(tmp_path, 1001)) == ["p4"]
    _write(tmp_path / "etc/containers/registries.rootful.conf.d/x.conf", "root")
    assert list(_origins(tmp_path, 0)) == ["root"]
    assert list(_origins(tmp_path, 1001)) == ["p4"]


def test_a_named_file_is_the_only_one_and_the_override_comes_last(tmp_path: Path) -> None:
    _write(tmp_path / "etc/containers/registries.conf", "etc")
    _write(tmp_path / "etc/containers/registries.conf.d/x.conf", "drop-in")
    only = str(_write(tmp_path / "named", "a", "b"))
    over = str(_write(tmp_path / "over", "b"))
    assert _origins(tmp_path, 0, CONTAINERS_REGISTRIES_CONF=only) == {"a": "named.test", "b": "named.test"}
    assert _origins(tmp_path, 0, REGISTRIES_CONFIG_PATH=only) == {"a": "named.test", "b": "named.test"}
    environ = {"CONTAINERS_REGISTRIES_CONF": only, "CONTAINERS_REGISTRIES_CONF_OVERRIDE": over}
    assert _origins(tmp_path, 0, **environ) == {"a": "named.test", "b": "over.test"}
    assert set(_origins(tmp_path, 0, CONTAINERS_REGISTRIES_CONF_OVERRIDE=over)) == {"b", "etc", "drop-in"}
    assert named({"CONTAINERS_REGISTRIES_CONF": "a", "REGISTRIES_CONFIG_PATH": "b"}) == Path("a")
    assert named({"CONTAINERS_REGISTRIES_CONF": "", "REGISTRIES_CONFIG_PATH": ""}) is None


def test_conflicts_between_files_are_found_and_replaced_tables_have_none(tmp_path: Path) -> None:
    _write(tmp_path / "etc/containers/registries.conf", "a", location="same")
    other = tmp_path / "etc/containers/registries.conf.d/x.conf"
    _write(other, "b", location="same")
    other.write_text(other.read_text() + "blocked = true\n")
    with pytest.raises(FormatError, match=r"x\.conf: .*make them alike"):
        load({}, 0, root=tmp_path)
    other.write_text(other.read_text().replace('"b"', '"a"'))
    (table,) = load({}, 0, root=tmp_path).tables
    assert table.blocked


def test_only_a_file_asked_for_by_name_must_be_there(tmp_path: Path) -> None:
    assert load({}, 0, root=tmp_path) == RegistriesConf()
    for environ in ({"CONTAINERS_REGISTRIES_CONF": "/absent"}, {"CONTAINERS_REGISTRIES_CONF_OVERRIDE": "/absent"}):
        with pytest.raises(FormatError, match=r"/absent: cannot read.*No such file"):
            load(environ, 0, root=tmp_path, only=named(environ))
    (tmp_path / "etc/containers/registries.conf").mkdir(parents=True)
    with pytest.raises(FormatError, match="cannot read"):
        load({}, 0, root=tmp_path)


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(FormatError, match="larger than"):
        load({}, 0, root=Path("/nowhere"), only=Path("/dev/zero"))
