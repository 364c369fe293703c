"""The server that plays a scenario: a registry, its content network, a mirror, and hosts that must not be asked.

Requests decide what happens, never the time: every rule counts the requests it is about. ``requests`` is the log.
What a tweak does on the wire is in ``wire``; whether the client did right is for ``verdict``.
"""

from __future__ import annotations

import asyncio
import email.utils
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from string import Template
from types import TracebackType
from typing import Final, Self

from fastoci.server.http import Listener, Peer, Request, bind
from fastoci.server.pull_api import Answer, refusal
from fastoci.testing.auth import Basic, Bearer, Cdn
from fastoci.testing.faults import content
from fastoci.testing.faults.certificates import Authority
from fastoci.testing.faults.dead_hosts import DeadHost, Resetter
from fastoci.testing.faults.proxy import Proxy
from fastoci.testing.faults.scenario import Host, Scenario, Tweak, What
from fastoci.testing.faults.wire import ResponseWriter
from fastoci.testing.images import Image
from fastoci.testing.registry import Registry

USER: Final = "puller"
NAME: Final = "team/app"
TAG: Final = "v1"
METADATA: Final = "169.254.169.254"
_HOSTS: Final[dict[Host, str]] = {"cdn": "127.0.0.2", "evil": "127.0.0.3", "mirror": "127.0.0.4"}
_SOON_S: Final = 2.0
_AS_IT_IS: Final = Tweak()


@dataclass(slots=True)
class Asked:
    """One request, and what has been sent in answer so far."""

    host: str  # a Host, or "proxy"
    method: str
    target: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    at_s: float  # the loop's clock
    status: int = 0  # 0: none was sent
    retry_after_s: float = 0.0  # that a 429 or 503 named
    sent: int = 0  # bytes, heads included
    halted: bool = False  # all is sent; the connection stays, ends or stalls


class FaultServer:
    """``async with FaultServer(scenario) as server``: ``server.image`` is what to pull.

    Args:
        tls: serve https, by certificates of an authority whose PEM is ``ca``; needs trustme.
        second_s: how long a second of the scenario's trickles lasts.
    """

    def __init__(self, scenario: Scenario, *, tls: bool = False, second_s: float = 1.0) -> None:
        self.scenario = scenario
        self.requests: list[Asked] = []
        self.host = ""
        self.ca = b""
        self.origins: dict[Host, str] = {}
        self.proxy = ""  # its address, with the scenario's
        self.password = f"pw-{secrets.token_hex(16)}"
        self.proxy_password = f"px-{secrets.token_hex(16)}"
        self.images: tuple[Image, ...] = ()
        self._authority = Authority() if tls else None
        self._second_s = second_s
        self._counts = [0] * len(scenario.rules)
        self._cdn = Cdn(max(0, scenario.cdn_uses))
        self._registry = Registry()
        self._stack = AsyncExitStack()
        self._listeners: list[Listener] = []
        self._changed = asyncio.Event()
        self._digests: dict[str, What] = {}

    @property
    def image(self) -> str:
        """The reference to pull."""
        return f"{self.host}/{NAME}:{TAG}"

    @property
    def blobs(self) -> list[dict[str, bytes]]:
        """What must be there after a pull: the digests of one of these, with the right bytes."""
        return [
            {
                str(descriptor.digest): data if isinstance(data, bytes) else data.read_bytes()
                for descriptor, data in [*image.documents(), *image.blobs()]
            }
            for image in self.images
        ]

    @property
    def secrets(self) -> dict[str, frozenset[str]]:
        """What must appear in no output, and the hosts that may get it."""
        trusted: frozenset[str] = frozenset({"registry"} if self.scenario.credentials == "right" else ())
        if self._authority is not None:
            trusted |= frozenset(self.scenario.tls_trusted)
        allowed = dict.fromkeys(self._registry.secrets | {self.password}, trusted)
        allowed.update({each: frozenset({"cdn"}) for each in self._cdn.secrets})
        return {**allowed, self.proxy_password: frozenset({"proxy"})}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the request, or the end of an answer, after which ``condition`` holds."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        failures = [failure for listener in self._listeners for failure in listener.failures]
        if failures and error is None:
            raise failures[0]

    async def _start(self, stack: AsyncExitStack) -> None:
        scheme, registry = "http" if self._authority is None else "https", self._bind_registry()
        sockets: dict[Host, socket.socket] = {"registry": registry}
        stack.callback(registry.close)
        address = registry.getsockname()[0]
        for host, place in {**_HOSTS, "plain": address}.items():
            port = 80 if host == "plain" and self.scenario.address == "closed" else 0
            sockets[host] = _bind_first((place, port), (place, 0))
            stack.callback(sockets[host].close)
        for host, bound in sockets.items():
            at = "{}:{}".format(*bound.getsockname()[:2])
            self.origins[host] = f"{'http' if host == 'plain' else scheme}://{at}"
        self.origins["metadata"] = f"http://{METADATA}"
        self._name_registry(registry)
        self._fill_registry()
        await self._listen(stack, sockets)

    def _bind_registry(self) -> socket.socket:
        """Under TLS on port 443 where that is allowed: clients take other ports of loopback for plain http."""
        address = "127.0.0.1"
        if self._authority is None:
            return bind(address)
        if self.scenario.address != "double":  # an address that no other server has
            address = f"127.{secrets.randbelow(200) + 16}.{secrets.randbelow(256)}.{secrets.randbelow(250) + 1}"
        return _bind_first((address, 443), (address, 0))

    def _name_registry(self, registry: socket.socket) -> None:
        address, port = registry.getsockname()[:2]
        names = {"unknown": "registry.invalid", "double": "localhost"}
        self.host = f"{names.get(self.scenario.address, address)}:{port}"

    def _fill_registry(self) -> None:
        scenario = self.scenario
        auth: Basic | Bearer | None = None
        if scenario.auth == "basic":
            auth = Basic(USER, self.password)
        elif scenario.auth == "bearer":
            auth = Bearer(USER, self.password, uses=scenario.token_uses)
        tls = None if self._authority is None else ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._registry = Registry(auth, cdn=self._cdn if scenario.cdn_uses >= 0 else None, tls=tls)
        self._registry.address = self.origins["registry"].partition("://")[2]
        self._registry.cdn_address = self.origins["cdn"].partition("://")[2]
        self.images = content.build(scenario.layer, scenario.images)
        if scenario.foreign:
            self.images = tuple(content.with_urls(each, [f"{self.origins['evil']}/layer"]) for each in self.images)
        for image in reversed(self.images):
            self._registry.add_image(NAME, TAG, image)
        for image in self.images:
            kinds: list[What] = ["config", "any", "layer"]
            self._digests.update(
                {str(descriptor.digest): kind for (descriptor, _), kind in zip(image.blobs(), kinds, strict=True)}
            )

    async def _listen(self, stack: AsyncExitStack, sockets: dict[Host, socket.socket]) -> None:
        scenario = self.scenario
        dead: socket.socket | None = None
        if scenario.mirror == "dead":
            dead = sockets.pop("mirror")
        elif scenario.address == "double":
            with suppress(OSError):  # without IPv6 the name has one address
                dead = bind("::1", sockets["registry"].getsockname()[1])
        if dead is not None:
            stack.callback(dead.close)
            await _started(stack, DeadHost(dead))
        if scenario.address == "closed":
            del sockets["registry"]  # bound, so that nobody else has the port, and not listening
        elif scenario.tls == "handshake":
            await _started(stack, Resetter(sockets.pop("registry")))
        with suppress(OSError):  # not an address of this machine: who asks there is not seen
            sockets["metadata"] = bind(METADATA, 80)
            stack.callback(sockets["metadata"].close)
        contexts = self._contexts(sockets)
        for host, bound in sockets.items():
            await self._serve(stack, host, bound, contexts.get(host))
        if scenario.proxy:
            proxy = Proxy(self._proxied, self._through_proxy)
            self.proxy = await proxy.start(bind("127.0.0.5"))
            stack.push_async_callback(proxy.aclose)

    def _contexts(self, sockets: dict[Host, socket.socket]) -> dict[Host, ssl.SSLContext]:
        if self._authority is None:
            return {}
        self.ca = self._authority.pem
        names = sorted({bound.getsockname()[0] for bound in sockets.values()} | {"localhost"})
        good = self._authority.context(names)
        contexts: dict[Host, ssl.SSLContext] = dict.fromkeys(("registry", "cdn", "evil", "mirror"), good)
        kind = self.scenario.tls
        if kind and kind != "only" and kind != "handshake":
            contexts["registry"] = self._authority.context(names, kind)
        return contexts

    async def _serve(
        self, stack: AsyncExitStack, host: Host, bound: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        async def handle(request: Request, peer: Peer) -> bool:
            return await self._handle(host, request, peer)

        listener = Listener(handle)
        self._listeners.append(listener)
        stack.push_async_callback(listener.aclose)
        await listener.start(bound, context)

    def _log(self, host: str, request: Request) -> Asked:
        now = asyncio.get_running_loop().time()
        asked = Asked(host, request.method, request.target, request.headers, request.body, now)
        self.requests.append(asked)
        return asked

    def _proxied(self, request: Request) -> None:
        self._log("proxy", request)

    async def _through_proxy(self, authority: str, request: Request, peer: Peer) -> bool:
        for host, origin in self.origins.items():
            if origin.partition("://")[2] == authority:
                return await self._handle(host, request, peer)
        return False

    async def _handle(self, host: Host, request: Request, peer: Peer) -> bool:
        asked = self._log(host, request)
        tweak = self._tweak(host, request)
        try:
            answer = await self._answer(host, request, tweak)
            peer.sent = 0
            asked.status = 0 if tweak.unresponsive else tweak.status or answer.status
            writer = ResponseWriter(peer, tweak, lambda text: self._filled(text, request), self._second_s)
            asked.retry_after_s = _seconds(dict(tweak.headers).get("Retry-After", "")) if asked.status >= 400 else 0.0
            self._changed.set()
            await writer.send(request.method, answer)
            asked.sent, asked.halted = peer.sent, True
            self._changed.set()
            return await writer.end()
        finally:
            asked.sent = peer.sent
            self._changed.set()

    def _tweak(self, host: Host, request: Request) -> Tweak:
        kinds, chosen = self._kinds(request), None
        for number, rule in enumerate(self.scenario.rules):
            if rule.host == host and rule.what in kinds:
                self._counts[number] += 1
                if chosen is None and rule.first <= self._counts[number] <= rule.last:
                    chosen = rule.tweak
        return chosen or _AS_IT_IS

    def _kinds(self, request: Request) -> set[What]:
        path = request.path
        kinds: set[What] = {"any"}
        if request.reused:
            kinds.add("reused")
        if path != "/token":
            kinds.add("api")
            if "authorization" not in request.headers:
                kinds.add("bare")
                if path != "/v2/":
                    kinds.add("hidden")
        if request.method == "HEAD":
            kinds.add("head")
            return kinds
        if path == "/token":
            kinds.add("token")
        elif "/manifests/" in path:
            kinds.add("manifest")
        kind: What = self._digests.get(path.rpartition("/")[2], "any")
        if kind == "layer":
            wanted = request.headers.get("range", "bytes=0-").replace(" ", "")
            kinds.add("first" if wanted.startswith("bytes=0-") else "later")
        kinds.add(kind)
        return kinds

    async def _answer(self, host: Host, request: Request, tweak: Tweak) -> Answer:
        if tweak.whole:
            headers = {name: value for name, value in request.headers.items() if name != "range"}
            request = replace(request, headers=headers)
        if tweak.image and request.path.endswith(f"/manifests/{TAG}"):
            digest = self.images[tweak.image].descriptor.digest
            request = replace(request, target=f"/v2/{NAME}/manifests/{digest}")
        if host == "evil":
            return self._harvest(request)
        if host in ("registry", "cdn"):
            return await self._registry.answer(request, host)
        return await self._registry.read(request)

    def _harvest(self, request: Request) -> Answer:
        if request.path == "/token":
            body = b'{"token":"harvest","expires_in":300}'
            return Answer(200, {"Content-Type": "application/json"}, body, 0, len(body))
        scheme = (
            "Basic realm=evil" if self.scenario.foreign else f'Bearer realm="{self.origins["evil"]}/token",service=x'
        )
        return refusal(401, "UNAUTHORIZED", "tell me who you are", {"WWW-Authenticate": scheme})

    def _filled(self, text: str, request: Request) -> str:
        if "$" not in text:
            return text
        layer = self.images[0].layers[-1].descriptor
        values: dict[str, str] = {host: origin for host, origin in self.origins.items()}
        values.update(layer=str(layer.digest), size=str(layer.size), target=request.target, name=NAME)
        values.update(small=str(self.images[0].layers[0].descriptor.digest))
        values.update(soon=email.utils.formatdate(time.time() + _SOON_S, usegmt=True))
        values.update(userinfo=self.origins["registry"].replace("://", "://mallory:malice@"))
        if "$token" in text:
            values["token"] = self._registry.token(NAME)
        return Template(text).safe_substitute(values)


async def _started(stack: AsyncExitStack, host: DeadHost | Resetter) -> None:
    stack.push_async_callback(host.aclose)
    await host.start()


def _bind_first(*addresses: tuple[str, int]) -> socket.socket:
    for address, port in addresses[:-1]:
        try:
            return bind(address, port)
        except OSError:
            continue
    return bind(*addresses[-1])


def _seconds(retry_after: str) -> float:
    if retry_after == "$soon":
        return _SOON_S - 1.0  # a date has whole seconds
    return float(retry_after) if retry_after.isdecimal() else 0.0
