"""What CPU does it cost to receive a blob, plain and by TLS 1.3, beside a C program that does nothing else?

Each client is a process of its own that receives the same blob of 1 GB from nginx on loopback and lets go of it at
once. The C program counts from connecting on. The Python clients have fetched a small blob before: their certificates
are loaded. ``python -m benchmarks.micro.receive`` prints JSON on stdout; the exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import uvloop
from yarl import URL

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.measure import call
from benchmarks.report import Bar
from fastoci import _core
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.registry.fetch.body import Body
from fastoci.registry.http.transport import Transport
from fastoci.transfer.buffers import Buffers

C = "recv into 1 MiB, C"
C_TLS = "SSL_read into 1 MiB, C"
PYTHON_TLS = "ssl recv_into 1 MiB, Python"
LIMITS = {"plain": 1.5, "tls": 1.4}  # of "fastoci, uvloop"
_BUFFER = 1 << 20

Fetch = Callable[[str, int], AsyncIterator[int]]  # a digest and a size; the lengths of what arrives
Client = Callable[[str], AbstractAsyncContextManager[Fetch]]


def fastoci(base: str, blobs: Sequence[tuple[str, int]], loop: str) -> float:
    """CPU seconds of ``Repository.fetch`` for the last of the blobs."""
    return _on_loop(base, blobs, loop, _buffers)


def iter_any(base: str, blobs: Sequence[tuple[str, int]], loop: str) -> float:
    """CPU seconds of aiohttp's cheapest way."""
    return _on_loop(base, blobs, loop, _pieces)


def _on_loop(base: str, blobs: Sequence[tuple[str, int]], loop: str, client: Client) -> float:
    async def run() -> float:
        async with client(base) as fetch:
            for digest, size in blobs:
                started, received = time.process_time(), 0
                async for length in fetch(digest, size):
                    received += length
                assert received == size, f"{received} of {size} bytes"
        return time.process_time() - started

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run())


@asynccontextmanager
async def _buffers(base: str) -> AsyncIterator[Fetch]:
    """Our client. The registry's own would speak plain HTTP on loopback, so the URL is made here."""
    limits = Limits()
    transport = Transport(tls_verify=False, connect_s=limits.connect_s, read_s=limits.read_s, connections=1)
    buffers = Buffers(_core.Pool(limits.memory))

    async def fetch(digest: str, size: int) -> AsyncIterator[int]:
        blob = Descriptor("application/octet-stream", Digest.parse(digest), size)
        reply = await transport.request("GET", URL(f"{base}/blobs/{digest}"), headers={})
        body = Body(reply, blob, transport.servers.of(reply.origin), skip=0, left=size)
        try:
            while body.left:
                buffer = await buffers.take()
                await body.fill(buffer, body.left)
                yield len(buffer)
                buffer.release()
        finally:
            body.close()

    yield fetch
    await transport.aclose()


@asynccontextmanager
async def _pieces(base: str) -> AsyncIterator[Fetch]:
    async with aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(ssl=False)) as session:

        async def fetch(digest: str, size: int) -> AsyncIterator[int]:
            async with session.get(f"{base}/blobs/{digest}") as response:
                async for piece in response.content.iter_any():
                    yield len(piece)

        yield fetch


def recv_into(port: int, path: str, size: int) -> float:
    """CPU seconds of a blocking Python client; the baseline where libssl has no headers to compile with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    buffer, received, started = bytearray(_BUFFER), 0, time.process_time()
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        while count := connection.recv_into(buffer):
            received += count
    assert received > size, f"{received} of {size} bytes and the headers"
    return time.process_time() - started


def compile_c(into: Path, *, tls: bool) -> Path | None:
    """The C program; None when it cannot be compiled."""
    program = into / ("receive-tls" if tls else "receive")
    more = ["-DTLS", "-lssl", "-lcrypto"] if tls else []
    command = ["cc", "-O2", "-o", str(program), str(Path(__file__).with_suffix(".c")), *more]
    return program if subprocess.run(command, capture_output=True, check=False).returncode == 0 else None


def _run_c(program: Path, port: int, path: str, size: int) -> float:
    done = subprocess.run([str(program), str(port), path], capture_output=True, text=True, check=True)
    received, cpu_s = done.stdout.split()
    assert int(received) == size, f"{received} of {size} bytes"
    return float(cpu_s)


def clients(address: str, sample: data.Sample, tools: Path, *, tls: bool) -> dict[str, Callable[[], float]]:
    """What is compared, the baseline first; each gives the CPU seconds of one run."""
    here = "benchmarks.micro.receive"
    port = int(address.rpartition(":")[2])
    base = f"{'https' if tls else 'http'}://{address}/v2/{sample.name}"
    blobs = [(f"sha256:{blob.name}", blob.stat().st_size) for blob in (sample.config, sample.layers[0])]
    path, size = f"/v2/{sample.name}/blobs/{blobs[-1][0]}", blobs[-1][1]
    program = compile_c(tools, tls=tls)
    if program is not None:
        found = {C_TLS if tls else C: lambda: _run_c(program, port, path, size)}
    elif tls:
        found = {PYTHON_TLS: lambda: call(here, "recv_into", port, path, size)}
    else:
        raise FileNotFoundError("a C compiler is needed (Debian: gcc)")
    return {
        **found,
        "fastoci, uvloop": lambda: call(here, "fastoci", base, blobs, "uvloop"),
        "fastoci, asyncio": lambda: call(here, "fastoci", base, blobs, "asyncio"),
        "aiohttp iter_any, uvloop": lambda: call(here, "iter_any", base, blobs, "uvloop"),
    }


def compare(kind: str, sample: data.Sample, *, runs: int) -> dict[str, list[float]]:
    """CPU seconds a GB of all clients, in turns, the baseline first."""
    tls = kind == "tls"
    with server.serve([sample], tls=tls) as address, tempfile.TemporaryDirectory() as tools:
        found = clients(address, sample, Path(tools), tls=tls)
        taken: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(runs):
            for name, run in found.items():
                taken[name].append(run() / sample.layers[0].stat().st_size * 1e9)
    return taken


def table(title: str, median: Mapping[str, float], ratios: Mapping[str, float]) -> str:
    """Medians and ratios, for people."""
    rows = [f"{name:32}{median[name]:8.3f}{ratio:8.2f}x" for name, ratio in ratios.items()]
    return "\n".join([f"{title:32}{'CPU s/GB':>8}", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all in turns, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the blob's 1 GB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the blob; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("big", options.work, scale=options.scale)
    results, bars = {}, []
    for kind, limit in LIMITS.items():
        taken = compare(kind, sample, runs=options.runs)
        median = {name: statistics.median(each) for name, each in taken.items()}
        base = next(iter(taken))
        ratios = {name: each / median[base] for name, each in median.items()}
        print(table(f"{kind}, median of {options.runs}", median, ratios), file=sys.stderr)
        spreads = {name: report.spread(each) for name, each in taken.items()}
        results[kind] = {"cpu_s_per_gb": spreads, "base": base, "ratios": ratios}
        bars.append(Bar(f"{kind}: fastoci, uvloop / {base}", ratios["fastoci, uvloop"], limit))
    result = {
        "benchmark": "micro/receive",
        **report.circumstances(),
        "libraries": {"libc": platform.libc_ver()[1], "openssl": ssl.OPENSSL_VERSION, "aiohttp": aiohttp.__version__},
        "bytes": sample.layers[0].stat().st_size,
        "runs": options.runs,
        "results": results,
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
