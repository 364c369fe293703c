"""Scenarios N47 to N71 and N79: odd answers, floods, silence, connections, TLS, and several pulls at once."""

from __future__ import annotations

from typing import Final

from fastoci.testing.faults.scenario import Flood, Rule, Scenario, Tweak

_TAKEN: Final = 32 << 20  # bytes: beyond what a client and two kernels hold of an answer that is too long
_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_HALF: Final = Tweak(part=0.5, end="stall")


def _absent(case: str, tweak: Tweak) -> Scenario:
    must = "says that there is no such image, and asks no more"
    rules = (Rule("manifest", tweak), Rule("head", tweak))
    title = "no such manifest"
    return Scenario("N47", title, must, "error", "not_found", case=case, rules=rules, max_requests=6)


def _later(case: str, value: str, title: str, *, sure: bool = True, what: str = "manifest") -> Scenario:
    tweak = Tweak(status=429, headers=(("Retry-After", value),))
    must = "waits as long as Retry-After says, or says when to come back; guesses where it is nonsense"
    rules = (Rule("layer", tweak, last=1),) if what == "layer" else (Rule("manifest", tweak, last=1),)
    return Scenario("N48", title, must, "ok" if sure else "either", case=case, rules=rules)


def _failing(case: str, tweak: Tweak, *, last: int) -> Scenario:
    must = "tries again, some five times at most"
    return Scenario("N51", "an error of the server", must, "ok", case=case, rules=(Rule("layer", tweak, last=last),))


def _status(status: int) -> Scenario:
    must = "tries again after 408 and 425, on another connection after 421; takes no other for a layer"
    rules = (Rule("layer", Tweak(status=status), last=1),)
    return Scenario("N52", "an odd status", must, "either", case=str(status), rules=rules)


def _digest(case: str, value: str) -> Scenario:
    tweak = Tweak(headers=(("Docker-Content-Digest", value),))
    must = "computes the digest, and trusts no header"
    rules = (Rule("manifest", tweak), Rule("head", tweak))
    return Scenario("N54", "Docker-Content-Digest is not the digest", must, "either", case=case, rules=rules)


def _flood(case: str, flood: Flood, title: str) -> Scenario:
    rules = (Rule("manifest", Tweak(flood=flood)),)
    must = "limits headers"
    return Scenario("N58", title, must, "error", "size_limit|protocol", case=case, rules=rules, max_bytes=_TAKEN)


def _headed(case: str, *lines: str) -> Scenario:
    tweak = Tweak(lines=lines)
    rules = (Rule("manifest", tweak), Rule("config", tweak), Rule("layer", tweak))
    must = "reads headers that are large, many or repeated, up to some bound"
    return Scenario("N79", "headers as proxies make them", must, "ok", case=case, rules=rules)


_BAD_TLS: Final = "fails, names the reason, and falls back to nothing"

ANSWERS: Final = (
    _absent("json", Tweak(status=404)),
    _absent("html", Tweak(status=404, body="<html>no</html>", headers=(("Content-Type", "text/html"),))),
    _absent("empty", Tweak(status=404, body="")),
    _later("seconds", "2", "429, come back in 2 s"),
    _later("layer", "2", "429 for the layer, come back in 2 s", what="layer"),
    _later("date", "$soon", "429, come back at a time"),
    _later("negative", "-5", "429, come back 5 s ago"),
    _later("garbage", "soon", "429, come back soon"),
    _later("year", "31536000", "429, come back in a year", sure=False),
    Scenario(
        "N49",
        "429 three times, without a word of when",
        "waits longer each time",
        "ok",
        rules=(Rule("manifest", Tweak(status=429), last=3),),
    ),
    Scenario(
        "N50",
        "429 for a signature",
        "takes what it cannot check for unchecked",
        "error",
        "policy_unavailable",
        run="never",
    ),
    _failing("503", Tweak(status=503), last=2),
    _failing("500", Tweak(status=500), last=1),
    _failing("502", Tweak(status=502, body="<html>Bad Gateway</html>"), last=1),
    _failing("504", Tweak(status=504), last=1),
    Scenario(
        "N51",
        "503 always",
        "gives up after some five tries",
        "error",
        "unavailable",
        case="always",
        rules=(Rule("api", Tweak(status=503)),),
        max_requests=12,
    ),
    *(_status(status) for status in (408, 421, 425, 426, 304, 204, 206)),
    *(
        Scenario(
            "N53",
            f"{status} for every HEAD",
            "asks by GET",
            "ok",
            case=str(status),
            rules=(Rule("head", Tweak(status=status)),),
        )
        for status in (405, 404, 501, 401, 403, 406, 500, 503)
    ),
    _headed("large", "X-Policy: " + "a" * 500_000),
    _headed("many", *(f"X-Meta-{number}: abcdefgh" for number in range(5000))),
    _headed(
        "twice", "Content-Type: application/octet-stream", "Content-Type: application/octet-stream", "X: 1", "X: 1"
    ),
    _digest("wrong", "sha256:" + "0" * 64),
    _digest("missing", ""),
    _digest("malformed", "sha256:xyz"),
    _digest("other", "sha512:" + "0" * 128),
    Scenario(
        "N55",
        "the tag is another image each time",
        "goes on by the digest of what it saw first",
        "ok",
        rules=(
            Rule("manifest", Tweak(image=1), first=1, last=1),
            Rule("manifest", Tweak(image=2), first=2),
        ),
        images=3,
    ),
    Scenario(
        "N56",
        "a page to log in at instead of the manifest",
        "takes no page for a manifest",
        "error",
        "bad_manifest",
        case="portal",
        rules=(
            Rule(
                "manifest",
                Tweak(body="<html>Welcome to our network</html>", headers=(("Content-Type", "text/html"),)),
            ),
        ),
    ),
    Scenario(
        "N56",
        "a manifest said to be an index, and both at once",
        "refuses a document that is two things",
        "error",
        "bad_manifest",
        case="both",
        rules=(
            Rule(
                "manifest",
                Tweak(
                    body='{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}',
                    headers=(("Content-Type", _TYPE.replace("manifest", "index")), ("Docker-Content-Digest", "")),
                ),
            ),
        ),
    ),
    Scenario(
        "N56",
        "a type in upper case, with a parameter",
        "reads types as HTTP has them",
        "either",
        case="parameter",
        rules=(Rule("manifest", Tweak(headers=(("Content-Type", f"{_TYPE.upper()}; charset=utf-8"),))),),
    ),
    Scenario(
        "N57",
        "a manifest without end",
        "stops at some MiB",
        "error",
        "size_limit",
        case="endless",
        rules=(Rule("manifest", Tweak(body='{"schemaVersion":2,"x":"', padding=1 << 30, framing="chunked")),),
        max_bytes=_TAKEN,
    ),
    Scenario(
        "N57",
        "a manifest of 1 GiB, as announced",
        "stops at some MiB",
        "error",
        "size_limit",
        case="announced",
        rules=(Rule("manifest", Tweak(padding=1 << 30)),),
        max_bytes=_TAKEN,
    ),
    Scenario(
        "N58",
        "a refusal of 1 GiB",
        "reads some KiB of it",
        "error",
        "size_limit|protocol",
        case="refusal",
        rules=(Rule("manifest", Tweak(status=401, padding=1 << 30)),),
        max_bytes=_TAKEN,
    ),
    _flood("header", "header", "a header without end"),
    _flood("headers", "headers", "headers without end"),
    _flood("hints", "informational", "interim answers without end"),
    Scenario(
        "N58",
        "trailers without end",
        "limits trailers, or leaves them",
        "either",
        case="trailers",
        rules=(Rule("layer", Tweak(framing="chunked", flood="trailers")),),
        max_bytes=_TAKEN,
    ),
    Scenario(
        "N59",
        "a mirror that answers no connection",
        "gives it some seconds, and goes on to the next",
        "ok",
        case="mirror",
        mirror="dead",
    ),
    Scenario(
        "N59",
        "an address of two that answers no connection",
        "tries the other address soon",
        "ok",
        case="address",
        address="double",
    ),
    Scenario(
        "N60",
        "a server that never answers",
        "gives up in bounded time",
        "error",
        "timeout",
        rules=(Rule("any", Tweak(unresponsive=True, end="stall")),),
    ),
    Scenario(
        "N61",
        "half a layer, and silence",
        "gives up the connection, and asks for the rest",
        "ok",
        rules=(Rule("layer", _HALF, last=1),),
    ),
    Scenario(
        "N62",
        "a byte a second",
        "gives up a connection that is too slow, and asks for the rest",
        "ok",
        rules=(Rule("layer", Tweak(pause_s=1.0), last=1),),
    ),
    Scenario(
        "N63",
        "a kept connection that ends as it is used",
        "asks again on a new one",
        "ok",
        rules=(Rule("reused", Tweak(unresponsive=True, end="cut"), last=2),),
    ),
    Scenario(
        "N64",
        "an answer that was not asked for",
        "uses no connection on which there is too much",
        "ok",
        case="answer",
        rules=(Rule("manifest", Tweak(after="HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), last=1),),
    ),
    Scenario(
        "N64",
        "HEAD with a body",
        "uses no connection on which there is too much",
        "ok",
        case="head",
        rules=(Rule("head", Tweak(after="HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")),),
    ),
    Scenario("N65", "an expired certificate", _BAD_TLS, "error", "tls", case="expired", tls="expired"),
    Scenario("N65", "a certificate for another name", _BAD_TLS, "error", "tls", case="name", tls="name"),
    Scenario("N65", "an unknown authority", _BAD_TLS, "error", "tls", case="unknown", tls="unknown"),
    Scenario("N65", "a self-signed certificate", _BAD_TLS, "error", "tls", case="self", tls="self"),
    Scenario("N65", "TLS 1.0", _BAD_TLS, "error", "tls", case="old", tls="old"),
    Scenario("N65", "a reset in the handshake", _BAD_TLS, "error", "tls", case="handshake", tls="handshake"),
    Scenario(
        "N65",
        "half a body of no length, and an end without close_notify",
        "takes it for a cut",
        "ok",
        case="truncated",
        rules=(Rule("layer", Tweak(framing="close", part=0.5, end="cut"), last=1),),
        tls="only",
    ),
    Scenario(
        "N66",
        "nobody listens for TLS, and somebody at port 80",
        "does not fall back to http",
        "error",
        "connect",
        address="closed",
        silent=("metadata", "plain"),
    ),
    Scenario("N67", "a name that is none", "says so", "either", address="unknown"),
    Scenario(
        "N68",
        "two pulls of one image, and the first is killed in mid-layer",
        "lets the other go on",
        "ok",
        rules=(Rule("layer", _HALF, last=1),),
        run="leader",
    ),
    Scenario(
        "N69",
        "killed in mid-layer, four times",
        "leaves nothing that hinders the next",
        "ok",
        rules=(Rule("layer", Tweak(part=0.2, end="stall"), last=4),),
        run="killed",
    ),
    Scenario(
        "N70",
        "a mirror with wrong content",
        "sees that the hash does not hold, and asks the registry",
        "ok",
        rules=(Rule("layer", Tweak(other=True), host="mirror"),),
        mirror="good",
    ),
    Scenario(
        "N71",
        "pushes that go wrong",
        "goes on from the Range header, begins again, and looks at what is there",
        "either",
        run="never",
    ),
)
