"""How often and how late a request is sent again. Pure: nobody sleeps here, and randomness is the policy's.

Rules:
1. A request is tried ``tries`` times without progress; progress is ``progress`` bytes of a body.
2. Between two tries is a random wait up to ``first_s``, doubled each time up to ``maximum_s`` (full jitter): machines
   that failed in the same second do not come back in the same second.
3. All requests of a client share a budget of retries, which answers and progress fill again. When it is spent, errors
   are final: a thousand nodes in front of a registry in trouble ask it little more than once each.
4. A server that refuses because it is asked too often (429) and says when to come back is not in trouble. The wait is
   that time and a random one up to ``limited_s``, doubled with each refusal and shorter by what the server has answered
   since it refused last: who alone asks too much loses little, and a thousand nodes spread until the rate suffices.
   It costs a retry of the budget only where nothing was answered in between. With 200 machines before a server that
   takes 50 requests a second, 4 s kept them at 1.16 of that rate, 8 s at 0.95.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

_EARNED: Final = 0.1  # retries that an answer, or a MiB of a body, gives back


def _random() -> float:
    """A number of this process's own: a pickle of ``random.random`` would give each process the same ones."""
    return random.random()


def _whole() -> float:
    """No jitter."""
    return 1.0


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often one client tries. Times are seconds, ``progress`` bytes."""

    tries: int = 8  # of one request, without progress in between
    unreachable_tries: int = 3  # of these, after a timeout, or at a host that never answered: its name may be wrong
    first_s: float = 0.2
    maximum_s: float = 20.0
    limited_tries: int = 30  # of one request, when the server says how long to wait
    limited_s: float = 6.0
    progress: int = 1 << 20
    budget: int = 100  # retries over all requests
    rng: Callable[[], float] = _random  # a number in [0, 1], anew on each call

    def asked(self, retries: int | None, delay_s: float | None) -> RetryPolicy:
        """This policy with a user's number of retries, of whatever cause, and time before each; None: as it is."""
        found = self
        if retries is not None:
            tries = retries + 1
            budget = max(found.budget, retries)
            found = replace(found, tries=tries, unreachable_tries=tries, limited_tries=tries, budget=budget)
        if delay_s is not None:
            found = replace(found, first_s=delay_s, maximum_s=delay_s, limited_s=0.0, rng=_whole)
        return found


class RetryBudget:
    """The retries that all requests of one client share."""

    def __init__(self, size: int) -> None:
        self._size = self._left = float(size)

    def spend(self) -> bool:
        """Take one retry; False when there is none."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def earn(self) -> None:
        """Something worked."""
        self._left = min(self._size, self._left + _EARNED)


class Backoff:
    """The waits of one request.

    ``attempt`` tries have failed since there was progress; the last is number ``attempts`` if they go on failing so.
    """

    def __init__(self, policy: RetryPolicy, budget: RetryBudget) -> None:
        self._policy = policy
        self._budget = budget
        self._unreachable = self._limited = 0
        self.attempt = 0
        self.attempts = policy.tries

    def limited_s(self, answered: int) -> float | None:
        """Seconds beyond those that a server asks to wait, which takes no more requests now; None: no other try.

        Args:
            answered: requests that it answered since it refused one before this.
        """
        self.attempt += 1
        self._limited += 1
        self.attempts = self.attempt - self._limited + self._policy.limited_tries
        if self._limited >= self._policy.limited_tries or not (answered or self._budget.spend()):
            return None
        doubled: float = self._policy.limited_s * 2.0 ** min(self._limited - 1, 60)
        return self._policy.rng() * min(doubled / (1 + answered), self._policy.maximum_s)

    def next_s(self, *, unreachable: bool) -> float | None:
        """Seconds until the next try; None when there is none.

        Args:
            unreachable: the last try ended by a timeout, or at a host that never answered.
        """
        self.attempt += 1
        self._unreachable += unreachable
        few = self.attempt - self._unreachable + self._policy.unreachable_tries
        most = self._policy.tries + self._limited
        self.attempts = min(most, few) if unreachable else most
        if self.attempt >= most or self._unreachable >= self._policy.unreachable_tries:
            return None
        if not self._budget.spend():
            return None
        doubled: float = self._policy.first_s * 2.0 ** min(
            self.attempt - self._limited - 1, 60
        )  # a float ends at 2**1024
        return self._policy.rng() * min(doubled, self._policy.maximum_s)

    def renew(self) -> None:
        """There was progress."""
        self.attempt = self._unreachable = self._limited = 0
