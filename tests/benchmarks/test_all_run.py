"""The benchmarks and the demonstration run on little data and print what they promise; their figures are not judged."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fastoci
from fastoci import _core

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(fastoci.__file__).resolve().parents[1]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=100, check=False)


def test_the_pull_benchmark_compares_and_reports(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "skopeo", "umoci", "curl", "openssl", "igzip", "taskset"):
        peer(program)
    engines = [name for name in ("podman", "ctr") if os.geteuid() == 0 and shutil.which(name)]
    options = ("--image", "img8", "--scale", "0.002", "--runs", "1", "--work", tmp_path, "--json", tmp_path / "result")
    done = run("benchmarks/macro/pull.py", *options, "--stages", "--cores", "1")
    assert done.returncode in (0, 1), done.stderr  # 1: a bar is missed, which little data cannot judge
    result = json.loads((tmp_path / "result").read_bytes())
    assert {"fastoci", "skopeo", "curl | openssl", "fastoci --rootfs", "skopeo + umoci"} <= set(result["results"])
    for engine in engines:
        assert result["results"][engine]["cpu_s"]["min"] > 0
        assert f"{engine} / fastoci --rootfs, wall" in result["bars"]
    assert result["ratios"]["pull"]["fastoci"] == {"wall": 1.0, "cpu": 1.0}
    assert result["image"]["layers"] == 8
    assert {"machine", "commit", "time"} <= set(result)
    assert "pull and unpack" in done.stderr
    assert {
        "igzip | tar / fastoci --rootfs, wall",
        "fastoci --rootfs / sum of the stages, CPU",
        "fastoci --rootfs, one core / fastoci --rootfs, wall",
        "peak of one process, MiB",
    } <= set(result["bars"])
    assert sorted(os.listdir(tmp_path)) == ["images", "result"]


def test_the_race_holds_every_tool_on_path_against_ours(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "skopeo", "umoci", "openssl"):
        peer(program)
    races = (
        "img8, all cores busy",
        "img8, TLS 1.3",
        "there, by digest",
        "30 images",
        "30 ms each way",
        "img8, unpacked",
    )
    options = ("--scale", "0.001", "--runs", "1", "--work", tmp_path, "--json", tmp_path / "result")
    done = run("benchmarks/macro/race.py", *options, *(part for race in races for part in ("--race", race)))
    assert done.returncode in (0, 1), done.stderr  # 1: a bar is missed, which little data cannot judge
    result = json.loads((tmp_path / "result").read_bytes())
    assert set(result["results"]) == set(races)
    assert {"fastoci", "skopeo"} <= set(result["results"]["30 ms each way"])
    assert result["results"]["30 ms each way"]["skopeo"]["wall_s"]["min"] > 0.06, "each way is waited for"
    assert {"fastoci", "skopeo + umoci", "sum of the stages"} <= set(result["results"]["img8, unpacked"])
    assert "img8, unpacked: fastoci / sum of the stages, CPU" in result["bars"]
    assert not any("/ sum of the stages, wall" in bar for bar in result["bars"]), "it is no tool"
    assert "there, by digest: CPU s" in result["bars"]
    assert set(result["sent"]) == {"img8, all cores busy", "30 images", "30 ms each way"}
    assert all(sent["fastoci"]["min"] >= 1 for sent in result["sent"].values()), "all that is needed is sent"
    assert sorted(os.listdir(tmp_path)) == ["images", "result"]


def test_the_scaling_benchmark_measures_and_expects(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "taskset"):
        peer(program)
    options = ("--layers", "1", "--scale", "0.001", "--runs", "1", "--work", tmp_path)
    done = run("benchmarks/scaling.py", *options)
    assert done.returncode in (0, 1), done.stderr  # 1: a bar is missed, which little data cannot judge
    result = json.loads(done.stdout)
    cores = len(os.sched_getaffinity(0))
    measured = [each for each in result["results"] if "measured" in each]
    assert len(measured) == 2 * cores + 4 and all(each["layers"] == 1 for each in measured)
    paced = {each["connections"]: each["model"]["wall_s"] for each in measured if each["connections"]}
    assert set(paced) == {1, 2, 4, 8} and paced[1] >= paced[8]
    models = {(each["work"], each["cores"]): each["model"] for each in result["results"] if "measured" not in each}
    more = {each for each in (4, 8, 16) if each > cores}
    assert {count for work, count in models if work == "pull and unpack"} == more
    assert {count for work, count in models if work == "guessed, apart"} == {cores, *more}
    members, guessed = models["unpack, members", cores], models["unpack, guessed", cores]
    assert members["cpu_s"] < guessed["cpu_s"] and members["wall_s"] <= guessed["wall_s"]
    for count in more:
        walls = [models[work, count]["wall_s"] for work in ("guessed, apart", "unpack, guessed")]
        assert walls == sorted(walls)
    assert sorted(os.listdir(tmp_path)) == ["images"]


def test_the_layers_benchmark_compares_with_a_tar_and_a_tree(tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("nginx")
    options = ("--part", "pipeline", "--part", "gc", "--scale", "0.005", "--runs", "1", "--work", tmp_path)
    done = run("benchmarks/macro/layers.py", *options)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert {"raw tar", "layer file", "extracted"} <= set(result["results"]["pipeline"]["tmpfs"])
    assert {"tmpfs: layer file / raw tar, CPU", "gc of the image, s"} <= set(result["bars"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containerd")
def test_the_containerd_benchmark_compares_and_counts(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "containerd", "ctr", "mkfs.ext4"):
        peer(program)
    options = ("--part", "record", "--part", "cache", "--fs", "tmpfs", "--scale", "0.002", "--runs", "1")
    done = run("benchmarks/macro/containerd.py", *options, "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr  # 1: a bar is missed, which little data cannot judge
    result = json.loads(done.stdout)
    met = {name for name, bar in result["bars"].items() if bar["met"]}
    assert {"blobs that are not the store's own files", "blobs that a fetch after that asks for"} <= met
    assert "tmpfs: fastoci --into / ctr content fetch, CPU" in result["bars"]
    assert result["results"]["cache"] == {} or "layers of the store that are asked for" in met
    assert os.listdir(tmp_path) == ["images"]


def test_the_one_layer_benchmark_compares_with_the_stages(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "skopeo"):
        peer(program)
    done = run("benchmarks/macro/one_layer.py", "--scale", "0.01", "--runs", "1", "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    parts = [result["results"][name]["cpu_s"]["min"] for name in ("receive", "hash, one lane", "write")]
    assert result["results"]["sum of the stages"]["cpu_s"]["min"] == pytest.approx(sum(parts))
    assert "fastoci without start-up / sum of the stages, CPU" in result["bars"]
    assert os.listdir(tmp_path) == ["images"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_pull_leaves_the_page_cache_alone(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "skopeo", "mkfs.ext4"):
        peer(program)
    options = ("--fs", "ext4", "--scale", "0.02", "--runs", "1", "--work", tmp_path)
    done = run("benchmarks/macro/page_cache.py", *options)
    assert done.returncode == 0, done.stderr
    share = json.loads(done.stdout)["share"]["ext4"]
    assert share["dd"]["min"] > 0.9
    assert os.listdir(tmp_path) == ["images"]


def test_the_memory_benchmark_reports_peaks(tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("nginx")
    done = run("benchmarks/macro/memory.py", "--scale", "0.01", "--work", tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["peak_mib"]) == {"pull", "pull --rootfs"}


def test_the_ranges_benchmark_compares_slow_and_fast_servers(tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("nginx")
    done = run("benchmarks/macro/ranges.py", "--runs", "1", "--scale", "0.004", "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr  # 1: a bar is missed, which little data cannot judge
    result = json.loads(done.stdout)
    assert set(result["results"]) == {"paced", "limited", "free"}
    assert any("free" in name and "CPU" in name for name in result["ratios"])


def test_the_resume_benchmark_kills_and_goes_on(tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("nginx")
    done = run("benchmarks/macro/resume.py", "--kills", "2", "--scale", "0.05", "--work", tmp_path)
    assert done.returncode == 0, done.stderr  # bytes are counted, not time
    result = json.loads(done.stdout)
    attempts, leaders = result["attempts"], result["leaders"]
    assert [each["killed"] for each in attempts] == [True, True, False]
    assert attempts[0]["first"] == 0 < attempts[-1]["first"]
    assert [each["killed"] for each in leaders] == [True] * 8 + [False]
    assert all(following["first"] >= killed["last"] for killed, following in itertools.pairwise(leaders))


def test_the_verify_benchmark_compares_with_openssl(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("openssl", "taskset"):
        peer(program)
    done = run("benchmarks/macro/verify.py", "--blobs", "3", "--size", "1000000", "--runs", "1", "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert list(result["bars"]) == ["openssl dgst / fastoci verify without start-up, CPU of one core"]
    assert result["bytes"] == 3_000_000 and os.listdir(tmp_path) == []


def test_the_store_scale_benchmark_asks_a_full_and_a_small_store(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "strace"):
        peer(program)
    sizes = ("--blobs", "3000", "--references", "100", "--runs", "1", "--scale", "0.002")
    done = run("benchmarks/macro/store_scale.py", *sizes, "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert {"pull, full store", "pull, small store", "ls", "df"} <= set(result["results"])
    assert {
        "missing / os.stat",
        "ls, wall s",
        "df, wall s",
        "gc plan, peak MB",
        "pull, full store / pull, small store, cpu",
    } <= set(result["bars"])
    assert result["blobs"] > 2500 and result["stats"]["df"] < 500  # those of no image
    assert os.listdir(tmp_path) == ["images"]


def test_the_prefetch_benchmark_asks_all_its_parts(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "skopeo"):
        peer(program)

    def ask(parts: Sequence[str]) -> dict[str, Any]:
        chosen = [each for part in parts for each in ("--part", part)]
        work = tmp_path / parts[0]
        done = run("benchmarks/macro/prefetch.py", *chosen, "--runs", "1", "--scale", "0.002", "--work", work)
        assert done.returncode in (0, 1), done.stderr  # 1: a bar is missed, which little data cannot judge
        assert os.listdir(work) in (["images"], [])
        result: dict[str, Any] = json.loads(done.stdout)
        assert set(result["results"]) == set(result["bars"]) == set(parts)
        return result

    with ThreadPoolExecutor(3) as threads:  # some wait most of their time
        asked = list(threads.map(ask, (("many", "plan", "killed"), ("shared",), ("refusals", "clients"))))
    results = {part: facts for each in asked for part, facts in each["results"].items()}
    met = {bar: facts["met"] for each in asked for part in each["bars"].values() for bar, facts in part.items()}
    assert results["many"]["descriptors"] == 50 and results["plan"]["images"] == 200
    assert met["again: requests for blobs"]
    assert met["killed once: blobs that are not there, or not whole"] and len(results["killed"]["sent"]) == 1
    assert met["free: bytes sent / bytes of unique blobs"] and met["paced: bytes sent / bytes of unique blobs"]
    assert met["free: blobs sent twice"] and "free: skopeo / fastoci, wall" in met
    assert results["refusals"]["asked"] > results["refusals"]["least"] == 8
    assert met["30 % refused: manifests and blobs that did not come"]
    assert met["clients: processes that failed"] and results["clients"]["requests"] >= 20


def test_the_throttle_benchmark_measures_a_bandwidth(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "ss"):
        peer(program)
    options = ("--part", "bandwidth", "--case", "http, 8 layers", "--seconds", "1.2", "--window", "0.2")
    done = run("benchmarks/macro/throttle.py", *options, "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr  # 1: a bar is missed, which little data cannot judge
    result = json.loads(done.stdout)
    assert -1 < result["results"]["bandwidth"]["http, 8 layers"] < 3
    assert list(result["bars"]) == ["http, 8 layers: from the bandwidth, over 0.2 s"]
    assert os.listdir(tmp_path) == ["images"]


def test_the_startup_benchmark_reports_ratios() -> None:
    done = run("benchmarks/micro/startup.py", "--runs", "1")
    assert done.returncode in (0, 1), done.stderr  # 1: above the bar, which one run cannot judge
    assert {"import fastoci", "fastoci --help"} <= set(json.loads(done.stdout)["ratios"])


def test_the_benchmark_of_runs_that_find_nothing_new_compares_engines() -> None:
    done = run("benchmarks/micro/every.py", "--runs", "1", "--images", "10")
    assert done.returncode in (0, 1), done.stderr  # 1: above the bar, which few images cannot judge
    results = json.loads(done.stdout)["results"]
    assert results["anew"]["descriptors_between_runs"] < results["kept"]["descriptors_between_runs"]


def micro(name: str, *options: str | Path, runs: int | None = 1) -> dict[str, Any]:
    """The JSON of a micro benchmark, with what all of them have."""
    once = () if runs is None else ("--runs", str(runs))
    done = run(f"benchmarks/micro/{name}.py", *once, *options)
    assert done.returncode in (0, 1), done.stderr  # 1: a bar is missed, which little data cannot judge
    result: dict[str, Any] = json.loads(done.stdout)
    assert {"machine", "commit", "time", "bars"} <= set(result)
    assert result["bars"] and all({"ratio", "met"} <= set(bar) for bar in result["bars"].values())
    return result


def test_the_sha256_benchmark_reports_rates_and_bars_of_every_build(peer: Callable[[str], str]) -> None:
    for program in ("openssl", "cc"):
        peer(program)
    result = micro("sha256", "--scale", "0.02")
    assert {"openssl speed", "installed", f"flags of {sys.executable}"} <= set(result["bytes_per_s"])
    assert len(result["bars"]) == 4 * (len(result["bytes_per_s"]) - 1)
    for rates in result["bytes_per_s"].values():
        assert all({"min", "median", "max"} == set(each) for each in rates.values())


def test_the_lanes_benchmark_counts_starts(peer: Callable[[str], str]) -> None:
    peer("cc")
    tier = _core.tier()
    if not tier.startswith("sha-"):
        pytest.skip(f"{tier} has one lane: nothing is measured at the start")
    result = micro("lanes", "--starts", "3", runs=None)
    assert [sum(each.values()) for each in result["chosen"].values()] == [3, 3]
    assert set(result["kernel_bytes_per_s"]) == {"1", "2", "3"}


def test_the_receive_benchmark_compares_plain_and_tls(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "openssl", "cc"):
        peer(program)
    result = micro("receive", "--scale", "0.002", "--work", tmp_path)
    for kind in ("plain", "tls"):
        ratios = result["results"][kind]["ratios"]
        assert ratios[result["results"][kind]["base"]] == 1.0
        assert {"fastoci, uvloop", "fastoci, asyncio", "aiohttp iter_any, uvloop"} < set(ratios)
    assert result["bytes"] > 2_000_000


def test_the_inflate_benchmark_compares_and_verifies(tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("igzip")
    result = micro("inflate", "--scale", "0.002", "--work", tmp_path)
    assert set(result["results"]) == set(result["ratios"]) == set(result["cpu_s_per_gb"])
    assert {"igzip -d + one lane", "inflate, hash, tar"} <= set(result["results"])
    assert result["bytes"]["tar"] > result["bytes"]["gzip"] > 0


def test_the_pack_benchmark_compares(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("tar", "gzip", "pigz"):
        peer(program)
    done = run("benchmarks/macro/pack.py", "--tree", str(ROOT / "docs"), "--runs", "1", "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert {"fastoci pack", "fastoci pack --compression zstd", "tar | pigz"} <= set(result["results"])
    assert len(result["bars"]) == 3
    assert os.listdir(tmp_path) == ["tree"]


def test_the_copy_benchmark_asks_all_its_parts(tmp_path: Path, peer: Callable[[str], str]) -> None:
    for program in ("nginx", "docker-registry", "skopeo"):
        peer(program)
    done = run("benchmarks/macro/copies.py", "--runs", "1", "--scale", "0.002", "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert list(result["results"]) == ["registries", "push", "archive", "recompress"]
    for each in result["results"].values():
        assert {"fastoci", "skopeo"} <= set(each)
    assert len(result["bars"]) == 8


def test_the_verity_benchmark_compares_and_says_whether_it_could_be_always_on(tmp_path: Path) -> None:
    result = micro("verity", "--scale", "0.002", "--work", tmp_path)
    assert {"inflate, hash, write, fs-verity", "fs-verity alone"} < set(result["results"])
    assert isinstance(result["always"]["cheap_enough"], bool)


def test_the_extract_benchmark_compares_small_files_and_a_large_one(tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("tar")
    result = micro("extract", "--scale", "0.002", "--work", tmp_path)
    assert result["results"]["small"]["entries"] > 150
    assert result["results"]["big"]["entries"] == 1
    for each in result["results"].values():
        assert {"extractor", "fastoci apply", "tar -xf"} <= set(each["results"]) == set(each["ratios"])
    assert sorted(os.listdir(tmp_path)) == ["images"]


def test_the_ring_benchmark_compares_ways_of_making_files(tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("cc")
    done = run("benchmarks/micro/uring.py", "--fs", "tmpfs", "--scale", "0.005", "--runs", "1", "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr  # 1: a bar is missed, which few files cannot judge
    result = json.loads(done.stdout)
    if not result["results"]:
        assert "io_uring: left out, io_uring_setup: " in done.stderr
        pytest.skip("the kernel gives no ring")
    assert list(result["results"]) == ["small, tmpfs", "large, tmpfs"]
    assert all(len(ways) == 7 for ways in result["results"].values()) and len(result["bars"]) == 2
    assert os.listdir(tmp_path) == []


def test_the_layer_directories_benchmark_compares_orders(tmp_path: Path) -> None:
    result = micro("layer_directories", "--scale", "0.01", "--runs", "1", "--work", tmp_path)
    assert set(result["results"]) == {"at once", "in order", "in order, one thread", "one tree, in order"}
    assert list(result["bars"]) == ["in order, one thread / at once, wall"]
    assert os.listdir(tmp_path) == []


def test_a_failing_command_is_shown_with_its_output() -> None:
    code = "from benchmarks.measure import measure; measure(['sh', '-c', 'echo reason; exit 3'])"
    done = run("-c", code)
    assert "ended with status 3:\nreason" in done.stderr


@pytest.mark.slow
def test_the_demonstration_passes() -> None:
    done = run("benchmarks/demo.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: " in done.stdout and "0 blob(s) fetched" in done.stdout


def test_the_progress_benchmark_measures_each_terminal() -> None:
    done = run("benchmarks/micro/progress.py", "--seconds", "2")
    assert done.returncode in (0, 1), done.stderr
    results = json.loads(done.stdout)["results"]
    assert list(results) == ["60x24", "80x24", "200x50"]
    assert all(0 < each["share_of_a_core"] < 1 for each in results.values())


def test_the_interrupt_benchmark_measures_each_situation(tmp_path: Path) -> None:
    name = "pull from a silent server"
    done = run("benchmarks/micro/interrupt.py", "--runs", "1", "--json", tmp_path / "result", name)
    assert done.returncode in (0, 1), done.stderr  # 1: above the bar, on a machine at work
    result = json.loads((tmp_path / "result").read_bytes())
    assert 0 < result["results"][name]["median_s"] <= result["results"][name]["max_s"]
    assert name in done.stderr


def test_the_erofs_benchmark_compares_and_counts(tmp_path: Path) -> None:
    done = run("benchmarks/micro/erofs.py", "--scale", "0.002", "--runs", "1", "--work", tmp_path)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert {"raw tar", "layer file", "layer file, 4k", "merged", "extractor"} == set(result["results"])
    assert result["many"]["flat"]["entries"] == 2000
    assert "layer file / extractor, CPU" in result["bars"]
    assert os.listdir(tmp_path) == ["images"]


def test_the_rpc_benchmark_measures_calls_bytes_and_the_import() -> None:
    done = run("benchmarks/micro/rpc.py", "--runs", "1", "--calls", "20", "--bytes", str(8 << 20))
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    figures = result["results"]["wall, client's CPU, server's CPU"]
    assert set(figures) == {"call, ms", "64 KiB requests, s/GB", "1 MiB requests, s/GB", "4 MiB requests, s/GB"}
    assert all(figure > 0 for runs in figures.values() for each in runs for figure in each)
    assert len(result["bars"]) == 4
