"""What gRPC over a Unix socket costs: a call, the import, and bytes that cannot go by a link.

``python -m benchmarks.micro.rpc`` prints JSON on stdout; the exit status is 1 above a bar. Client and server are
processes of their own, both of this package, with uvloop; their CPU is counted apart.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import measure, report
from fastoci.containerd import messages
from fastoci.containerd.rpc import Call, Connection, Server

ECHO, SINK, CPU = "/bench.B/Echo", "/bench.B/Sink", "/bench.B/Cpu"
SIZES = {"64 KiB": 64 << 10, "1 MiB": 1 << 20, "4 MiB": 4 << 20}


async def _echo(call: Call) -> bytes:
    return await call.request()


async def _sink(call: Call) -> AsyncIterator[bytes]:
    while (message := await call.receive()) is not None:
        yield messages.WriteResponse(offset=len(messages.WriteRequest.decode(message).data)).encode()


async def _cpu(call: Call) -> bytes:
    return str(time.process_time()).encode()


async def _serve(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = Server({ECHO: _echo, SINK: _sink, CPU: _cpu}, allow=lambda peer: peer.uid == os.getuid())
        print("ready", flush=True)
        await server.serve(listener)


@asynccontextmanager
async def _server(path: str) -> AsyncIterator[Connection]:
    command = [sys.executable, __file__, "--serve", path]
    with subprocess.Popen(command, env=measure.variables(), stdout=subprocess.PIPE) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        process.stdout.readline()
        try:
            async with await Connection.open(path) as connection:
                yield connection
        finally:
            process.terminate()


async def _taken(connection: Connection) -> tuple[float, float, float]:
    """The moment, and the CPU of client and server until now."""
    server_s = float(await connection.call(CPU, b""))
    return time.monotonic(), time.process_time(), server_s


async def _calls(connection: Connection, count: int) -> list[float]:
    """Wall, the client's CPU and the server's of a call, in milliseconds."""
    before = await _taken(connection)
    for _ in range(count):
        await connection.call(ECHO, b"\x0a\x47" + bytes(71), {"containerd-namespace": "default"})
    after = await _taken(connection)
    return [1000 * (end - begin) / count for begin, end in zip(before, after, strict=True)]


async def _writes(connection: Connection, size: int, total: int) -> list[float]:
    """The same of so many bytes in requests of a size, in seconds for a GB."""
    data = bytes(size)
    before = await _taken(connection)
    async with connection.stream(SINK) as stream:
        for at in range(0, total, size):
            await stream.send(messages.WriteRequest(messages.WRITE, "r", total, "", at, data).encode())
            await stream.receive()
    after = await _taken(connection)
    return [1e9 * (end - begin) / total for begin, end in zip(before, after, strict=True)]


def _import_ms(module: str, runs: int) -> float:
    """The CPU of a process that imports it, in milliseconds."""
    return min(1000 * measure.measure([sys.executable, "-c", f"import {module}"]).cpu_s for _ in range(runs))


async def _measured(path: str, calls: int, total: int, runs: int) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    async with _server(path) as connection:
        await _calls(connection, min(calls, 100))  # what the first ones load is no call's
        for _ in range(runs):
            found.setdefault("call, ms", []).append(await _calls(connection, calls))
            for name, size in SIZES.items():
                found.setdefault(f"{name} requests, s/GB", []).append(await _writes(connection, size, total))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the least of each, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--bytes", type=int, default=256 << 20)
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        uvloop.run(_serve(options.serve))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        found = uvloop.run(_measured(f"{directory}/s", options.calls, options.bytes, options.runs))
    imports = {name: _import_ms(name, options.runs) for name in ("asyncio", "fastoci.containerd.rpc")}
    least = {name: [min(each) for each in zip(*runs, strict=True)] for name, runs in found.items()}
    for name, (wall, client, server) in least.items():
        print(f"{name:24} wall {wall:6.3f}, client's CPU {client:6.3f}, server's {server:6.3f}", file=sys.stderr)
    bars = [
        report.Bar("a call, client's CPU, ms", least["call, ms"][1], 0.5),
        report.Bar("a call, server's CPU, ms", least["call, ms"][2], 0.5),
        report.Bar("4 MiB requests, client's CPU, s/GB", least["4 MiB requests, s/GB"][1], 3.5),
        report.Bar("import beyond asyncio, CPU, ms", imports["fastoci.containerd.rpc"] - imports["asyncio"], 50),
    ]
    results = {"wall, client's CPU, server's CPU": found, "import, CPU, ms": imports}
    result = {"benchmark": "micro/rpc", **report.circumstances(), "results": results, "bars": report.bars(bars)}
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
