"""What containerd asks for with the same ``hosts.toml`` files, recorded on loopback, beside ``endpoints``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastoci.image.reference import Reference
from fastoci.registry.config.endpoints import endpoints, load
from support.containerd import containerd as containerd_in
from support.request_recorder import CONFIG, LAYER, MANIFEST, Recorder, askable, once, recording


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recording() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def containerd(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Run ``ctr`` against a containerd of our own."""
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    with containerd_in(peer("containerd"), peer("ctr"), tmp_path_factory.mktemp("containerd")) as run:
        yield run


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
    "an empty file says nothing, but there is a directory": (
        {"$A": "", "_default": '[host."http://$C"]'},
        ["$A/app", "$B/app"],
    ),
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
        expected = [e for e in askable(full, config) if e.base.scheme == "http" or e.either_scheme]
        assert expected, said
        assert once(recorder.asked) == once(recorder.expect(tuple(expected), "manifests", "1")), said


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
    asked = once(recorder.asked)
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
