"""Policies, what is signed, and the verdict: held against skopeo, and against ours without a registry.

``$HOST`` is the registry, ``$KEY`` the file of the signer's public key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fastoci.image.digest import Digest
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from support.signing import Signer, payload, signed

IMAGE: Final = Image.build([Layer.build([Entry("hello", data=b"world")])])
INDEX: Final = Index.build([IMAGE])
DIGEST: Final = IMAGE.descriptor.digest
SIGNER: Final = Signer()
HOST, APP, TAG = "$HOST", "$HOST/ns/app", "$HOST/ns/app:1"
ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}

Scopes = dict[str, list[dict[str, Any]]]
Made = Mapping[Digest, Sequence[tuple[bytes, str]]]  # payloads and signatures of manifests
Make = Callable[[str], Made]  # by the repository's name


def by(identity: str, **fields: Any) -> dict[str, Any]:
    """The requirement of a signature."""
    return signed(Path("$KEY"), identity, **fields)


def _of(data: bytes, *signers: Signer, digest: Digest = DIGEST) -> Made:
    return {digest: [(data, each.over(data)) for each in signers or (SIGNER,)]}


def repository(name: str) -> Made:
    """As cosign signs: the repository is named, and no tag."""
    return _of(payload(name, DIGEST))


def tagged(name: str) -> Made:
    """As skopeo signs: the name is the whole reference."""
    return _of(payload(f"{name}:1", DIGEST))


def elsewhere(name: str) -> Made:
    """As whoever the image is copied from signs."""
    return _of(payload("vendor.example/product/app:1", DIGEST))


def unsigned(name: str) -> Made:
    """Nothing."""
    return {}


def index_alone(name: str) -> Made:
    """As cosign signs an index, without --recursive."""
    return _of(payload(name, INDEX.descriptor.digest), digest=INDEX.descriptor.digest)


def twice_the_digest(name: str) -> Made:
    """A document with two meanings."""
    digest = f'"docker-manifest-digest":"{DIGEST}"'.encode()
    return _of(payload(name, DIGEST).replace(digest, digest + b"," + digest))


COSIGN = {HOST: [by("matchRepository")]}
VENDOR = "vendor.example/product"
RULES: Final[dict[str, tuple[Scopes, Make, str, bool]]] = {
    "accept": ({HOST: [ACCEPT]}, unsigned, TAG, True),
    "reject": ({HOST: [REJECT]}, unsigned, TAG, False),
    "the default": ({"example.com": [ACCEPT]}, unsigned, TAG, False),
    "the transport's default": ({"": [ACCEPT]}, unsigned, TAG, True),
    "the repository before the host": ({HOST: [ACCEPT], APP: [REJECT]}, unsigned, TAG, False),
    "the tag before the repository": ({APP: [REJECT], TAG: [ACCEPT]}, unsigned, TAG, True),
    "the namespace": ({f"{HOST}/ns": [ACCEPT]}, unsigned, TAG, True),
    "half a word": ({f"{HOST}/n": [ACCEPT], f"{APP}le": [ACCEPT]}, unsigned, TAG, False),
    "a digest": ({f"{APP}@{DIGEST}": [ACCEPT]}, unsigned, f"{APP}@{DIGEST}", True),
    "a digest is not its tag": ({TAG: [ACCEPT]}, unsigned, f"{APP}@{DIGEST}", False),
    "a wildcard": ({"*.0.0.1": [ACCEPT]}, unsigned, TAG, True),
    "a wildcard of all": ({"*.1": [ACCEPT]}, unsigned, TAG, True),
    "a wildcard with a port": ({"*.0.0.1:80": [ACCEPT]}, unsigned, TAG, False),
    "all of several": ({HOST: [ACCEPT, REJECT]}, unsigned, TAG, False),
    "unsigned": (COSIGN, unsigned, TAG, False),
    "signed by cosign": (COSIGN, repository, TAG, True),
    "signed by cosign, exactly": ({HOST: [by("matchExact")]}, repository, TAG, False),
    "signed by cosign, by default": ({HOST: [by("matchRepoDigestOrExact")]}, repository, TAG, False),
    "signed in full, exactly": ({HOST: [by("matchExact")]}, tagged, TAG, True),
    "signed in full, by default": ({HOST: [by("matchRepoDigestOrExact")]}, tagged, TAG, True),
    "by digest, by default": ({HOST: [by("matchRepoDigestOrExact")]}, tagged, f"{APP}@{DIGEST}", True),
    "by digest, exactly": ({HOST: [by("matchExact")]}, tagged, f"{APP}@{DIGEST}", False),
    "a reference": ({HOST: [by("exactReference", dockerReference=f"{VENDOR}/app:1")]}, elsewhere, TAG, True),
    "another reference": ({HOST: [by("exactReference", dockerReference=f"{VENDOR}/app:2")]}, elsewhere, TAG, False),
    "a repository": ({HOST: [by("exactRepository", dockerRepository=f"{VENDOR}/app")]}, elsewhere, TAG, True),
    "a prefix": ({HOST: [by("remapIdentity", prefix=f"{HOST}/ns", signedPrefix=VENDOR)]}, elsewhere, TAG, True),
    "half a prefix": ({HOST: [by("remapIdentity", prefix=f"{HOST}/n", signedPrefix=VENDOR)]}, elsewhere, TAG, False),
    "of another manifest": (COSIGN, lambda name: _of(payload(name, INDEX.descriptor.digest)), TAG, False),
    "by sha512": (COSIGN, lambda name: _of(payload(name, Digest.of(IMAGE.manifest, "sha512"))), TAG, False),
    "by another key": (COSIGN, lambda name: _of(payload(name, DIGEST), Signer()), TAG, False),
    "the second one": (COSIGN, lambda name: _of(payload(name, DIGEST), Signer(), SIGNER), TAG, True),
    "optional fields": (
        COSIGN,
        lambda name: _of(payload(name, DIGEST, optional={"creator": "a", "b": [1]})),
        TAG,
        True,
    ),
    "a second": (COSIGN, lambda name: _of(payload(name, DIGEST, optional={"timestamp": 7})), TAG, True),
    "half a second": (COSIGN, lambda name: _of(payload(name, DIGEST, optional={"timestamp": 7.5})), TAG, False),
    "a field too many": (COSIGN, lambda name: _of(payload(name, DIGEST, more=1)), TAG, False),
    "two digests": (COSIGN, twice_the_digest, TAG, False),
    "an index, signed alone": (COSIGN, index_alone, f"{APP}:all", False),
    "an index, its manifest signed": (COSIGN, repository, f"{APP}:all", True),
}

BROKEN: Final[dict[str, dict[str, Any]]] = {
    "no default": {"transports": {}},
    "an empty array": {"default": []},
    "a field that is none": {"default": [ACCEPT], "more": 1},
    "a field of a requirement that is none": {"default": [{**ACCEPT, "keyPath": "/k"}]},
    "a value of another type": {"default": [{"type": "sigstoreSigned", "keyPath": 7}]},
    "no key": {"default": [{"type": "sigstoreSigned"}]},
    "two keys": {"default": [{"type": "sigstoreSigned", "keyPath": "/k", "keyData": "aGk="}]},
    "a kind of key that is none": {"default": [{"type": "signedBy", "keyType": "x", "keyPath": "/k"}]},
    "an identity that is none": {"default": [signed(Path("/k"), "matchNothing")]},
    "an identity with a field too many": {"default": [signed(Path("/k"), "matchExact", prefix="a")]},
    "a reference without a tag": {"default": [signed(Path("/k"), "exactReference", dockerReference="a.b/c")]},
    "a prefix that is none": {"default": [signed(Path("/k"), "remapIdentity", prefix="", signedPrefix="a.b")]},
    "a relative path": {"default": [ACCEPT], "transports": {"oci": {"a": [REJECT]}}},
    "a path that is not clean": {"default": [ACCEPT], "transports": {"dir": {"/a/": [REJECT]}}},
    "the root": {"default": [ACCEPT], "transports": {"dir": {"/": [REJECT]}}},
    "a scope of an archive": {"default": [ACCEPT], "transports": {"docker-archive": {"/a": [REJECT]}}},
}


def written(scopes: Scopes, host: str, key: Path) -> bytes:
    """A policy.json that rejects what is in none of the scopes."""
    text = json.dumps({"default": [REJECT], "transports": {"docker": scopes}})
    return text.replace(HOST, host).replace("$KEY", str(key)).encode()
