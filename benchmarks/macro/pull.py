"""Time whole pulls beside skopeo, umoci and plain shell pipes: same image, same server, same file system, in turns.

``python -m benchmarks.macro.pull --image img8 --fs tmpfs --runs 5`` prints JSON on stdout and a table on stderr.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, place, report, server
from benchmarks.measure import Usage, measure

FASTOCI, UNPACK = "fastoci", "fastoci --rootfs"


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to do the work: which of ours it is held against, the programs it needs, and its script for a directory."""

    name: str
    against: str
    needs: tuple[str, ...]
    script: Callable[[data.Sample, str, str], str]


def _fastoci(sample: data.Sample, address: str, target: str, *, rootfs: bool = False) -> str:
    command = [sys.executable, "-m", "fastoci", "pull", f"{address}/{sample.name}:t", "--progress", "none"]
    return shlex.join([*command, "--store", f"{target}/store", *(["--rootfs", f"{target}/root"] if rootfs else [])])


def _fastoci_rootfs(sample: data.Sample, address: str, target: str) -> str:
    return _fastoci(sample, address, target, rootfs=True)


def _skopeo(sample: data.Sample, address: str, target: str) -> str:
    source = f"docker://{address}/{sample.name}:t"
    return f"skopeo --insecure-policy copy -q --src-tls-verify=false {source} oci:{target}/oci:t"


def _skopeo_umoci(sample: data.Sample, address: str, target: str) -> str:
    rootless = "" if os.geteuid() == 0 else "--rootless"
    return f"{_skopeo(sample, address, target)}; umoci raw unpack {rootless} --image {target}/oci:t {target}/root"


def _curl_openssl(sample: data.Sample, address: str, target: str) -> str:
    url = f"http://{address}/v2/{sample.name}/blobs/sha256:"
    return "; ".join(f"curl -sSf {url}{blob.name} | openssl dgst -sha256" for blob in sample.blobs)


def _igzip_tar(sample: data.Sample, address: str, target: str) -> str:
    # Status 2: a layer replaces a directory by something else, which tar refuses before it goes on. Its options that
    # remove directories first lose what lower layers have in them.
    unpack = f"tar -x -C {target}/root || test $? = 2"
    layers = "; ".join(f"igzip -dc < {shlex.quote(str(layer))} | {unpack}" for layer in sample.layers)
    return f"mkdir {target}/root; {layers}"


CONTENDERS = (
    Contender(FASTOCI, FASTOCI, (), _fastoci),
    Contender("skopeo", FASTOCI, ("skopeo",), _skopeo),
    Contender("curl | openssl", FASTOCI, ("curl", "openssl"), _curl_openssl),
    Contender(UNPACK, UNPACK, (), _fastoci_rootfs),
    Contender("skopeo + umoci", UNPACK, ("skopeo", "umoci"), _skopeo_umoci),
    Contender("igzip | tar", UNPACK, ("igzip", "tar"), _igzip_tar),
)


def compare(sample: data.Sample, address: str, work: Path, *, runs: int) -> dict[str, list[Usage]]:
    """Run every contender that is installed ``runs`` times, in turns, each into a directory of its own."""
    taken: dict[str, list[Usage]] = {}
    for number in range(runs):
        for contender in CONTENDERS:
            absent = [name for name in contender.needs if shutil.which(name) is None]
            if absent:
                if number == 0:
                    print(f"{contender.name}: left out, {', '.join(absent)} not installed", file=sys.stderr)
                continue
            target = work / "target"
            target.mkdir()
            script = contender.script(sample, address, shlex.quote(str(target)))
            usage = measure(["bash", "-euo", "pipefail", "-c", script])
            taken.setdefault(contender.name, []).append(usage)
            shutil.rmtree(target)
    return taken


def result(sample: data.Sample, file_system: str, taken: Mapping[str, Sequence[Usage]]) -> dict[str, object]:
    """Everything that is known of the runs, as one JSON value."""
    groups = [(FASTOCI, "pull"), (UNPACK, "pull and unpack")]
    return {
        "benchmark": "macro/pull",
        **report.circumstances(),
        "image": {"name": sample.name, "bytes": sample.size, "layers": len(sample.layers)},
        "file_system": file_system,
        "results": {name: report.summary(runs) for name, runs in taken.items()},
        "ratios": {work: report.ratios(_group(taken, ours), ours) for ours, work in groups},
    }


def _group(taken: Mapping[str, Sequence[Usage]], ours: str) -> dict[str, Sequence[Usage]]:
    return {each.name: taken[each.name] for each in CONTENDERS if each.against == ours and each.name in taken}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", choices=data.NAMES, default="img8")
    parser.add_argument("--fs", choices=place.FILE_SYSTEMS, default="tmpfs", help="where the results are written")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the size of a generated image")
    parser.add_argument("--work", type=Path, default=place.WORK, help="keeps the images; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare(options.image, options.work, scale=options.scale)
    room = 6 * sample.size
    with server.serve([sample]) as address, place.destination(options.fs, options.work, size=room) as target:
        taken = compare(sample, address, target, runs=options.runs)
    for ours, title in ((FASTOCI, "pull"), (UNPACK, "pull and unpack")):
        title = f"{title}: {sample.name}, {sample.size / 1e6:.0f} MB, {options.fs}, median of {options.runs}"
        print(report.table(title, _group(taken, ours), to=ours), file=sys.stderr)
    report.publish(result(sample, options.fs, taken), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
