"""How often and how late a request is sent again. Pure: the chance comes from outside, nobody sleeps here.

Rules:
1. A request is tried ``tries`` times without progress; progress is ``progress`` bytes of a body.
2. Between two tries is a random wait up to ``first_s``, doubled each time up to ``most_s`` (full jitter): machines that
   failed in the same second do not come back in the same second.
3. All requests of a client share a budget of retries, which answers and progress fill again. When it is spent, errors
   are final: a thousand nodes in front of a registry in trouble ask it little more than once each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_EARNED: Final = 0.1  # retries that an answer, or a MiB of a body, gives back


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What one client puts up with. Times are seconds, ``progress`` bytes."""

    tries: int = 8  # of one request, without progress in between
    doubtful_tries: int = 3  # of these, that end by a timeout, or at a host that never answered: its name may be wrong
    first_s: float = 0.2
    most_s: float = 20.0
    max_wait_s: float = 60.0  # a longer wait that a server asks for is an error
    progress: int = 1 << 20
    budget: int = 100  # retries over all requests


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
    """The waits of one request."""

    def __init__(self, retry_policy: RetryPolicy, budget: RetryBudget, random: Callable[[], float]) -> None:
        self._policy = retry_policy
        self._budget = budget
        self._random = random
        self._failed = 0
        self._doubts = 0

    def next_s(self, *, doubtful: bool) -> float | None:
        """Seconds until the next try; None when there is none. ``doubtful``: one of those that few are enough of."""
        self._failed += 1
        self._doubts += doubtful
        if self._failed >= self._policy.tries or self._doubts >= self._policy.doubtful_tries:
            return None
        if not self._budget.spend():
            return None
        doubled: float = self._policy.first_s * 2 ** (self._failed - 1)
        return self._random() * min(doubled, self._policy.most_s)

    def renew(self) -> None:
        """There was progress."""
        self._failed = self._doubts = 0
