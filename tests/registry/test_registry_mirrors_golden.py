"""What skopeo and containerd ask for with the same configuration files, recorded on loopback, beside ``endpoints``."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import string
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from fastoci.errors import DeniedError, FormatError
from fastoci.image.reference import Reference
from fastoci.registry.endpoints import Endpoint, Mirrors, endpoints, load

Asked = tuple[str, str, str]  # which server, path, query

CONFIG, LAYER = b"{}", b"layer"
OCI = "application/vnd.oci.image"


def _descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _descriptor("config.v1+json", CONFIG),
        "layers": [_descriptor("layer.v1.tar", LAYER)],
    }
).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
BODIES = {f"sha256:{hashlib.sha256(data).hexdigest()}": data for data in (CONFIG, LAYER, MANIFEST)} | {"1": MANIFEST}


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10
    server: _Server

    def do_GET(self) -> None:
        url = URL(self.path, encoded=True)
        last = url.path.rpartition("/")[2]
        body = BODIES.get(last) if self.server.serves else None
        if url.path == "/v2/":
            body = b"{}"  # the question whether this is a registry
        elif last in BODIES:
            self.server.asked.append((self.server.name, url.path, url.query_string))
        self.send_response(404 if body is None else 200)
        if body is MANIFEST:
            self.send_header("Content-Type", f"{OCI}.manifest.v1+json")
            self.send_header("Docker-Content-Digest", DIGEST)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # so that closing it waits for the answers

    def __init__(self, name: str, asked: list[Asked]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.asked, self.serves = name, asked, False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A TLS greeting, which both tools try first: no news."""


class Recorder:
    """Servers A, B and C that note who asks for what; they have nothing, unless told to serve."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.servers = {name: _Server(name, self.asked) for name in "ABC"}
        self.hosts = {name: f"127.0.0.1:{server.server_port}" for name, server in self.servers.items()}

    def fill(self, text: str) -> str:
        """A configuration with the servers' addresses in the places of $A, $B and $C."""
        return string.Template(text).substitute(self.hosts)

    def name(self, endpoint: Endpoint) -> str:
        """Which server an endpoint is; empty for other hosts."""
        authority = f"{endpoint.base.host}:{endpoint.base.port}"
        return next((name for name, host in self.hosts.items() if host == authority), "")

    def expect(self, found: tuple[Endpoint, ...], folder: str, target: str) -> list[Asked]:
        """The requests that these endpoints stand for, at the servers of the recorder."""
        return [
            (name, f"{endpoint.base.path}/{endpoint.path}/{folder}/{target}", str(URL.build(query=endpoint.query))[1:])
            for endpoint in found
            if (name := self.name(endpoint))
        ]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in recorder.servers.values()]
    for thread in threads:
        thread.start()
    yield recorder
    for server in recorder.servers.values():
        server.shutdown()
        server.server_close()
    for thread in threads:
        thread.join()


def _once(asked: list[Asked]) -> list[Asked]:
    """Without repetitions: a HEAD before a GET, or a second try."""
    return list(dict.fromkeys(asked))


def _ask(reference: str, config: Mirrors) -> tuple[Endpoint, ...]:
    """Those who may be asked for what the reference names; nobody when it is blocked, or renamed to what is no name."""
    parsed = Reference.parse(reference)
    try:
        found = endpoints(parsed, config, tls_verify=True)
    except (DeniedError, FormatError):
        return ()
    return tuple(e for e in found if (e.pull if parsed.digest else e.resolve))


SKOPEO = {
    "mirrors are asked in order, then the location": (
        """
        [[registry]]
        prefix = "reg.test/team"
        location = "$A/orig"
        insecure = true
        [[registry.mirror]]
        location = "$B/m/n"
        insecure = true
        [[registry.mirror]]
        location = "$C"
        insecure = true
        """,
        ["reg.test/team/app", "reg.test/team/a/b", "reg.test/team"],
    ),
    "official images of Docker Hub lie below library": (
        """
        [[registry]]
        prefix = "docker.io"
        location = "$A"
        insecure = true
        [[registry.mirror]]
        location = "$B/hub"
        insecure = true
        """,
        ["redis", "docker.io/a/b", "index.docker.io/redis"],
    ),
    "the longest prefix wins and ends at a separator": (
        """
        [[registry]]
        prefix = "reg.test"
        location = "$A/short"
        insecure = true
        [[registry]]
        prefix = "reg.test/team"
        location = "$B/long"
        insecure = true
        [[registry]]
        prefix = "reg.test/team/app"
        location = "$C/exact"
        insecure = true
        """,
        ["reg.test/team/app", "reg.test/team/apple", "reg.test/team/app/x", "reg.test/teams/app", "reg.test:5000/a"],
    ),
    "a wildcard stands for any number of subdomains": (
        """
        [[registry]]
        prefix = "*.reg.test"
        location = "$A/wild"
        insecure = true
        [[registry]]
        prefix = "a.b.reg.test"
        location = "$B/exact"
        insecure = true
        """,
        [
            "x.reg.test/app",
            "x.y.reg.test/app",
            "a.b.reg.test/app",
            "x.reg.test:5000/team/app",
            "x.reg.test/a.reg.test/b",
        ],
    ),
    "a wildcard without location keeps the name": (
        """
        [[registry]]
        prefix = "*.0.0.1"
        insecure = true
        """,
        ["$A/team/app"],
    ),
    "a blocked registry is asked for nothing": (
        """
        [[registry]]
        location = "$A"
        blocked = true
        insecure = true
        [[registry]]
        location = "$B"
        insecure = true
        """,
        ["$A/app", "$B/app"],
    ),
    "the mirrors of a blocked registry are asked": (
        """
        [[registry]]
        location = "$A"
        blocked = true
        insecure = true
        [[registry.mirror]]
        location = "$B"
        insecure = true
        """,
        ["$A/app"],
    ),
    "a mirror in a blocked place is passed over": (
        """
        [[registry]]
        prefix = "reg.test"
        location = "$A"
        insecure = true
        [[registry.mirror]]
        location = "$B/bad"
        insecure = true
        [[registry.mirror]]
        location = "$B/good"
        insecure = true
        [[registry]]
        location = "$B/bad"
        blocked = true
        """,
        ["reg.test/app"],
    ),
    "mirrors by digest only": (
        """
        [[registry]]
        prefix = "reg.test"
        location = "$A"
        insecure = true
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "$B"
        insecure = true
        """,
        ["reg.test/app", f"reg.test/app@{DIGEST}"],
    ),
    "each mirror has its own kind of reference": (
        """
        [[registry]]
        prefix = "reg.test"
        location = "$A"
        insecure = true
        [[registry.mirror]]
        location = "$B/d"
        insecure = true
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "$B/t"
        insecure = true
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "$B/a"
        insecure = true
        pull-from-mirror = "all"
        """,
        ["reg.test/app", f"reg.test/app@{DIGEST}"],
    ),
    "a prefix with a tag matches nothing": (
        """
        [[registry]]
        prefix = "$A/app:1"
        location = "$B/other"
        insecure = true
        [[registry]]
        location = "$A"
        insecure = true
        """,
        ["$A/app"],
    ),
}


@pytest.mark.parametrize("case", SKOPEO)
def test_skopeo_asks_where_endpoints_say(
    case: str, recorder: Recorder, peer: Callable[[str], str], tmp_path: Path
) -> None:
    text, references = SKOPEO[case]
    conf = tmp_path / "registries.conf"
    conf.write_text(recorder.fill(text))
    config = load({}, 0, registries=conf, root=tmp_path)
    for reference in map(recorder.fill, references):
        recorder.asked.clear()
        full = reference if "@" in reference else f"{reference}:1"
        _skopeo(peer, full, "--registries-conf", str(conf))
        expected = recorder.expect(_ask(full, config), "manifests", DIGEST if "@" in full else "1")
        assert _once(recorder.asked) == expected, full
    assert (
        any(_ask(f"{r}:1" if "@" not in r else r, config) for r in map(recorder.fill, references)) or "blocked" in case
    )


def test_skopeo_merges_the_drop_ins_as_we_do(recorder: Recorder, peer: Callable[[str], str], tmp_path: Path) -> None:
    home = tmp_path / "home/.config/containers"
    table = '[[registry]]\nprefix = "{}"\nlocation = "{}"\ninsecure = true\n'
    (home / "registries.conf.d").mkdir(parents=True)
    (home / "registries.conf").write_text(
        recorder.fill(table.format("a.test", "$A/main") + table.format("b.test", "$B/main"))
    )
    (home / "registries.conf.d/20.conf").write_text(recorder.fill(table.format("a.test", "$A/20")))
    (home / "registries.conf.d/10.conf").write_text(recorder.fill(table.format("a.test", "$A/10")))
    (home / "registries.conf.d/30.toml").write_text("not TOML, and not read")
    config = load({"HOME": str(tmp_path / "home")}, 0, root=tmp_path)
    for reference in ("a.test/app:1", "b.test/app:1"):
        recorder.asked.clear()
        _skopeo(peer, reference, home=tmp_path / "home")
        assert recorder.asked
        assert _once(recorder.asked) == recorder.expect(_ask(reference, config), "manifests", "1")


def _skopeo(peer: Callable[[str], str], reference: str, *options: str, home: Path | None = None) -> None:
    command = [peer("skopeo"), *options, "--insecure-policy", "inspect", "--raw", "--no-creds", f"docker://{reference}"]
    environment = {**os.environ, **({"HOME": str(home)} if home else {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode != 0, "the recorder serves nothing"


@pytest.fixture(scope="module")
def containerd(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Run ``ctr`` against a containerd of our own: no snapshots, no containers, only content."""
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    program, ctr = peer("containerd"), peer("ctr")
    home = tmp_path_factory.mktemp("containerd")
    socket = home / "sock"
    (home / "config.toml").write_text(
        f'version = 2\nroot = "{home}/root"\nstate = "{home}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", '
        '"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", '
        '"io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]\n'
        f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([program, "--config", str(home / "config.toml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, (home / "log").read_text()

        def run(*arguments: str) -> str:
            command = [ctr, "--address", str(socket), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            return done.stdout + done.stderr

        yield run
    finally:
        process.terminate()
        process.wait(20)


CTR = {
    "hosts are asked in the order of the file, then the server": (
        {
            "reg.test": """
            server = "http://$A"
            [host."http://$C/sub"]
            [host."http://$B"]
            capabilities = ["pull", "resolve"]
            """
        },
        ["reg.test/team/app"],
    ),
    "a path is kept as it is when it is overridden or ends in v2": (
        {
            "reg.test": """
            server = "http://$A/x/v2"
            [host."http://$B/a/b"]
            override_path = true
            [host."http://$B/a//c/"]
            [host."http://$C/d/v2/"]
            """
        },
        ["reg.test/app"],
    ),
    "the first directory of host_port_, host:port and _default": (
        {
            "$A": '[host."http://$A/plain"]',
            "_default": '[host."http://$C/default"]',
            "one.test:5000": '[host."http://$B/colon"]',
            "two.test:5000": '[host."http://$B/colon"]',
            "two.test_5000_": '[host."http://$B/underscores"]',
        },
        ["$A/app", "one.test:5000/app", "two.test:5000/app", "one.test/app", "redis"],
    ),
    "the namespace is named to all but its own host": (
        {
            "docker.io": '[host."http://$B"]\n[host."http://$C"]',
            "$A": '[host."http://$B"]\n[host."http://$A"]',
        },
        ["redis", "$A/app"],
    ),
    "who may not pull and resolve is not asked for a tag": (
        {
            "reg.test": """
            server = "http://$A"
            [host."http://$B/pull"]
            capabilities = ["pull"]
            [host."http://$B/resolve"]
            capabilities = ["Resolve"]
            [host."http://$C"]
            capabilities = ["push", "resolve", "pull"]
            """
        },
        ["reg.test/app"],
    ),
    "without a server the namespace itself is the last": (
        {"$A": '[host."http://$B"]\nskip_verify = true'},
        ["$A/app"],
    ),
    "an empty file says nothing": ({"$A": ""}, ["$A/app"]),
    "a host without a scheme is asked by https, and the others still are": (
        {"reg.test": 'server = "http://$A"\n[host."$B"]'},
        ["reg.test/app"],
    ),
}


def _hosts_dir(recorder: Recorder, files: dict[str, str], tmp_path: Path) -> Path:
    for name, text in files.items():
        folder = tmp_path / "hosts" / recorder.fill(name)
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(recorder.fill(text))
    return tmp_path / "hosts"


@pytest.mark.parametrize("case", CTR)
def test_ctr_asks_where_endpoints_say(
    case: str, recorder: Recorder, containerd: Callable[..., str], tmp_path: Path
) -> None:
    files, references = CTR[case]
    hosts = _hosts_dir(recorder, files, tmp_path)
    config = load({}, 0, hosts_dir=hosts, root=tmp_path)
    for reference in map(recorder.fill, references):
        recorder.asked.clear()
        full = str(Reference.parse(f"{reference}:1"))  # ctr completes nothing
        said = containerd("content", "fetch", "--hosts-dir", str(hosts), full)
        expected = [e for e in _ask(full, config) if e.base.scheme == "http" or e.plain_too]
        assert expected, said
        assert _once(recorder.asked) == _once(recorder.expect(tuple(expected), "manifests", "1")), said


def test_ctr_fetches_from_who_may_pull_once_another_has_resolved(
    recorder: Recorder, containerd: Callable[..., str], tmp_path: Path
) -> None:
    text = """
        server = "http://$A"
        [host."http://$B"]
        capabilities = ["pull"]
        [host."http://$C"]
        capabilities = ["pull", "resolve"]
    """
    hosts = _hosts_dir(recorder, {"reg.test": text}, tmp_path)
    config = load({}, 0, hosts_dir=hosts, root=tmp_path)
    recorder.servers["A"].serves = True
    reference = Reference.parse("reg.test/app:1")
    said = containerd("content", "fetch", "--hosts-dir", str(hosts), str(reference))
    found = endpoints(reference, config, tls_verify=True)
    may_pull = tuple(e for e in found if e.pull)
    resolved = recorder.expect(tuple(e for e in found if e.resolve), "manifests", "1")
    asked = _once(recorder.asked)
    assert [each for each in asked if each[1].endswith("/1")] == resolved, said
    for data, folder in ((MANIFEST, "manifests"), (CONFIG, "blobs"), (LAYER, "blobs")):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert [each for each in asked if each[1].endswith(digest)] == recorder.expect(may_pull, folder, digest), said


def test_headers_of_a_host_are_its_own(recorder: Recorder, tmp_path: Path) -> None:
    text = '[host."http://$B"]\n[host."http://$B".header]\nx-token = ["one", "two"]\nx-other = "three"'
    config = load({}, 0, hosts_dir=_hosts_dir(recorder, {"reg.test": text}, tmp_path), root=tmp_path)
    mirror, server = endpoints(Reference.parse("reg.test/app"), config, tls_verify=True)
    assert mirror.headers == (("x-token", "one"), ("x-token", "two"), ("x-other", "three"))
    assert server.headers == ()
    assert "three" not in repr(mirror)
