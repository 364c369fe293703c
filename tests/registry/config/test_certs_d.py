"""Certificates in certs.d, by host and port."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastoci.errors import FormatError
from fastoci.registry.config.certs_d import Folder, config_directories, read, scan


def test_files_are_authorities_or_pairs_by_their_names() -> None:
    folder = Folder(Path("/c"), ("a.cert", "a.key", "b.x.cert", "b.x.key", "one.crt", "readme", "two.crt"))
    ca, client = folder.certificates()
    assert ca == (Path("/c/one.crt"), Path("/c/two.crt"))
    assert client == ((Path("/c/a.cert"), Path("/c/a.key")), (Path("/c/b.x.cert"), Path("/c/b.x.key")))


@pytest.mark.parametrize(("name", "missing"), [("a.cert", "a.key"), ("a.key", "a.cert")])
def test_half_a_pair_is_an_error_that_names_the_other_half(name: str, missing: str) -> None:
    with pytest.raises(FormatError, match=f"^/c/{name}: {missing} is missing") as caught:
        Folder(Path("/c"), (name,)).certificates()
    assert "*.crt" in str(caught.value)


def test_the_directories_depend_on_who_asks() -> None:
    root = Path("/")
    assert [str(place) for place in config_directories({"HOME": "/home/u"}, 1000, root)] == [
        "/home/u/.config/containers/certs.d",
        "/etc/containers/certs.rootless.d/1000",
        "/etc/containers/certs.rootless.d",
        "/etc/containers/certs.d",
        "/usr/share/containers/certs.rootless.d/1000",
        "/usr/share/containers/certs.rootless.d",
        "/usr/share/containers/certs.d",
        "/etc/docker/certs.d",
    ]
    assert [str(place) for place in config_directories({"XDG_CONFIG_HOME": "/x"}, 0, root)][:3] == [
        "/x/containers/certs.d",
        "/etc/containers/certs.rootful.d",
        "/etc/containers/certs.d",
    ]
    assert str(next(config_directories({}, 0, root))) == "/etc/containers/certs.rootful.d"


def test_a_host_without_files_is_a_host_and_a_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "r.test").mkdir()
    (tmp_path / "readme").touch()
    assert scan(tmp_path) == {"r.test": Folder(tmp_path / "r.test", ())}
    assert scan(tmp_path / "absent") == {}
    assert read(tmp_path / "absent") is None
