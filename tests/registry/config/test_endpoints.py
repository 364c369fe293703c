"""Where an image is asked for, out of all forms of configuration, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastoci.errors import DeniedError, FormatError, ReferenceSyntaxError
from fastoci.image.reference import Reference
from fastoci.registry.config.endpoints import Mirrors, endpoints, load
from fastoci.registry.http.tls import Tls


@pytest.mark.parametrize(
    ("name", "base", "path", "domain"),
    [
        ("redis", "https://registry-1.docker.io/v2", "library/redis", "docker.io"),
        ("r.test/a/b", "https://r.test/v2", "a/b", "r.test"),
        ("r.test:80/a", "https://r.test:80/v2", "a", "r.test:80"),
        ("localhost/a", "http://localhost/v2", "a", "localhost"),
        ("127.0.0.1:5000/a", "http://127.0.0.1:5000/v2", "a", "127.0.0.1:5000"),
        ("127.0.0.1:443/a", "https://127.0.0.1/v2", "a", "127.0.0.1:443"),
        ("[::1]:5000/a", "http://[::1]:5000/v2", "a", "[::1]:5000"),
    ],
)
def test_without_configuration_the_registry_itself_is_asked(name: str, base: str, path: str, domain: str) -> None:
    (endpoint,) = endpoints(Reference.parse(name), Mirrors(), tls_verify=True)
    assert (str(endpoint.base), endpoint.path, endpoint.domain) == (base, path, domain)
    assert endpoint.origin
    assert endpoint.resolve
    assert endpoint.pull
    assert endpoint.tls.verify
    assert endpoint.either_scheme == base.startswith("http:")  # this machine may speak TLS as well


@pytest.mark.parametrize("name", ["r.test/a", "127.0.0.1:443/a", "localhost/a"])
def test_without_verification_the_other_scheme_is_the_second_try(name: str) -> None:
    (endpoint,) = endpoints(Reference.parse(name), Mirrors(), tls_verify=False)
    assert endpoint.either_scheme
    assert not endpoint.tls.verify


@pytest.mark.parametrize(
    ("name", "first"), [("localhost/a", "https://localhost/v2"), ("[::1]:5/a", "https://[::1]:5/v2")]
)
def test_where_there_are_certificates_for_this_machine_tls_is_the_first_try(
    name: str, first: str, tmp_path: Path
) -> None:
    _touch(tmp_path, "ca.crt")
    (endpoint,) = endpoints(Reference.parse(name), load({}, 0, cert_dir=tmp_path, root=tmp_path), tls_verify=True)
    assert (str(endpoint.base), endpoint.either_scheme) == (first, True)


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("r.test", ["r.test/a", "R.test/a", "r.test:5000/a", "r.test:443/a"]),
        ("R.test:5000", ["r.test:5000/a"]),
        ("r.test:443", ["r.test:443/a"]),
        ("docker.io", ["redis"]),
        ("index.docker.io", ["redis"]),
        ("registry-1.docker.io", ["redis"]),
        ("[fd00::1]:5000", ["[fd00::1]:5000/a"]),
        ("other.test", []),
    ],
)
def test_a_host_may_lead_into_private_networks_by_the_name_that_the_user_gives_it(
    tmp_path: Path, host: str, names: list[str]
) -> None:
    config = load({}, 0, root=tmp_path, private_redirects=[host])
    asked = ("r.test/a", "R.test/a", "r.test:5000/a", "r.test:443/a", "redis", "[fd00::1]:5000/a", "xr.test/a")
    found = [name for name in asked if endpoints(Reference.parse(name), config, tls_verify=True)[0].private_redirects]
    assert found == names


@pytest.mark.parametrize("host", ["https://r.test", "r.test/a", "host", "", "*.r.test", "r.test:x"])
def test_what_may_lead_into_private_networks_is_a_host(tmp_path: Path, host: str) -> None:
    with pytest.raises(ReferenceSyntaxError, match="is not a registry"):
        load({}, 0, root=tmp_path, private_redirects=[host])


def test_a_mirror_and_its_registry_lead_into_private_networks_each_by_itself(tmp_path: Path) -> None:
    text = '[host."https://m.test"]\nallow_private_redirects = true\n[host."https://n.test:5000"]\n'
    _hosts(tmp_path / "etc/containerd/certs.d", "r.test", text)
    for hosts, expected in (((), [True, False, False]), (("n.test",), [True, True, False])):
        config = load({}, 0, root=tmp_path, private_redirects=hosts)
        found = endpoints(Reference.parse("r.test/a"), config, tls_verify=True)
        assert [each.private_redirects for each in found] == expected


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _hosts(place: Path, domain: str, text: str) -> None:
    (place / domain).mkdir(parents=True, exist_ok=True)
    (place / domain / "hosts.toml").write_text(text)


def _conf(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _bases(name: str, config: Mirrors) -> list[str]:
    return [str(endpoint.base) for endpoint in endpoints(Reference.parse(name), config, tls_verify=True)]


MIRRORED = """
[[registry]]
prefix = "r.test"
location = "inner.test:5000/r"
[[registry.mirror]]
location = "m.test"
insecure = true
[[registry.mirror]]
location = "r.test/copies"
pull-from-mirror = "digest-only"
"""


def test_a_table_gives_mirrors_and_then_its_location(tmp_path: Path) -> None:
    config = load({}, 0, registries=_conf(tmp_path / "conf", MIRRORED), root=tmp_path)
    first, second, last = endpoints(Reference.parse("r.test/team/app"), config, tls_verify=True)
    assert (str(first.base), first.path, first.domain) == ("https://m.test/v2", "team/app", "m.test")
    assert (first.origin, first.tls.verify, first.either_scheme) == (False, False, True)
    assert (str(second.base), second.path, second.domain) == ("https://r.test/v2", "copies/team/app", "r.test")
    assert (second.origin, second.resolve, second.pull, second.tls.verify, second.either_scheme) == (
        True,
        False,
        True,
        True,
        False,
    )
    assert (str(last.base), last.path, last.domain) == ("https://inner.test:5000/v2", "r/team/app", "inner.test:5000")
    assert (last.origin, last.resolve, last.query) == (False, True, ())


def test_docker_hub_is_the_origin_under_each_of_its_names(tmp_path: Path) -> None:
    text = """
    [[registry]]
    prefix = "docker.io"
    location = "registry-1.docker.io"
    [[registry.mirror]]
    location = "docker.io"
    """
    config = load({}, 0, registries=_conf(tmp_path / "conf", text), root=tmp_path)
    for endpoint in endpoints(Reference.parse("redis"), config, tls_verify=True):
        assert (str(endpoint.base), endpoint.path) == ("https://registry-1.docker.io/v2", "library/redis")
        assert (endpoint.domain, endpoint.origin) == ("docker.io", True)


@pytest.mark.parametrize("location", ["m", "mirrors/hub", "r.test/UPPER", "docker.io/x/../y"])
def test_a_location_that_makes_no_name_is_an_error_that_names_the_file(tmp_path: Path, location: str) -> None:
    text = f'[[registry]]\nprefix = "r.test"\nlocation = "{location}"'
    config = load({}, 0, registries=_conf(tmp_path / "conf", text), root=tmp_path)
    with pytest.raises(FormatError, match=r"/conf: .*'r\.test'.*not of the form host"):
        endpoints(Reference.parse("r.test/a"), config, tls_verify=True)
    assert _bases("s.test/a", config) == ["https://s.test/v2"]


def test_a_blocked_registry_is_denied_and_the_file_named(tmp_path: Path) -> None:
    text = '[[registry]]\nprefix = "r.test"\nlocation = "other.test"\nblocked = true'
    config = load({}, 0, registries=_conf(tmp_path / "conf", text), root=tmp_path)
    with pytest.raises(DeniedError, match=r"r\.test/a: blocked, .*/conf"):
        endpoints(Reference.parse("r.test/a"), config, tls_verify=True)


def test_mirrors_that_have_digests_only_do_not_help_a_blocked_tag(tmp_path: Path) -> None:
    text = """
    [[registry]]
    location = "r.test"
    blocked = true
    mirror-by-digest-only = true
    [[registry.mirror]]
    location = "m.test"
    """
    config = load({}, 0, registries=_conf(tmp_path / "conf", text), root=tmp_path)
    assert _bases(f"r.test/a@sha256:{'0' * 64}", config) == ["https://m.test/v2"]
    with pytest.raises(DeniedError):
        endpoints(Reference.parse("r.test/a:1"), config, tls_verify=True)


def test_hosts_that_may_not_pull_are_nobody(tmp_path: Path) -> None:
    _hosts(tmp_path, "r.test", 'server = "https://r.test"\ncapabilities = ["push"]')
    with pytest.raises(DeniedError, match=r"r\.test/hosts\.toml"):
        endpoints(Reference.parse("r.test/a"), load({}, 0, hosts_dir=tmp_path, root=tmp_path), tls_verify=True)


def test_a_host_of_hosts_toml_is_an_endpoint(tmp_path: Path) -> None:
    text = """
    server = "https://r.test:443"
    [host."http://m.test:5000/x"]
    capabilities = ["pull"]
    ca = "ca.pem"
    dial_timeout = "2s"
    [host."https://n.test"]
    skip_verify = true
    override_path = true
    """
    _hosts(tmp_path, "r.test", text)
    config = load({}, 0, hosts_dir=tmp_path, root=tmp_path)
    first, second, server = endpoints(Reference.parse("r.test/team/app"), config, tls_verify=True)
    # Written with http, but told how to speak TLS: TLS comes first.
    assert (str(first.base), first.either_scheme) == ("https://m.test:5000/x/v2", True)
    assert (first.resolve, first.pull, first.connect_s) == (False, True, 2.0)
    assert (first.query, first.origin, first.domain) == ((("ns", "r.test"),), False, "m.test:5000")
    assert first.tls == Tls(True, (tmp_path / "r.test/ca.pem",))
    assert (str(second.base), second.tls, second.either_scheme) == ("https://n.test", Tls(False), False)
    # The same place as the namespace, though not the same text: its credentials, and the query as containerd sends it.
    assert (str(server.base), server.origin, server.domain) == ("https://r.test/v2", True, "r.test")
    assert server.query == (("ns", "r.test"),)
    assert {each.path for each in (first, second, server)} == {"team/app"}


def test_without_verification_no_endpoint_verifies(tmp_path: Path) -> None:
    _hosts(tmp_path / "hosts", "r.test", '[host."https://m.test"]\nskip_verify = false')
    config = load({}, 0, hosts_dir=tmp_path / "hosts", root=tmp_path)
    mirror, server = endpoints(Reference.parse("r.test/a"), config, tls_verify=False)
    assert (mirror.tls.verify, mirror.either_scheme) == (False, False)
    assert (server.tls.verify, server.either_scheme) == (False, True)


def test_a_server_whose_certificate_is_not_checked_is_not_asked_in_plain(tmp_path: Path) -> None:
    _hosts(tmp_path, "r.test", "skip_verify = true")
    config = load({}, 0, hosts_dir=tmp_path, root=tmp_path)
    (server,) = endpoints(Reference.parse("r.test/a"), config, tls_verify=True)
    assert (server.tls.verify, server.either_scheme, str(server.base)) == (False, False, "https://r.test/v2")


def test_a_host_s_own_file_wins_then_a_table_then_the_default_file(tmp_path: Path) -> None:
    place = tmp_path / "etc/containerd/certs.d"
    _hosts(place, "own.test", '[host."https://own-mirror.test"]')
    _hosts(place, "_default", '[host."https://default-mirror.test"]')
    _hosts(place, "empty.test", "")
    _touch(tmp_path, "etc/docker/certs.d/certs.test/ca.crt", "etc/containerd/certs.d/alone.test/ca.crt")
    tables = "".join(
        f'[[registry]]\nlocation = "{name}.test"\n[[registry.mirror]]\nlocation = "table-mirror.test"\n'
        for name in ("own", "table", "empty", "certs")
    )
    _conf(tmp_path / "etc/containers/registries.conf", tables)
    config = load({}, 0, root=tmp_path)
    firsts = {
        name: _bases(f"{name}.test/a", config)[0] for name in ("own", "table", "empty", "certs", "other", "alone")
    }
    assert firsts == {
        "own": "https://own-mirror.test/v2",
        "table": "https://table-mirror.test/v2",
        "empty": "https://table-mirror.test/v2",
        "certs": "https://table-mirror.test/v2",
        "other": "https://default-mirror.test/v2",
        "alone": "https://alone.test/v2",
    }


def test_what_registries_conf_blocks_stays_blocked_beside_hosts_toml(tmp_path: Path) -> None:
    place = tmp_path / "etc/containerd/certs.d"
    _hosts(place, "r.test", '[host."https://m.test"]')
    _hosts(place, "s.test", 'server = "https://s.test"')
    text = "".join(f'[[registry]]\nlocation = "{name}.test"\nblocked = true\n' for name in "rs")
    conf = _conf(tmp_path / "etc/containers/registries.conf", text)
    config = load({}, 0, root=tmp_path)
    assert _bases("r.test/a", config) == ["https://m.test/v2"]
    with pytest.raises(DeniedError, match=str(conf)):
        endpoints(Reference.parse("s.test/a"), config, tls_verify=True)


def test_naming_one_form_leaves_the_usual_files_of_the_other_unread(tmp_path: Path) -> None:
    _hosts(tmp_path / "etc/containerd/certs.d", "r.test", '[host."https://hosts.test"]')
    _conf(tmp_path / "etc/containers/registries.conf", '[[registry]]\nprefix = "r.test"\nlocation = "etc.test"')
    conf = _conf(tmp_path / "conf", '[[registry]]\nprefix = "r.test"\nlocation = "conf.test"')
    (tmp_path / "empty").mkdir()
    assert _bases("r.test/a", load({}, 0, root=tmp_path))[0] == "https://hosts.test/v2"
    assert _bases("r.test/a", load({}, 0, registries=conf, root=tmp_path)) == ["https://conf.test/v2"]
    for name in ("REGISTRIES_CONFIG_PATH", "CONTAINERS_REGISTRIES_CONF"):
        environ = {name: str(conf)}
        assert _bases("r.test/a", load(environ, 0, root=tmp_path)) == ["https://conf.test/v2"]
    assert _bases("r.test/a", load({}, 0, hosts_dir=tmp_path / "empty", root=tmp_path)) == ["https://r.test/v2"]
    both = load(environ, 0, hosts_dir=tmp_path / "empty", root=tmp_path)
    assert _bases("r.test/a", both) == ["https://conf.test/v2"]


def test_the_user_s_hosts_come_before_the_system_s_and_root_has_none(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home")}
    _hosts(tmp_path / "home/.config/containerd/certs.d", "r.test", '[host."https://home.test"]')
    _hosts(tmp_path / "etc/docker/certs.d", "r.test", '[host."https://docker.test"]')
    assert _bases("r.test/a", load(environ, 1000, root=tmp_path))[0] == "https://home.test/v2"
    assert _bases("r.test/a", load(environ, 0, root=tmp_path))[0] == "https://docker.test/v2"


def test_a_broken_hosts_toml_concerns_its_host_alone(tmp_path: Path) -> None:
    _hosts(tmp_path, "r.test", "[host")
    config = load({}, 0, hosts_dir=tmp_path, root=tmp_path)
    assert _bases("s.test/a", config) == ["https://s.test/v2"]
    with pytest.raises(FormatError, match=r"r\.test/hosts\.toml"):
        endpoints(Reference.parse("r.test/a"), config, tls_verify=True)


def test_certificates_come_from_the_first_directory_that_has_the_host(tmp_path: Path) -> None:
    def found(name: str) -> list[str]:
        (endpoint,) = endpoints(Reference.parse(name), load({}, 0, root=tmp_path), tls_verify=True)
        return [str(path.relative_to(tmp_path)) for path in endpoint.tls.ca]

    _touch(tmp_path, "etc/docker/certs.d/r.test/docker.crt", "etc/docker/certs.d/docker.io/hub.crt")
    _touch(tmp_path, "etc/containerd/certs.d/r.test_5000_/containerd.crt")
    assert found("r.test/a") == ["etc/docker/certs.d/r.test/docker.crt"]
    _touch(tmp_path, "etc/containers/certs.d/r.test/containers.crt")
    assert found("r.test/a") == ["etc/containers/certs.d/r.test/containers.crt"]
    assert found("r.test:443/a") == []
    assert found("r.test:5000/a") == ["etc/containerd/certs.d/r.test_5000_/containerd.crt"]
    assert found("redis") == ["etc/docker/certs.d/docker.io/hub.crt"]


def test_one_directory_of_certificates_is_for_every_host(tmp_path: Path) -> None:
    _touch(tmp_path, "etc/docker/certs.d/r.test/docker.crt", "mine/ca.crt", "mine/me.cert", "mine/me.key")
    mine = tmp_path / "mine"
    conf = _conf(tmp_path / "conf", MIRRORED)
    config = load({}, 0, registries=conf, cert_dir=mine, root=tmp_path)
    for endpoint in endpoints(Reference.parse("r.test/a"), config, tls_verify=True):
        assert endpoint.tls.ca == (mine / "ca.crt",)
        assert endpoint.tls.client == ((mine / "me.cert", mine / "me.key"),)


def test_a_directory_asked_for_by_name_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="absent: this is not a directory"):
        load({}, 0, hosts_dir=tmp_path / "absent", root=tmp_path)
    with pytest.raises(FormatError, match="absent: this is not a directory"):
        load({}, 0, cert_dir=tmp_path / "absent", root=tmp_path)


def test_port_80_speaks_http_whatever_is_said_of_tls(tmp_path: Path) -> None:
    _hosts(tmp_path, "r.test", '[host."http://m.test:80"]\nskip_verify = true')
    config = load({}, 0, hosts_dir=tmp_path, root=tmp_path)
    mirror, _ = endpoints(Reference.parse("r.test/a"), config, tls_verify=True)
    assert (mirror.base.scheme, mirror.base.port, mirror.either_scheme) == ("http", 80, False)


def test_the_namespace_by_http_is_still_the_origin(tmp_path: Path) -> None:
    _hosts(tmp_path, "r.test", 'server = "http://r.test"\n[host."https://r.test:5000"]')
    config = load({}, 0, hosts_dir=tmp_path, root=tmp_path)
    other_port, server = endpoints(Reference.parse("r.test/a"), config, tls_verify=True)
    assert (server.origin, server.domain, server.query, str(server.base)) == (True, "r.test", (), "http://r.test/v2")
    assert (other_port.origin, other_port.domain, other_port.query) == (False, "r.test:5000", (("ns", "r.test"),))


def test_certificates_beside_a_hosts_toml_are_not_used(tmp_path: Path) -> None:
    _hosts(tmp_path, "r.test", 'server = "https://r.test"')
    _touch(tmp_path, "r.test/ca.crt")
    config = load({}, 0, hosts_dir=tmp_path, root=tmp_path / "elsewhere")
    (server,) = endpoints(Reference.parse("r.test/a"), config, tls_verify=True)
    assert server.tls == Tls()
