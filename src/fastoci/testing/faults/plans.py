"""Fault plans at random: the same seed is the same plan, and a good source is left in each.

A plan has two to five faults, of some requests each. The registry itself, which may be all there is, is good from its
seventh answer about a thing on; it keeps silent or trickles twice at most; and it sends wrong bytes once at most, and
never behind a mirror that does. So the right client ends with the right bytes, whatever the plan.
"""

from __future__ import annotations

import random
from typing import Final, Literal

from fastoci.testing.faults.scenario import Host, Rule, Scenario, Tweak, What

_SIZES: Final = (64 << 10, 1 << 20, 9 << 20)  # bytes: one read, one buffer, several parts
_KINDS: Final = (
    "cut",
    "reset",
    "stall",
    "trickle",
    "flip",
    "other",
    "status",
    "limit",
    "range",
    "whole",
    "unended",
    "page",
)
_SILENT: Final = ("stall", "trickle")
_WRONG: Final = ("flip", "other", "page")
_OF_MANIFESTS: Final = ("status", "limit", "reset", "cut", "unended", *_WRONG)  # what may happen to one, too
_STATUSES: Final = (408, 500, 502, 503, 504)


def random_plan(seed: int) -> Scenario:
    """The plan of this seed, as a scenario that must end well."""
    rng = random.Random(seed)
    mirror: Literal["", "good"] = "good" if rng.random() < 0.4 else ""
    count, rules, kinds = rng.randint(2, 5), list[Rule](), set[str]()
    while len(rules) < count:
        host: Host = "mirror" if mirror and rng.random() < 0.7 else "registry"
        kind = rng.choice(_KINDS)
        family = "silent" if kind in _SILENT else "wrong" if kind in _WRONG else ""
        if family and family in kinds and (host == "registry" or family == "wrong"):
            continue
        rules.append(_rule(rng, kind, host))
        kinds.add(family)
    auth: Literal["none", "basic", "bearer"] = rng.choice(("none", "basic", "bearer"))
    return Scenario(
        f"R{seed}",
        "a plan at random",
        "ends with the right bytes",
        "ok",
        rules=tuple(rules),
        auth=auth,
        token_uses=rng.choice((0, 0, 3)) if auth == "bearer" else 0,
        cdn_uses=rng.choice((-1, -1, 0, 1)) if not mirror else -1,
        mirror=mirror,
        layer=rng.choice(_SIZES),
    )


def _rule(rng: random.Random, kind: str, host: Host) -> Rule:
    what: What = "manifest" if kind in _OF_MANIFESTS and rng.random() < 0.4 else "layer"
    first = rng.randint(1, 3)
    if kind in ("range", "whole"):
        what, first = "later", 1
    if what == "manifest" and kind in _WRONG:
        first = 1  # nobody asks for it again who has it
    last = first + (0 if kind in _WRONG else rng.randint(0, 1))
    return Rule(what, _tweak(rng, kind, 300 if what == "manifest" else 32 << 10), first=first, last=last, host=host)


def _tweak(rng: random.Random, kind: str, size: int) -> Tweak:
    part = round(rng.uniform(0.0, 0.99), 3)
    tweaks = {
        "cut": Tweak(part=part, end="cut"),
        "reset": Tweak(part=part, end="reset"),
        "stall": Tweak(part=part, end="stall"),
        "trickle": Tweak(pause_s=1.0),
        "flip": Tweak(flip=rng.randrange(size)),
        "page": Tweak(body="<html>Welcome</html>", headers=(("Content-Type", "text/html"),)),
        "other": Tweak(other=True),
        "status": Tweak(status=rng.choice(_STATUSES)),
        "limit": Tweak(status=429, headers=(("Retry-After", rng.choice(("1", "$soon"))),)),
        "range": Tweak(headers=(("Content-Range", rng.choice(("", "bytes 0-99/$size", "bytes 5-1/2"))),)),
        "whole": Tweak(whole=True),
        "unended": Tweak(framing="unended", part=part, end="cut"),
    }
    return tweaks[kind]
