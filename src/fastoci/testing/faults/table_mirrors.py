"""Scenarios N72 to N76: mirrors that would end or hold what the registry serves, and manifests that are wrong once."""

from __future__ import annotations

from typing import Final

from fastoci.testing.faults.scenario import Rule, Scenario, Tweak, What

_PAGE: Final = "<html><body>Welcome to our network</body></html>"
_HTML: Final = (("Content-Type", "text/html"),)
_INDEX: Final = "application/vnd.oci.image.index.v1+json"


def _mirror(fault: str, title: str, must: str, case: str, *rules: Rule, layer: int = 1 << 20) -> Scenario:
    return Scenario(fault, title, must, "ok", case=case, rules=rules, mirror="good", layer=layer)


def _nowhere(case: str, what: What, status: int, name: str, value: str) -> Scenario:
    rule = Rule(what, Tweak(status=status, headers=((name, value),)), host="mirror")
    return _mirror(
        "N72", "a mirror that names no URL", "asks the registry, whatever its parser makes of that", case, rule
    )


def _other(case: str, what: What, tweak: Tweak) -> Scenario:
    must = "takes no page for a document or a blob, and asks the registry"
    return _mirror("N73", "a mirror whose 200 is something else", must, case, Rule(what, tweak, host="mirror"))


def _once(case: str, tweak: Tweak) -> Scenario:
    must = "asks for a manifest that is cut or wrong once more"
    rules = (Rule("manifest", tweak, last=1),)
    return Scenario("N74", "a manifest that is wrong once", must, "ok", case=case, rules=rules)


MIRRORS: Final = (
    _nowhere("redirect", "layer", 307, "Location", "http://[::1]@"),
    _nowhere("moved", "manifest", 302, "Location", "http://[%zz]:[@"),
    _nowhere("realm", "api", 401, "WWW-Authenticate", 'Bearer realm="http://[::1]@",service="x"'),
    _other("portal", "manifest", Tweak(body=_PAGE, headers=_HTML)),
    _other("page", "layer", Tweak(body=_PAGE, headers=_HTML, framing="chunked")),
    _other("index", "manifest", Tweak(headers=(("Content-Type", _INDEX),))),
    _other("unknown", "manifest", Tweak(headers=(("Content-Type", "application/vnd.acme.thing+json"),))),
    _once("flip", Tweak(flip=20)),
    _once("short", Tweak(less=20)),
    _once("cut", Tweak(part=0.5, end="cut")),
    _once("page", Tweak(body=_PAGE, headers=_HTML)),
    _mirror(
        "N75",
        "a mirror that is far slower than the registry",
        "leaves it for the rest of the layer",
        "",
        Rule("layer", Tweak(rate=64 << 10), host="mirror"),
        layer=12 << 20,
    ),
    _mirror(
        "N76",
        "a mirror that wants to be let alone each time",
        "asks the registry meanwhile, and does not wait for the mirror",
        "",
        Rule("api", Tweak(status=429, headers=(("Retry-After", "50"),)), host="mirror"),
    ),
)
