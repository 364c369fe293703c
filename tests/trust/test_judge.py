"""Verdicts on images, without a registry. What skopeo says of the same is ``golden/test_skopeo_policy.py``.

Covers: trust/judge.py, trust/identity.py, trust/signature.py, trust/keys.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fastoci.errors import ConfigError, PolicyError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.trust import keys
from fastoci.trust.identity import Identity
from fastoci.trust.judge import Candidate, Judge, load_keys
from fastoci.trust.policy import TrustPolicy
from fastoci.trust.requirements import Keys
from fastoci.trust.signature import ANNOTATION, Signature
from support.policy_rules import APP, DIGEST, HOST, INDEX, RULES, SIGNER, TAG, Made, by, repository, written
from support.signing import Signer, payload

ADDRESS = "127.0.0.1:5000"
NAME = APP.replace(HOST, ADDRESS)


async def judge(policy: bytes, asked: str, made: Made) -> None:
    """Hold the image against the policy.

    Raises:
        PolicyError: it is refused.
    """

    async def signatures(digest: Digest) -> Sequence[Signature]:
        return [Signature(data, {ANNOTATION: text}) for data, text in made.get(digest, ())]

    async def read(wanted: Keys) -> Sequence[keys.Verify]:
        return load_keys(wanted)

    image = Identity.of_reference(Reference.parse(asked.replace(HOST, ADDRESS)))
    index = INDEX.descriptor.digest if asked.endswith(":all") else None
    candidate = Candidate(DIGEST, index)
    await Judge(TrustPolicy.parse(policy, "policy.json"), image).check([candidate], signatures, read)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return SIGNER.write(tmp_path / "cosign.pub")


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_has_its_verdict(key: Path, rule: str) -> None:
    scopes, make, asked, verdict = RULES[rule]
    text = written(scopes, ADDRESS, key)
    if verdict:
        await judge(text, asked, make(NAME))
    else:
        with pytest.raises(PolicyError, match=r"refused by policy.json \((default|transports.docker)"):
            await judge(text, asked, make(NAME))


SIGNERS = {
    "P-384": Signer(ec.generate_private_key(ec.SECP384R1())),
    "RSA": Signer(rsa.generate_private_key(65537, 2048)),
    "Ed25519": Signer(ed25519.Ed25519PrivateKey.generate()),
}


@pytest.mark.parametrize("kind", SIGNERS)
async def test_a_key_of_each_kind_verifies_what_it_signed(tmp_path: Path, kind: str) -> None:
    signer, data = SIGNERS[kind], payload(NAME, DIGEST)
    text = written({HOST: [by("matchRepository")]}, ADDRESS, signer.write(tmp_path / "cosign.pub"))
    await judge(text, TAG, {DIGEST: [(data, signer.over(data))]})
    for other in ("", "AAAA", SIGNER.over(data), signer.over(data + b" ")):
        with pytest.raises(PolicyError, match="its signature is not accepted: it was not made by the key"):
            await judge(text, TAG, {DIGEST: [(data, other)]})


async def test_one_of_several_keys_must_have_signed(tmp_path: Path, key: Path) -> None:
    other = Signer().write(tmp_path / "other.pub")
    paths = {**by("matchRepository"), "keyPaths": [str(other), str(key)]}
    del paths["keyPath"]
    await judge(written({HOST: [paths]}, ADDRESS, key), TAG, repository(NAME))
    data = {**paths, "keyData": "LS0tCg=="}
    del data["keyPaths"]
    with pytest.raises(ConfigError, match=r"\[0\].keyData: number 1: this is not a public key in PEM"):
        await judge(written({HOST: [data]}, ADDRESS, key), TAG, repository(NAME))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"not JSON", "the signed payload: JSON is malformed"),
        (lambda data: b"{}", "missing required field `critical`"),
        (lambda data: data.replace(b"cosign container", b"atomic container"), "it is a signature of another type"),
        (lambda data: data.replace(b"sha256:", b"sha1:"), "the signed payload: .*sha1"),
        (lambda data: data.replace(DIGEST.hex.encode(), b"0" * 64), "it is of the manifest sha256:000"),
        (lambda data: data.replace(b"/ns/app", b"/ns/other"), "it is of the image '127.0.0.1:5000/ns/other'"),
        (lambda data: data.replace(b"127.0.0.1:5000/ns/app", b"a b"), "it is of the image 'a b'"),
    ],
    ids=["no JSON", "no field", "type", "algorithm", "manifest", "image", "no name"],
)
async def test_a_signature_of_something_else_says_of_what(key: Path, change: object, reason: str) -> None:
    assert callable(change)
    data = change(payload(NAME, DIGEST))
    with pytest.raises(PolicyError, match=reason):
        await judge(written({HOST: [by("matchRepository")]}, ADDRESS, key), TAG, {DIGEST: [(data, SIGNER.over(data))]})


async def test_reasons_are_told_once_and_not_without_end(key: Path) -> None:
    text, data = written({HOST: [by("matchRepository")]}, ADDRESS, key), payload(NAME, DIGEST)
    other = [payload(f"{NAME}{number}", DIGEST) for number in range(9)]
    made = [(data, "!"), (data, "!"), (data, Signer().over(data)), *((each, SIGNER.over(each)) for each in other)]
    with pytest.raises(PolicyError) as caught:
        await judge(text, TAG, {DIGEST: made})
    reasons = caught.value.message.partition("accepted: ")[2].split("; ")
    assert reasons == ["it is not base64", "it was not made by the key", f"it is of the image '{NAME}0'"]
    assert (caught.value.policy, caught.value.where) == ("policy.json", f'transports.docker."{ADDRESS}"')


async def test_a_signature_without_its_annotation_is_none(key: Path) -> None:
    async def signatures(digest: Digest) -> Sequence[Signature]:
        return [Signature(payload(NAME, DIGEST), {})]

    async def read(wanted: Keys) -> Sequence[keys.Verify]:
        return load_keys(wanted)

    policy = TrustPolicy.parse(written({HOST: [by("matchRepository")]}, ADDRESS, key))
    image = Identity.of_reference(Reference.parse(NAME))
    with pytest.raises(PolicyError, match=f"the annotation {re.escape(ANNOTATION)} is missing"):
        await Judge(policy, image).check([Candidate(DIGEST)], signatures, read)


def test_a_key_that_cannot_be_used_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    public = x25519.X25519PrivateKey.generate().public_key()
    with pytest.raises(UnsupportedError, match="another algorithm than ECDSA, RSA and Ed25519"):
        keys.load(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ConfigError, match=r"cannot be verified here without .*: pip install 'fastoci\[trust\]'"):
        load_keys(Keys("keyData", data=(SIGNER.pem,)))


@pytest.mark.parametrize(
    ("path", "scopes"),
    [("/srv/images/app", ("/srv/images/app", "/srv/images", "/srv")), ("/a", ("/a",))],
)
def test_a_path_has_its_directories_as_scopes(path: str, scopes: tuple[str, ...]) -> None:
    assert Identity.of_path("oci", path) == Identity("oci", scopes)


def test_an_archive_of_docker_has_no_scopes_and_a_digest_goes_before_a_tag() -> None:
    assert str(Identity.of_path("docker-archive", "/a")) == "docker-archive:"
    both = Identity.of_reference(Reference.parse(f"redis:7@{DIGEST}"))
    assert both.scopes == (
        f"docker.io/library/redis@{DIGEST}",
        "docker.io/library/redis",
        "docker.io/library",
        "docker.io",
        "*.io",
    )
    assert str(both) == f"docker:docker.io/library/redis@{DIGEST}"
