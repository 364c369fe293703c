"""What skopeo asks for with the same ``registries.conf``, recorded on loopback, beside ``endpoints``."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastoci.image.reference import Reference
from fastoci.registry.config.endpoints import load
from support.request_recorder import DIGEST, Recorder, askable, once, recording


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recording() as recorder:
        yield recorder


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
        expected = recorder.expect(askable(full, config), "manifests", DIGEST if "@" in full else "1")
        assert once(recorder.asked) == expected, full
    assert (
        any(askable(f"{r}:1" if "@" not in r else r, config) for r in map(recorder.fill, references))
        or "blocked" in case
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
        assert once(recorder.asked) == recorder.expect(askable(reference, config), "manifests", "1")


def _skopeo(peer: Callable[[str], str], reference: str, *options: str, home: Path | None = None) -> None:
    command = [peer("skopeo"), *options, "--insecure-policy", "inspect", "--raw", "--no-creds", f"docker://{reference}"]
    environment = {**os.environ, **({"HOME": str(home)} if home else {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode != 0, "the recorder serves nothing"


PREFIXES = ("reg.test", "a.reg.test", "b.a.reg.test", "reg.test/x", "reg.test/x/y", "docker.io", "docker.io/library")
WILDCARDS = ("*.test", "*.reg.test", "*.a.reg.test")
NAMES = ("reg.test/app", "reg.test/x", "reg.test/x/y/z", "a.reg.test/x/y", "b.a.reg.test/q", "redis", "docker.io/a/b")


def _random(source: random.Random) -> str:
    """A configuration with tables that overlap, repeat and contradict each other."""
    lines = []
    for _ in range(source.randint(1, 4)):
        prefix = source.choice(PREFIXES + WILDCARDS)
        lines += ["[[registry]]", f'prefix = "{prefix}"', "insecure = true"]
        if not prefix.startswith("*") or source.random() < 0.7:
            lines.append(f'location = "${source.choice("ABC")}{source.choice(["", "/m", "/m/n"])}"')
        digest_only = source.random() < 0.2
        lines.append(f"mirror-by-digest-only = {str(digest_only).lower()}")
        for _ in range(source.randint(0, 3)):
            lines += ["[[registry.mirror]]", f'location = "${source.choice("ABC")}/p"', "insecure = true"]
            if not digest_only:
                lines.append(f'pull-from-mirror = "{source.choice(["all", "digest-only", "tag-only"])}"')
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(20))
def test_skopeo_agrees_on_random_configurations(
    seed: int, recorder: Recorder, peer: Callable[[str], str], tmp_path: Path
) -> None:
    source = random.Random(seed)
    conf = tmp_path / "registries.conf"
    conf.write_text(recorder.fill(_random(source)))
    config = load({}, 0, registries=conf, root=tmp_path)
    for name in source.sample(NAMES, 3):
        # A name that no table concerns would be asked for on the internet.
        if config.registries.find(Reference.parse(name).name) is None:
            continue
        full = f"{name}{source.choice([':1', f'@{DIGEST}'])}"
        recorder.asked.clear()
        _skopeo(peer, full, "--registries-conf", str(conf))
        expected = recorder.expect(askable(full, config), "manifests", DIGEST if "@" in full else "1")
        assert once(recorder.asked) == once(expected), f"{full}\n{conf.read_text()}"
