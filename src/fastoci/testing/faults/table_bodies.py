"""Scenarios N01 to N23 and N78: what a registry does to bodies, lengths, ranges and encodings."""

from __future__ import annotations

from typing import Final

from fastoci.testing.faults.scenario import Framing, Rule, Scenario, Tweak

_BIG: Final = 24 << 20  # bytes: several parts of 4 MiB, several retries of a client that wants 1 MiB between them
_TAKEN: Final = 24 << 20  # bytes: far beyond what a client and two kernels hold of a body that should have been refused
_CUT: Final = Rule("first", Tweak(part=0.5, end="cut"), last=1)


def _framing(case: str, framing: Framing) -> Scenario:
    return Scenario(
        "N11",
        "bad chunk framing",
        "refuses the answer and closes the connection",
        "error",
        "protocol",
        case=case,
        rules=(Rule("layer", Tweak(framing=framing)),),
    )


def _length(case: str, *lines: str, own: str = "") -> Scenario:
    tweak = Tweak(headers=(("Content-Length", own),) if own else (), lines=lines)
    must = "refuses an answer whose lengths differ or are not numbers"
    return Scenario("N12", "lengths that disagree", must, "error", "protocol", case=case, rules=(Rule("layer", tweak),))


_LABELS: Final = {
    "gzip": ("Content-Encoding", "gzip"),
    "br": ("Content-Encoding", "br"),
    "charset": ("Content-Encoding", "UTF-8"),
    "aws": ("Content-Encoding", "aws-chunked"),
    "page": ("Content-Type", "text/html"),
    "picture": ("Content-Type", "image/png"),
}


def _mislabelled(case: str, name: str, value: str) -> Scenario:
    tweak = Tweak(headers=((name, value),))
    must = "takes what the digest proves, whatever it is called"
    rules = (Rule("layer", tweak), Rule("config", tweak), Rule("manifest", tweak))
    return Scenario("N78", "the right bytes under another label", must, "ok", case=case, rules=rules)


BODIES: Final = (
    Scenario(
        "N01",
        "one flipped bit",
        "hashes what arrives, keeps nothing wrong, and asks once more",
        "ok",
        "digest_mismatch if repeated",
        rules=(Rule("layer", Tweak(flip=4096), last=1),),
    ),
    Scenario(
        "N02",
        "wrong bytes always",
        "gives up after a few tries, and keeps nothing to go on from",
        "error",
        "digest_mismatch",
        rules=(Rule("layer", Tweak(other=True)),),
        max_requests=10,
    ),
    Scenario(
        "N03",
        "an end at 60 %",
        "takes it for a cut, and asks for the rest",
        "ok",
        rules=(Rule("layer", Tweak(part=0.6, end="cut"), last=1),),
    ),
    Scenario(
        "N04",
        "nine resets",
        "goes on from where it is, as long as there is progress",
        "ok",
        rules=(
            Rule("first", Tweak(part=0.1, end="reset"), last=1),
            Rule("later", Tweak(part=0.1, end="reset"), last=8),
        ),
        layer=_BIG,
    ),
    Scenario(
        "N05",
        "a body one byte short, and a length that says so",
        "compares the length with the manifest's",
        "error",
        "size_mismatch",
        rules=(Rule("layer", Tweak(less=1)),),
        max_requests=10,
    ),
    Scenario(
        "N06",
        "a body of 1 GiB too much",
        "stops at the manifest's size",
        "error",
        "size_mismatch",
        case="announced",
        rules=(Rule("layer", Tweak(padding=1 << 30)),),
        max_bytes=_TAKEN,
    ),
    Scenario(
        "N06",
        "a body without end",
        "stops at the manifest's size",
        "error",
        "size_mismatch",
        case="endless",
        rules=(Rule("layer", Tweak(padding=1 << 30, framing="chunked")),),
        max_bytes=_TAKEN,
    ),
    Scenario(
        "N07",
        "a length of five more than the body",
        "compares the length with the manifest's",
        "error",
        "size_mismatch/truncated",
        rules=(Rule("layer", Tweak(miscount=5, end="cut")),),
    ),
    Scenario(
        "N08",
        "no length: HTTP/1.0",
        "accepts what has the right size and hash",
        "ok",
        case="whole",
        rules=(Rule("layer", Tweak(framing="close")),),
    ),
    Scenario(
        "N08",
        "no length, and half the body once",
        "takes a short body for a cut",
        "ok",
        case="half",
        rules=(Rule("layer", Tweak(framing="close", part=0.5), last=1),),
    ),
    Scenario(
        "N09",
        "chunks of one byte, with extensions and a trailer",
        "accepts them, without an object for each chunk",
        "ok",
        rules=(Rule("layer", Tweak(framing="tiny")),),
    ),
    Scenario(
        "N10",
        "all chunks but the last one",
        "takes it for a cut, or is content when size and hash hold",
        "either",
        rules=(Rule("layer", Tweak(framing="unended", end="cut")),),
    ),
    _framing("overflow", "overflow"),
    _framing("negative", "negative"),
    _framing("linefeed", "linefeed"),
    _framing("overrun", "overrun"),
    _framing("both", "both"),
    _length("two", "Content-Length: 6"),
    _length("plus", own="+$size"),
    _length("hex", own="0x10"),
    _length("list", own="$size, 5"),
    Scenario(
        "N13",
        "the rest is asked for, all of it comes",
        "drops what it has, or begins again; never joins the two",
        "ok",
        rules=(_CUT, Rule("later", Tweak(whole=True))),
    ),
    Scenario(
        "N14",
        "another part than was asked for",
        "compares Content-Range with its question, and asks without a range",
        "ok",
        "range_mismatch",
        rules=(_CUT, Rule("later", Tweak(whole=True, status=206, headers=(("Content-Range", "bytes 0-99/$size"),)))),
    ),
    Scenario(
        "N15",
        "a part that does not say which",
        "trusts no part without Content-Range, and asks without a range",
        "ok",
        rules=(_CUT, Rule("later", Tweak(headers=(("Content-Range", ""),)))),
    ),
    Scenario(
        "N16",
        "a part as multipart/byteranges",
        "reads it, or asks without a range; never stores its frame",
        "ok",
        rules=(_CUT, Rule("later", Tweak(multipart=True))),
    ),
    Scenario(
        "N17",
        "416 for the rest",
        "begins again without a range, once",
        "ok",
        rules=(_CUT, Rule("later", Tweak(status=416, headers=(("Content-Range", "bytes */$size"),)))),
    ),
    Scenario(
        "N18",
        "the third part is all of it",
        "looks at the status and Content-Range of every part",
        "ok",
        rules=(
            _CUT,
            Rule("later", Tweak(part=0.5, end="cut"), last=1),
            Rule("later", Tweak(whole=True), first=2),
        ),
        layer=_BIG,
    ),
    Scenario(
        "N19",
        "a part of another object",
        "sees that the hash does not hold, and fetches all of it again",
        "ok",
        rules=(
            Rule("first", Tweak(headers=(("ETag", '"one"'),), part=0.5, end="cut"), last=1),
            Rule("later", Tweak(headers=(("ETag", '"two"'),), other=True), last=1),
        ),
    ),
    Scenario(
        "N20",
        "HEAD says one byte",
        "believes the manifest and GET",
        "ok",
        rules=(Rule("head", Tweak(headers=(("Content-Length", "1"),))),),
    ),
    Scenario(
        "N21",
        "a layer inside Content-Encoding: gzip",
        "decodes it once, whatever it asked for, and hashes what it then has",
        "ok",
        rules=(Rule("layer", Tweak(content_encoding="gzip")),),
    ),
    Scenario(
        "N22",
        "a manifest that gzip makes 1 GiB",
        "limits what it decodes",
        "error",
        "size_limit",
        rules=(Rule("manifest", Tweak(content_encoding="gzip", bomb=True)),),
    ),
    Scenario(
        "N23",
        "an encoding that is none",
        "refuses it, or asks for none",
        "error",
        "protocol",
        case="br",
        rules=(Rule("layer", Tweak(content_encoding="br", other=True)),),
    ),
    Scenario(
        "N23",
        "gzip three times",
        "refuses it, or asks for none",
        "either",
        "protocol",
        case="stacked",
        rules=(Rule("layer", Tweak(content_encoding="gzip, gzip, gzip")),),
    ),
    *(_mislabelled(case, *header) for case, header in _LABELS.items()),
)
