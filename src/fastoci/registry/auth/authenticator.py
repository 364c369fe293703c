"""Authorization: requests sent with Basic credentials or Bearer tokens, and again after a 401.

It knows when a token is kept, fetched and given up; how one is fetched, and who may get a secret, is ``tokens``'.

Rules:
1. A token is kept by the registry's origin and the scope. One fetch runs for each, whoever waits.
2. A token that was never good is not fetched again: only one that is due, one that was good before, or one for a wider
   scope is.
3. A credential, and a token, goes to the registry's own origin. Whoever a redirect leads to gets none.
4. Some registries hide from strangers what needs a login (400, 403, 404, a page for people), or do not say how to log
   in. They are asked once, at ``/v2/``, and what they ask for there is offered.

Spec: distribution-spec token authentication; RFC 6750; RFC 7617.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Final

import msgspec

from fastoci.discreet import Discreet
from fastoci.errors import FastociError, RegistryError, TransportError
from fastoci.registry.auth import challenge
from fastoci.registry.auth.challenge import Challenge
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.tokens import TokenServices, basic
from fastoci.registry.http.content_encoding import content_type
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.untrusted import parsed
from fastoci.registry.http.urls import Origin

_USED_PART: Final = 0.8  # of a token's life, after which it is renewed
_SCOPES: Final = 8  # of one token
_SENDS: Final = 4  # of one request: short lives may end while it waits for a connection
_PASSING: Final = frozenset({408, 416, 421, 425, 429})  # of 4xx: said to everyone alike

_Key = tuple[Origin, str]
Send = Callable[[str | None], Awaitable[Reply]]  # sends one request, with this Authorization header if there is one
Find = Callable[[], Awaitable[Credential | None]]


class Ping(msgspec.Struct, frozen=True):
    """Asks for ``/v2/``, without credentials. ``pages``: what is asked for is no page, unless its label is wrong."""

    send: Callable[[], Awaitable[Reply]]
    pages: bool


class _Grant(Discreet, frozen=True):
    hidden: ClassVar = frozenset({"header"})

    header: str
    renew_at: float  # by the clock
    scopes: tuple[str, ...] = ()
    challenge: Challenge | None = None  # who gave it; None: nobody can give another
    credential: Credential | None = None
    proven: bool = False  # the registry took it


class Authenticator:
    """The authorizations of one client. Used on one loop.

    Args:
        tls_verify: certificates of token services are checked.
        strict: a token is never asked for without the credential, where there is one that may not be sent.
        clock: monotonic seconds; the loop's by default.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        tls_verify: bool,
        strict: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._services = TokenServices(transport, tls_verify=tls_verify, strict=strict)
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._grants: dict[_Key, _Grant] = {}
        self._pending: dict[_Key, asyncio.Task[_Grant]] = {}
        self._pinged: dict[Origin, tuple[Challenge, ...]] = {}  # what /v2/ asks for
        self._pings: dict[Origin, asyncio.Lock] = {}

    async def aclose(self) -> None:
        """End token requests that are under way."""
        tasks = list(self._pending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def request(
        self, origin: Origin, scope: str, send: Send, find: Find, *, name: str, verified: bool, ping: Ping | None
    ) -> Reply:
        """Send a request until it is authorized; the answer has any status but 401.

        Args:
            origin: what the request is sent to.
            scope: what a token must allow, several with spaces between; empty for none.
            send: a redirect to another origin drops the header.
            find: the credential; called only when it is asked for.
            name: the registry as the user knows it, for messages.
            verified: certificates of ``origin`` are checked.
            ping: asks how to log in, when a refusal does not say it.
        Raises:
            UnauthorizedError: 401, and nothing more to try; or the token service may not be asked, or answers nonsense.
            CredentialError: a helper or plugin fails.
            RegistryError, TransportError: no answer, or none that is useful, of registry or token service; it hides.
        """
        key = (origin, scope)
        sent = await self._first(key, verified)
        credential: Credential | None = None
        for count in itertools.count(1):
            reply = await send(sent)
            hides = ping is not None and sent is None and _may_hide(reply, ping) and reply.origin == origin
            challenges = _challenges(reply) if hides or reply.status in (401, 403) else ()
            wider = self._wider(key, challenges) if reply.origin == origin else ()
            if reply.status != 401 and not hides and not (reply.status == 403 and wider and count < _SENDS):
                self._prove(key, sent)
                return reply
            if reply.origin != origin:  # whoever the registry redirects to gets no credential, whatever it asks for
                raise await error_of(reply, hint="asked by the host of a redirect")
            if count == 1 and not hides:
                credential = await _found(find, reply)
            refused = await error_of(reply, hint="" if hides else _why(name, scope, credential, sent, challenges))
            if sent is None and ping is not None:
                challenges = await self._ask_how(origin, ping, challenges)
            if hides:
                credential, sent = await self._offer(key, challenges, find, refused, verified)
                ping = ping if sent else None  # then it is had again, and taken as it comes
                continue
            again = count < _SENDS
            sent = await self._answer(key, challenges, credential, sent, wider, verified) if again else None
            if sent is None:
                raise refused
        raise AssertionError

    async def _ask_how(self, origin: Origin, ping: Ping, known: tuple[Challenge, ...]) -> tuple[Challenge, ...]:
        """The ``known`` challenges if they can be answered, else what ``/v2/`` asks for, which is asked once."""
        if _usable(known):
            return known
        async with self._pings.setdefault(origin, asyncio.Lock()):
            if origin not in self._pinged:
                try:
                    reply = await ping.send()
                except (RegistryError, TransportError):
                    return known
                reply.close()
                asks = reply.status == 401 and reply.origin == origin
                self._pinged[origin] = _challenges(reply) if asks else ()
        return self._pinged[origin] or known

    async def _offer(
        self, key: _Key, challenges: Sequence[Challenge], find: Find, refused: RegistryError, verified: bool
    ) -> tuple[Credential | None, str | None]:
        """The credential, and the header to send, where a registry hides something from strangers.

        Returns: nothing to send where a page came, and nothing is asked for: it may be a manifest with a wrong label.
        Raises:
            RegistryError: ``refused``, when nothing is asked for, or there is nothing to offer.
        """
        try:
            return await self._way_in(key, challenges, find, refused, verified)
        except RegistryError as error:
            if error is refused and refused.status == 200:
                return None, None
            raise

    async def _way_in(
        self, key: _Key, challenges: Sequence[Challenge], find: Find, refused: RegistryError, verified: bool
    ) -> tuple[Credential | None, str]:
        if not _usable(challenges):
            raise refused
        credential = await find()
        try:
            header = await self._answer(key, challenges, credential, None, (), verified)
        except (RegistryError, TransportError) as error:
            if credential is None:
                raise refused from error  # a token for strangers was worth a try
            raise
        if header is None:
            raise refused
        return credential, header

    async def _first(self, key: _Key, verified: bool) -> str | None:
        """The header to send first: None when the registry has not asked for one yet."""
        grant = self._grants.get(key)
        if grant is None:
            return None
        if self._clock() < grant.renew_at or grant.challenge is None:
            return grant.header
        return await self._obtain(key, grant.challenge, grant.scopes, grant.credential, verified)

    def _wider(self, key: _Key, challenges: Sequence[Challenge]) -> tuple[str, ...]:
        """The scopes that a registry asks for beyond those of the token that it was sent."""
        grant = self._grants.get(key)
        bearer = _bearer(challenges)
        if bearer is None or (grant is None and bearer.params.get("error") != "insufficient_scope"):
            return ()
        held = grant.scopes if grant is not None else tuple(key[1].split(" "))
        wanted = dict.fromkeys(bearer.params.get("scope", "").split(" "))
        return tuple(scope for scope in wanted if scope and scope not in held)[: max(0, _SCOPES - len(held))]

    def _prove(self, key: _Key, sent: str | None) -> None:
        grant = self._grants.get(key)
        if grant is not None and grant.header == sent and not grant.proven:
            self._grants[key] = msgspec.structs.replace(grant, proven=True)

    async def _answer(
        self,
        key: _Key,
        challenges: Sequence[Challenge],
        credential: Credential | None,
        rejected: str | None,
        wider: tuple[str, ...],
        verified: bool,
    ) -> str | None:
        """The header to send after a refusal of ``rejected``, or None when there is nothing to try."""
        grant = self._grants.get(key)
        due = grant is not None and self._clock() >= grant.renew_at
        if grant is not None and grant.header != rejected and not due:
            return grant.header  # another task got it meanwhile
        bearer = _bearer(challenges)
        if bearer is None or (credential is not None and credential.registry_token):
            header = _own(challenges, credential)
            if header is None or header == rejected:
                return None
            self._grants[key] = _Grant(header, math.inf)
            return header
        useful = due or wider or key in self._pending or grant is None or grant.challenge is None or grant.proven
        if not useful:
            return None  # it was fetched for this, and never good
        held = grant.scopes if grant is not None and grant.scopes else tuple(key[1].split(" "))
        return await self._obtain(key, bearer, (*held, *wider), credential, verified)

    async def _obtain(
        self, key: _Key, bearer: Challenge, scopes: tuple[str, ...], credential: Credential | None, verified: bool
    ) -> str:
        """Fetch a token, or wait for the fetch under way: it goes on when this waiter is cancelled."""
        task = self._pending.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch(key[0], bearer, scopes, credential, verified))
            self._pending[key] = task
            task.add_done_callback(lambda done: self._keep_grant(key, done))
        try:
            return (await asyncio.shield(task)).header
        except FastociError as error:
            raise copy.copy(error) from error  # each waiter may write the image it was for into its own

    def _keep_grant(self, key: _Key, task: asyncio.Task[_Grant]) -> None:
        self._pending.pop(key, None)
        if not task.cancelled() and task.exception() is None:
            self._grants[key] = task.result()

    async def _fetch(
        self, origin: Origin, bearer: Challenge, scopes: tuple[str, ...], credential: Credential | None, verified: bool
    ) -> _Grant:
        started = self._clock()
        token, life_s = await self._services.fetch(origin, bearer, scopes, credential, verified=verified)
        return _Grant(f"Bearer {token}", started + life_s * _USED_PART, scopes, bearer, credential)


def _may_hide(reply: Reply, ping: Ping) -> bool:
    """Whether this may be what a registry says to strangers of that which needs a login."""
    if reply.status == 200:
        return ping.pages and content_type(reply) == "text/html"
    return 400 <= reply.status < 500 and reply.status != 401 and reply.status not in _PASSING


async def _found(find: Find, reply: Reply) -> Credential | None:
    """What ``find`` finds; the reply is closed when it fails."""
    try:
        return await find()
    except BaseException:
        reply.close()
        raise


def _challenges(reply: Reply) -> tuple[Challenge, ...]:
    return parsed(challenge.parse, reply.header("WWW-Authenticate")) or ()


def _why(
    name: str, scope: str, credential: Credential | None, sent: str | None, challenges: Sequence[Challenge]
) -> str:
    """What to say of a 401."""
    bearer = _bearer(challenges)
    if sent is not None and bearer is not None and bearer.params.get("error") == "insufficient_scope":
        who = f"the credentials for {name} do not" if credential else f"{name} does not, without credentials,"
        _, _, wanted = scope.partition(" ")[0].partition(":")
        repository, _, actions = wanted.rpartition(":")
        return f"{who} allow {actions} of {repository}"
    if credential is None:
        return f"no credentials for {name}"
    if sent is None:
        return f"the credentials for {name} were not sent: it does not ask for such"
    return f"the credentials for {name} were not accepted"


def _usable(challenges: Sequence[Challenge]) -> bool:
    return _bearer(challenges) is not None or any(each.scheme == "basic" for each in challenges)


def _bearer(challenges: Sequence[Challenge]) -> Challenge | None:
    return next((each for each in challenges if each.scheme == "bearer" and each.params.get("realm")), None)


def _own(challenges: Sequence[Challenge], credential: Credential | None) -> str | None:
    """The header that needs no token service."""
    if credential is None:
        return None
    if credential.registry_token and any(each.scheme == "bearer" for each in challenges):
        return f"Bearer {credential.registry_token}"
    if credential.username and any(each.scheme == "basic" for each in challenges):
        return basic(credential)
    return None
