"""Thirty images that share layers: a prefetch beside what other tools offer for many images, from nginx on loopback.

``free`` has no limit; ``paced`` sends 20 MB/s on each connection. ``skopeo`` is the faster of ``sync`` of a list and of
``sync`` of each image; ``crane`` the faster of a layout and a tar.
"""

from __future__ import annotations

import os
import shlex
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks import report, scratch, server
from benchmarks.data import Sample
from benchmarks.macro import engines, image_set
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar, Part
from benchmarks.server import Shape

_RATE = 20_000_000  # bytes a second of each connection
_SKOPEO = "skopeo --insecure-policy sync --dest=dir --src-tls-verify=false"
_OURS = "fastoci"
_FREE = {"skopeo": 4.0, "crane": 1.0, "engines": 3.0}  # how many times faster fastoci is at least
_PACED = {"crane": 1.3}

Run = Callable[[Sequence[str], Path], Usage]  # the references; an empty directory


def shared(work: Path, *, scale: float, runs: int) -> Part:
    """Bring thirty images with each tool, and fastoci again with slow connections."""
    samples = image_set.related(work, scale=scale)
    sizes = image_set.unique(samples)
    results: dict[str, object] = {"images": len(samples), "blobs": len(sizes), "bytes": sum(sizes.values())}
    bars = list[Bar]()
    for shape, rate, wanted in (("free", 0, _FREE), ("paced", _RATE, _PACED)):
        groups = {group: each for group, each in _contenders().items() if group == _OURS or group in wanted}
        usages, logs = _compare(samples, groups, Shape(pacing=rate, log=work / "prefetch.log"), work, runs)
        print(report.table(f"{shape}: {results['bytes']} bytes", usages, to=_OURS), file=sys.stderr)
        results[shape] = {name: report.summary(each) for name, each in usages.items()}
        bars += [*_wire(shape, logs, sizes), *_walls(shape, usages, groups, wanted)]
    return Part(results, bars)


def _compare(
    samples: Sequence[Sample], groups: Mapping[str, Mapping[str, Run]], shape: Shape, work: Path, runs: int
) -> tuple[dict[str, list[Usage]], list[list[server.Asked]]]:
    """What each took, in turns; and what fastoci asked in each run."""
    usages: dict[str, list[Usage]] = {}
    asked, target, log = list[list[server.Asked]](), work / "target", shape.log
    assert log is not None
    log.write_text("")
    with server.serve(samples, shape=shape) as address:
        names = image_set.references(samples, address)
        for _ in range(runs):
            for name, run in [each for group in groups.values() for each in group.items()]:
                target.mkdir()
                before = log.stat().st_size
                usages.setdefault(name, []).append(run(names, target))
                scratch.clear(target)
                if name == _OURS:
                    asked.append(server.asked(log, before))
    log.unlink()
    return usages, asked


def _wire(shape: str, logs: Sequence[Sequence[server.Asked]], sizes: Mapping[str, int]) -> list[Bar]:
    """Whether each unique blob came once: of the worst run."""
    total, twice = [], []
    for asked in logs:
        sent = Counter[str]()
        for each in asked:
            sent[each.path.rpartition("sha256:")[2] if "/blobs/" in each.path else "documents"] += each.sent
        total.append(sum(sent.values()))
        twice.append(sum(sent[name] >= 2 * size for name, size in sizes.items()))
    return [
        Bar(f"{shape}: bytes sent / bytes of unique blobs", max(total) / sum(sizes.values()), 1.01),
        Bar(f"{shape}: blobs sent twice", max(twice), 0),
    ]


def _walls(
    shape: str,
    usages: Mapping[str, Sequence[Usage]],
    groups: Mapping[str, Mapping[str, Run]],
    wanted: Mapping[str, float],
) -> list[Bar]:
    def wall_s(name: str) -> float:
        return statistics.median(run.wall_s for run in usages[name])

    best = {group: min(map(wall_s, each)) for group, each in groups.items() if each}
    return [
        Bar(f"{shape}: {group} / {_OURS}, wall", best[group] / wall_s(_OURS), least, least=True)
        for group, least in wanted.items()
        if group in best
    ]


def _contenders() -> dict[str, dict[str, Run]]:
    """Those that are installed, by what they are judged with; says on stderr which are not."""
    found: dict[str, dict[str, Run]] = {_OURS: {_OURS: _fastoci}}
    root = os.geteuid() == 0
    for group, program, runs in (
        ("skopeo", "skopeo", {"skopeo sync, list": _skopeo_list, "skopeo sync, each": _skopeo_each}),
        (
            "crane",
            "crane",
            {"crane pull, layout": partial(_crane, "oci"), "crane pull, tar": partial(_crane, "tarball")},
        ),
        ("engines", "podman", {"podman pull": partial(engines.podman, "podman")}),
        ("engines", "ctr", {"ctr images pull": partial(engines.containerd, "ctr")}),
    ):
        if shutil.which(program) is None or (group == "engines" and not root):
            print(f"{program}: left out, not installed or not root", file=sys.stderr)
        else:
            found.setdefault(group, {}).update(runs)
    return found


def _fastoci(references: Sequence[str], target: Path) -> Usage:
    return measure(image_set.prefetch(references, target / "store"))


def _skopeo_list(references: Sequence[str], target: Path) -> Usage:
    address = references[0].partition("/")[0]
    names = [each.partition("/")[2].rpartition(":") for each in references]
    lines = [f"{address}:", "  tls-verify: false", "  images:"]
    (target / "list.yaml").write_text("\n".join([*lines, *(f'    {name}: ["{tag}"]' for name, _, tag in names)]))
    return measure(shlex.split(f"{_SKOPEO} --src=yaml {target}/list.yaml {target}/images"))


def _skopeo_each(references: Sequence[str], target: Path) -> Usage:
    script = "; ".join(f"{_SKOPEO} --src=docker {each} {target}/images" for each in references)
    return measure(["sh", "-e", "-c", script])


def _crane(form: str, references: Sequence[str], target: Path) -> Usage:
    return measure(["crane", "pull", "--insecure", f"--format={form}", *references, f"{target}/images"])
