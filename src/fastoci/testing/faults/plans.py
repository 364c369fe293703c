"""Fault plans at random: the same seed is the same plan, and a good source is left in each.

A plan has two to five faults, of some requests each. The registry itself, which may be all there is, is good from its
seventh answer about a thing on; it keeps silent or trickles twice at most; and it sends wrong bytes once at most, and
never behind a mirror that does. So the right client ends with the right bytes, whatever the plan.
"""

from __future__ import annotations

import random
from typing import Final, Literal

from fastoci.testing.faults.scenario import Act, Host, Rule, Scenario, What

_SIZES: Final = (64 << 10, 1 << 20, 9 << 20)  # bytes: one read, one span, several parts
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
    draw = random.Random(seed)
    mirror: Literal["", "good"] = "good" if draw.random() < 0.4 else ""
    count, rules, kinds = draw.randint(2, 5), list[Rule](), set[str]()
    while len(rules) < count:
        host: Host = "mirror" if mirror and draw.random() < 0.7 else "registry"
        kind = draw.choice(_KINDS)
        family = "silent" if kind in _SILENT else "wrong" if kind in _WRONG else ""
        if family and family in kinds and (host == "registry" or family == "wrong"):
            continue
        rules.append(_rule(draw, kind, host))
        kinds.add(family)
    auth: Literal["none", "basic", "bearer"] = draw.choice(("none", "basic", "bearer"))
    return Scenario(
        f"R{seed}",
        "a plan at random",
        "ends with the right bytes",
        "ok",
        rules=tuple(rules),
        auth=auth,
        token_uses=draw.choice((0, 0, 3)) if auth == "bearer" else 0,
        cdn_uses=draw.choice((-1, -1, 0, 1)) if not mirror else -1,
        mirror=mirror,
        layer=draw.choice(_SIZES),
    )


def _rule(draw: random.Random, kind: str, host: Host) -> Rule:
    what: What = "manifest" if kind in _OF_MANIFESTS and draw.random() < 0.4 else "layer"
    first = draw.randint(1, 3)
    if kind in ("range", "whole"):
        what, first = "later", 1
    if what == "manifest" and kind in _WRONG:
        first = 1  # nobody asks for it again who has it
    last = first + (0 if kind in _WRONG else draw.randint(0, 1))
    return Rule(what, _act(draw, kind, 300 if what == "manifest" else 32 << 10), first=first, last=last, host=host)


def _act(draw: random.Random, kind: str, size: int) -> Act:
    part = round(draw.uniform(0.0, 0.99), 3)
    acts = {
        "cut": Act(part=part, end="cut"),
        "reset": Act(part=part, end="reset"),
        "stall": Act(part=part, end="stall"),
        "trickle": Act(pause_s=1.0),
        "flip": Act(flip=draw.randrange(size)),
        "page": Act(body="<html>Welcome</html>", headers=(("Content-Type", "text/html"),)),
        "other": Act(other=True),
        "status": Act(status=draw.choice(_STATUSES)),
        "limit": Act(status=429, headers=(("Retry-After", draw.choice(("1", "$soon"))),)),
        "range": Act(headers=(("Content-Range", draw.choice(("", "bytes 0-99/$size", "bytes 5-1/2"))),)),
        "whole": Act(whole=True),
        "unended": Act(framing="unended", part=part, end="cut"),
    }
    return acts[kind]
