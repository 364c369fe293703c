"""``policy.json`` is read strictly, and what is most specific in it decides.

Covers: trust/policy.py, trust/forms.py, trust/requirements.py.
"""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci.errors import ConfigError
from fastoci.trust.identity import Identity, SignedIdentity
from fastoci.trust.policy import TrustPolicy
from fastoci.trust.requirements import AcceptAnything, Keys, Reject, SignedBy, SigstoreSigned, Unknown
from support.policy_rules import ACCEPT, BROKEN, REJECT

FULCIO = {"caPath": "/ca", "oidcIssuer": "https://issuer", "subjectEmail": "a@b"}


def parse(document: object) -> TrustPolicy:
    return TrustPolicy.parse(json.dumps(document).encode(), "FILE")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_policy_says_where(fault: str) -> None:
    with pytest.raises(ConfigError, match=r"^FILE: (default|transports|more)"):
        parse(BROKEN[fault])


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"default": [ACCEPT], "Default": []}, "Default: there is no such field"),
        ([], "expected an object, got an array"),
        ({"default": {}}, "default: expected an array of requirements, got an object"),
        ({"default": ["reject"]}, "default[0]: expected an object, got text"),
        ({"default": [{}]}, "default[0].type: expected the type of a requirement, got null"),
        ({"default": [ACCEPT], "transports": None}, "transports: expected an object, got null"),
        ({"default": [ACCEPT], "transports": {"docker": {"a.b": []}}}, 'transports.docker."a.b": an empty array'),
        ({"default": [{"type": "sigstoreSigned", "keyPath": None}]}, "default[0].keyPath: Expected `str`, got `null`"),
        ({"default": [{"type": "sigstoreSigned", "keyPath": ""}]}, "default[0].keyPath: it is empty"),
        ({"default": [{"type": "sigstoreSigned", "keyPaths": []}]}, "default[0].keyPaths: it is empty"),
        ({"default": [{"type": "sigstoreSigned", "keyData": "!"}]}, "default[0].keyData: Invalid base64"),
        ({"default": [{"type": "sigstoreSigned", "fulcio": FULCIO}]}, "default[0]: fulcio needs one of rekorPublicKey"),
        (
            {"default": [{"type": "sigstoreSigned", "fulcio": {**FULCIO, "caData": "aGk="}}]},
            "default[0].fulcio: expected one of caPath, caData, not caPath and caData",
        ),
        (
            {"default": [{"type": "sigstoreSigned", "fulcio": {**FULCIO, "subject": "a"}}]},
            "default[0].fulcio: Object contains unknown field `subject`",
        ),
        (
            {"default": [{"type": "sigstoreSigned", "pki": {"caRootsPath": "/r"}, "rekorPublicKeyPath": "/k"}]},
            "default[0]: pki and rekorPublicKeyPath exclude each other",
        ),
        (
            {
                "default": [
                    {
                        "type": "sigstoreSigned",
                        "keyPath": "/k",
                        "rekorPublicKeyPath": "/k",
                        "rekorPublicKeyData": "aGk=",
                    }
                ]
            },
            "default[0]: rekorPublicKeyPath and rekorPublicKeyData exclude each other",
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_field_that_cannot_be_is_named(document: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^FILE: {re.escape(problem)}"):
        parse(document)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"default": [{"type": "reject"}]} x', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}', "the field 'default' is there twice"),
        (b'{"default": [{"type": "reject", "type": "insecureAcceptAnything"}]}', "the field 'type' is there twice"),
    ],
    ids=["nothing", "no text", "more", "deep", "twice", "twice inside"],
)
def test_what_is_no_document_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^FILE: {re.escape(problem)}"):
        TrustPolicy.parse(data, "FILE")


def test_all_requirements_are_read() -> None:
    identity = {"type": "remapIdentity", "prefix": "mirror:5000/a", "signedPrefix": "vendor.example"}
    policy = parse(
        {
            "default": [
                ACCEPT,
                REJECT,
                {"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/a", "/b"]},
                {"type": "sigstoreSigned", "keyDatas": ["aGk=", "bw=="], "signedIdentity": identity},
                {"type": "sigstoreSigned", "fulcio": FULCIO, "rekorPublicKeyData": "aGk="},
                {"type": "sigstoreSigned", "keyPath": "/k", "rekorPublicKeyPaths": ["/r"]},
                {"type": "sigstoreSigned", "pki": {"caRootsPath": "/r", "subjectEmail": "a@b"}},
                {"type": "newer", "field": 1},
            ]
        }
    )
    assert policy.default == (
        AcceptAnything(),
        Reject(),
        SignedBy("GPGKeys", Keys("FILE: default[2].keyPaths", paths=("/a", "/b"))),
        SigstoreSigned(
            Keys("FILE: default[3].keyDatas", data=(b"hi", b"o")),
            identity=SignedIdentity("remapIdentity", "mirror:5000/a", "vendor.example"),
        ),
        SigstoreSigned(None, "fulcio"),
        SigstoreSigned(Keys("FILE: default[5].keyPath", paths=("/k",)), "rekorPublicKeyPaths"),
        SigstoreSigned(None, "pki"),
        Unknown("newer"),
    )
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_the_most_specific_scope_alone_counts() -> None:
    scopes: dict[str, Any] = {"": [ACCEPT], "/srv": [REJECT], "/srv/a/b": [ACCEPT]}
    policy = parse({"default": [REJECT], "transports": {"oci": scopes}})
    found = {path: policy.find(Identity.of_path("oci", path)) for path in ("/srv/a/b/c", "/srv/a", "/srva", "/")}
    assert {path: each.where for path, each in found.items()} == {
        "/srv/a/b/c": 'transports.oci."/srv/a/b"',
        "/srv/a": 'transports.oci."/srv"',
        "/srva": 'transports.oci.""',
        "/": 'transports.oci.""',
    }
    assert found["/srv/a"].requirements == (Reject(),)
    assert policy.find(Identity.of_path("dir", "/srv/a")).where == "default"


@settings(max_examples=25)
@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=4),
        lambda inner: (
            st.dictionaries(
                st.sampled_from(["default", "transports", "docker", "type", "keyPath", "signedIdentity", ""]),
                inner,
                max_size=3,
            )
            | st.lists(inner, max_size=2)
        ),
        max_leaves=8,
    )
)
def test_no_document_is_anything_but_a_policy_or_an_error(document: object) -> None:
    try:
        assert parse(document).default
    except ConfigError as error:
        assert str(error).startswith("FILE: ")
