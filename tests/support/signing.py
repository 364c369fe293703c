"""Images signed as cosign signs them: keys, payloads, and the tags under which a registry has the signatures."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.testing.registry import Registry
from fastoci.trust.signature import ANNOTATION, MEDIA_TYPE

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Signer:
    """Who signs; a P-256 key as `cosign generate-key-pair` makes it, unless told otherwise."""

    key: PrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def pem(self) -> bytes:
        """The public key, as `cosign.pub` holds it."""
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(encoding, form)

    def write(self, path: Path) -> Path:
        """Write the public key."""
        path.write_bytes(self.pem)
        return path

    def over(self, data: bytes) -> str:
        """The signature of these bytes, in base64."""
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            made = self.key.sign(data, ec.ECDSA(hashes.SHA256()))
        elif isinstance(self.key, rsa.RSAPrivateKey):
            made = self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        else:
            made = self.key.sign(data)
        return base64.b64encode(made).decode()


def payload(reference: str, digest: Digest, **changes: Any) -> bytes:
    """What cosign signs: of a repository, or of the full reference as skopeo has it."""
    critical = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": str(digest)},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None, **changes}, separators=(",", ":")).encode()


def attach(
    registry: Registry, name: str, digest: Digest, signed: Sequence[tuple[bytes, str]], **annotations: str
) -> None:
    """Let a registry have signatures of a manifest: payloads, and the signatures of them in base64."""
    layers = []
    for data, made in signed:
        described = {**encode(Descriptor.of(data, MEDIA_TYPE)), "annotations": {ANNOTATION: made, **annotations}}
        layers.append(described)
        registry.add_blob(str(Digest.of(data)), data)
    diff_ids = [str(Digest.of(data)) for data, _ in signed]
    config = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    raw = json.dumps(config).encode()
    registry.add_blob(str(Digest.of(raw)), raw)
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": encode(Descriptor.of(raw, mediatype.OCI_CONFIG)),
        "layers": layers,
    }
    manifest = json.dumps(document).encode()
    tag = f"{digest.algorithm}-{digest.hex}.sig"
    for target in (tag, str(Digest.of(manifest))):
        registry.add_manifest(name, target, mediatype.OCI_MANIFEST, manifest, digest=str(Digest.of(manifest)))


def sign(registry: Registry, name: str, digest: Digest, signer: Signer, reference: str = "") -> None:
    """Sign a manifest of a registry; by default the signature names the repository, as cosign's does."""
    data = payload(reference or f"{registry.address}/{name}", digest)
    attach(registry, name, digest, [(data, signer.over(data))])


def policy(scope: str, *requirements: dict[str, Any], transport: str = "docker") -> bytes:
    """A `policy.json` that demands something in one scope, and rejects the rest."""
    transports = {transport: {scope: list(requirements)}}
    return json.dumps({"default": [{"type": "reject"}], "transports": transports}).encode()


def signed(key: Path, identity: str = "matchRepository", **fields: Any) -> dict[str, Any]:
    """The requirement of a signature by a key."""
    return {"type": "sigstoreSigned", "keyPath": str(key), "signedIdentity": {"type": identity, **fields}}
