"""Who is compared: fastoci, other tools and shell pipes, each as a function that pulls a sample into a directory."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.data import Sample
from benchmarks.macro import engines
from benchmarks.measure import Usage, measure

FASTOCI, UNPACK, ONE_CORE = "fastoci", "fastoci --rootfs", "fastoci --rootfs, one core"
LAYERS = "fastoci --layers erofs"
UMOCI, PODMAN, CTR, TAR = "skopeo + umoci", "podman", "ctr", "igzip | tar"
DEBIAN = "/usr/bin"  # what is found here has no more than its name; another version has its folder too

Run = Callable[[Sample, str, Path], Usage]  # the registry's address; an empty directory


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to do the work, and which of ours it is held against."""

    name: str
    against: str
    run: Run


def fastoci(sample: Sample, address: str, target: Path, *more: str) -> list[str]:
    """The command that pulls into ``store`` below the target."""
    command = [sys.executable, "-m", "fastoci", "pull", f"{address}/{sample.name}:t", "--progress", "none"]
    return [*command, "--store", f"{target}/store", *more]


def layers() -> Contender:
    """The pull that keeps layer files."""
    return Contender(LAYERS, UNPACK, lambda *where: measure(fastoci(*where, "--layers", "erofs")))


def contenders(*, unpacking: bool = True, one_core: bool = False) -> Iterator[Contender]:
    """All that are installed; says on stderr which are not.

    Args:
        one_core: fastoci once more, held to one core.
    """
    yield Contender(FASTOCI, FASTOCI, lambda *where: measure(fastoci(*where)))
    for name, script, programs in _PULLS:
        yield from _variants(name, FASTOCI, _shell(script), programs)
    if not unpacking:
        return
    yield Contender(UNPACK, UNPACK, partial(_rootfs, prefix=[]))
    yield layers()
    if one_core:
        core = str(min(os.sched_getaffinity(0)))
        yield Contender(ONE_CORE, UNPACK, partial(_rootfs, prefix=["taskset", "--cpu-list", core]))
    yield from _variants(UMOCI, UNPACK, _shell(_skopeo_umoci), ("skopeo", "umoci"))
    yield from _variants(TAR, UNPACK, _shell(_igzip_tar), ("igzip", "tar"))
    if os.geteuid() == 0:
        yield from _variants(PODMAN, UNPACK, _engine(engines.podman), ("podman",))
        yield from _variants(CTR, UNPACK, _engine(engines.containerd), ("ctr", "containerd"))
    else:
        print(f"{PODMAN}, {CTR}: left out, they need root", file=sys.stderr)


def _variants(name: str, against: str, run: Callable[[str], Run], programs: tuple[str, ...]) -> Iterator[Contender]:
    """One of each version of the first program on PATH."""
    absent = [each for each in programs if shutil.which(each) is None]
    if absent:
        print(f"{name}: left out, {', '.join(absent)} not installed", file=sys.stderr)
        return
    for folder in dict.fromkeys(os.environ.get("PATH", os.defpath).split(":")):
        program = shutil.which(programs[0], path=folder)
        if program is not None and os.path.realpath(folder) == folder:  # not /bin, which is /usr/bin
            yield Contender(name if folder == DEBIAN else f"{name} ({folder})", against, run(program))


def _rootfs(sample: Sample, address: str, target: Path, *, prefix: list[str]) -> Usage:
    return measure([*prefix, *fastoci(sample, address, target, "--rootfs", f"{target}/root")])


def _engine(pull: Callable[[str, Sequence[str], Path], Usage]) -> Callable[[str], Run]:
    def of(program: str) -> Run:
        return lambda sample, address, target: pull(program, [f"{address}/{sample.name}:t"], target)

    return of


def _shell(script: Callable[[str, Sample, str, str], str]) -> Callable[[str], Run]:
    def of(program: str) -> Run:
        def run(sample: Sample, address: str, target: Path) -> Usage:
            text = script(shlex.quote(program), sample, address, shlex.quote(str(target)))
            return measure(["bash", "-euo", "pipefail", "-c", text])

        return run

    return of


def _skopeo(skopeo: str, sample: Sample, address: str, target: str) -> str:
    source = f"docker://{address}/{sample.name}:t"
    return f"{skopeo} --insecure-policy copy -q --src-tls-verify=false {source} oci:{target}/oci:t"


def _crane(crane: str, sample: Sample, address: str, target: str) -> str:
    return f"{crane} pull --insecure --format=oci {address}/{sample.name}:t {target}/oci"


def _regctl(regctl: str, sample: Sample, address: str, target: str) -> str:
    copy = f"image copy --host reg={address},tls=disabled {address}/{sample.name}:t ocidir://{target}/oci:t"
    return f"{regctl} {copy}"


def _curl_openssl(curl: str, sample: Sample, address: str, target: str) -> str:
    url = f"http://{address}/v2/{sample.name}/blobs/sha256:"
    return "; ".join(f"{curl} -sSf {url}{blob.name} | openssl dgst -sha256" for blob in sample.blobs)


def _skopeo_umoci(skopeo: str, sample: Sample, address: str, target: str) -> str:
    rootless = "" if os.geteuid() == 0 else "--rootless"
    unpack = f"umoci raw unpack {rootless} --image {target}/oci:t {target}/root"
    return f"{_skopeo(skopeo, sample, address, target)}; {unpack}"


def _igzip_tar(igzip: str, sample: Sample, address: str, target: str) -> str:
    # Status 2: a layer replaces a directory by something else, which tar refuses before it goes on. Its options that
    # remove directories first lose what lower layers have in them.
    unpack = f"tar -x -C {target}/root || test $? = 2"
    layers = "; ".join(f"{igzip} -dc < {shlex.quote(str(layer))} | {unpack}" for layer in sample.layers)
    return f"mkdir {target}/root; {layers}"


_PULLS = (
    ("skopeo", _skopeo, ("skopeo",)),
    ("crane", _crane, ("crane",)),
    ("regctl", _regctl, ("regctl",)),
    ("curl | openssl", _curl_openssl, ("curl", "openssl")),
)
