"""Scenarios N24 to N46 and N77: redirects, other hosts, and who gets credentials."""

from __future__ import annotations

import json
from typing import Final, Literal

from fastoci.testing.faults.scenario import ENDLESS, Expect, Host, Rule, Scenario, Tweak

_METADATA: Final = "http://169.254.169.254/fastoci-canary"
_LOGINS: Final[tuple[Literal["basic", "bearer"], ...]] = ("basic", "bearer")
_STRAY: Final[tuple[Host, ...]] = ("metadata", "plain")


def _redirect(location: str, *, last: int | None = None, status: int = 307, host: Host = "registry") -> Rule:
    tweak = Tweak(status=status, headers=(("Location", location),))
    return Rule("layer", tweak, host=host) if last is None else Rule("layer", tweak, last=last, host=host)


def _odd(case: str, location: str) -> Scenario:
    must = "follows redirects to http and https only"
    rules = (_redirect(location, status=302),)
    return Scenario("N27", "a redirect to another scheme", must, "error", "bad_redirect", case=case, rules=rules)


def _metadata(case: str, location: str) -> Scenario:
    must = "looks at the address that it connects to, and refuses link-local ones on a server's word"
    title, rules = "a redirect to the metadata service", (_redirect(location),)
    return Scenario("N28", title, must, "error", "blocked_address", case=case, rules=rules)


def _challenged(value: str) -> tuple[Rule, ...]:
    """The registry's own challenge, with another realm or form."""
    tweak = Tweak(status=401, headers=(("WWW-Authenticate", value),))
    return (Rule("api", tweak),)


def _realm(case: str, realm: str) -> Scenario:
    must = "asks for tokens by http or https only, and never at link-local addresses"
    rules = _challenged(f'Bearer realm="{realm}",service="x"')
    title = "a token service that is none"
    return Scenario("N35", title, must, "error", "bad_realm", case=case, rules=rules, auth="bearer")


def _token(case: str, document: object, expect: Expect = "either", *, tweak: Tweak | None = None) -> Scenario:
    must = "limits the answer, takes a usable token and nothing else, and puts no control bytes into a header"
    rules = (Rule("token", tweak or Tweak(status=200, body=json.dumps(document))),)
    title = "an odd answer of the token service"
    return Scenario("N39", title, must, expect, case=case, rules=rules, auth="bearer", max_bytes=ENDLESS // 2)


def _challenge(case: str, *lines: str) -> Scenario:
    tweak = Tweak(status=401, headers=(("WWW-Authenticate", ""),), lines=lines)
    must = "reads every challenge of every line, and chooses one that it can answer"
    # The registry itself judges the requests that bring a token.
    rules = (Rule("bare", tweak),)
    title = "a challenge in another form"
    return Scenario("N43", title, must, "either", case=case, rules=rules, auth="bearer")


def _hidden(status: int, auth: Literal["basic", "bearer"]) -> Scenario:
    must = "asks at /v2/ how to log in"
    rules = (Rule("hidden", Tweak(status=status)),)
    title = "a registry that shows strangers nothing"
    return Scenario("N77", title, must, "ok", case=f"{status}-{auth}", rules=rules, auth=auth)


_BEARER: Final = 'Bearer realm="$registry/token",service="fastoci.testing",scope="repository:$name:pull"'

HOSTS: Final = (
    Scenario(
        "N24",
        "a redirect to another host",
        "follows it, and tells that host neither credentials nor cookies",
        "ok",
        auth="bearer",
        cdn_uses=0,
    ),
    Scenario(
        "N25",
        "a redirect to another port of the same host",
        "takes it for another origin",
        "either",
        rules=(_redirect("$plain$target"),),
        auth="basic",
    ),
    Scenario(
        "N26",
        "a redirect from https to http",
        "refuses it",
        "error",
        "insecure_redirect",
        rules=(_redirect("$plain$target", status=302),),
        tls="only",
        silent=_STRAY,
    ),
    _odd("file", "file:///etc/hostname"),
    _odd("ftp", "ftp://127.0.0.1/layer"),
    _odd("unix", "unix:///run/containerd/containerd.sock"),
    _odd("data", "data:application/octet-stream;base64,AAAA"),
    _odd("script", "javascript:alert(1)"),
    _metadata("plain", _METADATA),
    _metadata("mapped", "http://[::ffff:169.254.169.254]/fastoci-canary"),
    _metadata("decimal", "http://2852039166/fastoci-canary"),
    _metadata("hex", "http://0xa9fea9fe/fastoci-canary"),
    Scenario(
        "N29",
        "a redirect to itself",
        "follows ten at most",
        "error",
        "too_many_redirects",
        case="self",
        rules=(_redirect("$registry$target", status=302),),
        max_requests=60,
    ),
    Scenario(
        "N29",
        "two hosts that redirect to each other",
        "follows ten at most",
        "error",
        "too_many_redirects",
        case="two",
        rules=(_redirect("$evil$target"), _redirect("$registry$target", host="evil")),
        max_requests=60,
    ),
    Scenario(
        "N29",
        "a redirect to nowhere",
        "refuses a redirect without Location",
        "error",
        "bad_redirect",
        case="nowhere",
        rules=(Rule("layer", Tweak(status=307)),),
    ),
    Scenario(
        "N29",
        "a relative redirect",
        "follows it",
        "ok",
        case="relative",
        rules=(_redirect("$target", last=1),),
    ),
    Scenario(
        "N29",
        "a redirect with a user and password",
        "sends none because a Location says so",
        "either",
        case="userinfo",
        rules=(Rule("layer", Tweak(status=307, headers=(("Location", "$userinfo$target"),)), last=1),),
    ),
    Scenario(
        "N30",
        "a redirect to a host that asks for a login",
        "tells it nothing",
        "error",
        "unauthorized",
        rules=(_redirect("$evil/layer"),),
        auth="bearer",
    ),
    Scenario(
        "N31",
        "a signed address that expires in mid-layer",
        "asks the registry for another, and goes on from where it is",
        "ok",
        rules=(Rule("layer", Tweak(part=0.5, end="cut"), last=1, host="cdn"),),
        cdn_uses=1,
    ),
    Scenario(
        "N32",
        "a layer to be had at another host, which asks for a login",
        "tells it nothing",
        "either",
        auth="basic",
        foreign=True,
    ),
    Scenario(
        "N33",
        "an upload sent to another host",
        "sends no blob there",
        "error",
        "blocked_address",
        run="never",
    ),
    Scenario(
        "N34",
        "a next page at another host",
        "stays at its origin, and counts pages",
        "error",
        "bad_link",
        run="never",
    ),
    _realm("metadata", "http://169.254.169.254/token"),
    _realm("file", "file:///etc/passwd"),
    _realm("gopher", "gopher://127.0.0.1/token"),
    Scenario(
        "N36",
        "a token service at a foreign host",
        "tells it credentials over verified TLS at most",
        "either",
        rules=_challenged('Bearer realm="$evil/token",service="x"'),
        auth="bearer",
        tls_trusted=("evil",),
    ),
    Scenario(
        "N37",
        "an https registry with an http token service",
        "refuses it",
        "error",
        "insecure_realm",
        rules=_challenged('Bearer realm="$plain/token",service="x"'),
        auth="bearer",
        tls="only",
        silent=_STRAY,
    ),
    Scenario(
        "N38",
        "a token service that redirects to the metadata service",
        "looks at every hop",
        "error",
        "bad_redirect",
        rules=(Rule("token", Tweak(status=302, headers=(("Location", _METADATA),))),),
        auth="bearer",
    ),
    _token("none", {"expires_in": 300}, "error"),
    _token("number", {"token": 7}, "error"),
    _token("text", None, "error", tweak=Tweak(status=200, body="<html><body>Welcome</body></html>")),
    _token("endless", None, "error", tweak=Tweak(status=200, body='{"token":"', padding=1 << 30)),
    _token("control", {"token": "a\r\nX-Evil: 1"}, "error"),
    _token("zero", {"token": "$token", "expires_in": 0}),
    _token("negative", {"token": "$token", "expires_in": -1}),
    _token("aeon", {"access_token": "$token", "expires_in": 10**12}, "ok"),
    _token("quoted", {"token": "$token", "access_token": "$token", "expires_in": "300"}),
    _token("future", {"token": "$token", "issued_at": "2999-01-01T00:00:00Z"}, "ok"),
    Scenario(
        "N40",
        "tokens that last three requests",
        "gets another for all that wait, and repeats the request",
        "ok",
        auth="bearer",
        token_uses=3,
    ),
    Scenario(
        "N41",
        "no token is ever accepted",
        "stops after one more token, and does not send credentials again and again",
        "error",
        "unauthorized",
        rules=_challenged(_BEARER + ',error="invalid_token"'),
        auth="bearer",
        max_requests=6,
    ),
    Scenario(
        "N42",
        "the layer needs a wider scope",
        "asks for it once",
        "ok",
        rules=(
            Rule(
                "layer",
                Tweak(
                    status=401,
                    headers=(
                        (
                            "WWW-Authenticate",
                            'Bearer realm="$registry/token",service="fastoci.testing",'
                            'scope="repository:$name:pull repository:team/base:pull",error="insufficient_scope"',
                        ),
                    ),
                ),
                last=1,
            ),
        ),
        auth="bearer",
    ),
    _challenge("both", f'WWW-Authenticate: Basic realm="x, y", {_BEARER}'),
    _challenge("lines", 'WWW-Authenticate: Basic realm="x"', f"WWW-Authenticate: {_BEARER}"),
    _challenge("case", f"WWW-Authenticate: {_BEARER.replace('Bearer', 'bEARER').replace('realm', 'REALM')}"),
    _challenge("escape", f'WWW-Authenticate: {_BEARER},x="a \\" , Basic realm=b"'),
    _challenge("cut", f"WWW-Authenticate: {_BEARER[:-1]}"),
    _challenge("long", f'WWW-Authenticate: {_BEARER},x="{"y" * 70_000}"'),
    Scenario(
        "N44",
        "credentials for names like the registry's",
        "sends credentials to the very host and port that they are for",
        "error",
        "unauthorized",
        auth="basic",
        credentials="elsewhere",
    ),
    Scenario(
        "N45",
        "a signed address fails once",
        "keeps secrets and signatures out of what it prints",
        "ok",
        case="once",
        rules=(Rule("layer", Tweak(status=500), last=1, host="cdn"),),
        auth="bearer",
        cdn_uses=0,
    ),
    Scenario(
        "N45",
        "a signed address fails always",
        "keeps secrets and signatures out of what it prints",
        "error",
        case="always",
        rules=(Rule("layer", Tweak(status=500), host="cdn"),),
        auth="bearer",
        cdn_uses=0,
    ),
    Scenario(
        "N46",
        "a proxy with a password, a .netrc, and a redirect",
        "tells the proxy's password to the proxy only",
        "ok",
        cdn_uses=0,
        proxy=True,
    ),
    *(_hidden(status, auth) for status in (400, 401, 403, 404) for auth in _LOGINS),
)
