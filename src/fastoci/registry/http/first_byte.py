"""How long the first byte of an answer may take: a pull-through cache is silent until it has what it is asked for.

Rules:
1. A server that has answered before is waited for, and whoever asked is told so. It is not asked again meanwhile: that
   would begin its work anew.
2. One that never has is asked something small, in time. When it answers that, rule 1 holds.
3. While the body of a request is on its way, each piece has the time that any server has to take it; when all of it has
   been taken, the wait for the answer begins.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fastoci.registry.http.upload import Sending


class Patience(msgspec.Struct, frozen=True):
    """How long one request may wait for the first byte of its answer.

    ``longer``: than any server has, too. ``always``: at any server, not only at one that has answered before. ``tell``
    is called once, with the seconds that have passed, when the wait is to be a longer one.
    """

    total_s: float
    longer: bool
    always: bool
    tell: Callable[[float], object]


class Silence:
    """One wait for the first byte.

    Args:
        answered: whether the server ever has.
        quiet_s: how long any server may be silent.
        patience: None: that is all the time there is.
        probe: ask the server something small, and return at once; None where nobody knows what.
        probe_s: how long the answer to that may take.
        sending: the request's body, where it has one.
    """

    def __init__(
        self,
        answered: Callable[[], bool],
        quiet_s: float,
        patience: Patience | None = None,
        *,
        probe: Callable[[], object] | None = None,
        probe_s: float = 0.0,
        sending: Sending | None = None,
    ) -> None:
        self._sending = sending
        self._answered = answered
        self._quiet_s = quiet_s if patience is None else min(quiet_s, patience.total_s)
        self._patience = patience
        self._probe = probe if patience is not None and patience.longer and not patience.always else None
        unknown = self._probe is not None and not answered()
        self.first_s = max(self._quiet_s - probe_s, self._quiet_s / 2) if unknown else self._quiet_s
        self._next_s = self.first_s
        self._waited_s = 0.0

    def more_s(self) -> float:
        """``first_s``, or what this said last, is over, and nothing came: seconds to wait yet, 0 when it is enough."""
        if self._sending is not None:
            left_s = self._quiet_s - self._sending.idle_s()
            if left_s > 0 or not self._sending.done:
                return max(left_s, 0.0)
        self._waited_s += self._next_s
        patience = self._patience
        if self._waited_s < self._quiet_s:
            if self._probe is not None and not self._answered():
                self._probe()
            self._next_s = self._quiet_s - self._waited_s
        elif patience is None or not patience.longer or self._waited_s >= patience.total_s:
            return 0.0
        elif patience.always or self._answered():
            patience.tell(self._waited_s)
            self._next_s = patience.total_s - self._waited_s
        else:
            return 0.0
        return self._next_s
