"""``Limits.total_connections``: so many connections to all hosts together, whatever is asked of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastoci import Engine, Limits, RegistryOptions
from fastoci.testing.auth import Bearer, Cdn
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer, from_seed
from fastoci.testing.registry import Registry
from support.scripted_server import Asked, Raw, Server, answer, serving


def image(seed: int) -> Image:
    return Image.build([Layer.build(from_seed(seed + number, files=3, size=300_000)) for number in range(3)])


@pytest.mark.parametrize("total", [1, 2])
async def test_a_pull_with_tokens_and_redirects_needs_no_more_than_one_connection(tmp_path: Path, total: int) -> None:
    async with Registry(Bearer("me", "pw"), cdn=Cdn()) as registry:
        for number in range(3):
            registry.add_image(f"app{number}", "latest", image(10 * number))
        options = RegistryOptions(creds=("me", "pw"), tls_verify=False)
        limits = Limits(total_connections=total)
        async with asyncio.timeout(30), Engine(tmp_path / "store", registry=options, limits=limits) as engine:
            await asyncio.gather(
                *(
                    engine.pull(f"{registry.address}/app{number}", rootfs=tmp_path / "trees" / str(number))
                    for number in range(3)
                )
            )


async def test_requests_to_several_hosts_share_the_connections(tmp_path: Path) -> None:
    waiting, servers, came = asyncio.Event(), list[Server](), asyncio.Semaphore(0)

    def script(asked: Asked) -> Raw:
        came.release()
        return Raw(answer(404).data, silence=waiting)

    async with serving(script) as one, serving(script) as two, serving(script) as three:
        servers += [one, two, three]
        limits, options = Limits(total_connections=2), RegistryOptions(tls_verify=False)
        async with Engine(tmp_path, registry=options, limits=limits) as engine:
            names = [f"{server.address}/app{number}" for server in servers for number in range(3)]
            tasks = [asyncio.create_task(engine.resolve(name)) for name in names]
            await came.acquire()
            await came.acquire()
            await asyncio.sleep(0.1)  # for a third
            assert sum(len(server.asked) for server in servers) == 2
            waiting.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(found) == len(names)
        assert min(len(server.asked) for server in servers) >= 3
