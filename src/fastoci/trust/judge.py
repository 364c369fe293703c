"""An image held against what a policy demands of it.

Numbered rules:
1. The name that was asked for decides what is demanded, not the mirror that answers.
2. A signature is of the manifest that is used: one of an index says nothing of the manifests in it.
3. What cannot be verified is refused. So is an image whose signatures cannot be had: an error is no permission.

Spec: containers-policy.json(5).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from fastoci.errors import ConfigError, PolicyError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.trust import keys
from fastoci.trust.files import read_key
from fastoci.trust.identity import Identity
from fastoci.trust.policy import Found, TrustPolicy
from fastoci.trust.requirements import AcceptAnything, Keys, Reject, Requirement, SignedBy, SigstoreSigned, Unknown
from fastoci.trust.signature import Signature, problem

_TOLD: Final = 3  # reasons in a message

Signatures = Callable[[Digest], Awaitable[Sequence[Signature]]]  # those that there are of a manifest
Proof = tuple[Signature, ...]
ReadKeys = Callable[[Keys], Awaitable[Sequence[keys.Verify]]]


class Candidate(msgspec.Struct, frozen=True):
    """A manifest that will be used, by the digest that its bytes have, and the index that led to it, if one did."""

    digest: Digest
    index: Digest | None = None


class Judge:
    """What a policy demands of one image."""

    def __init__(self, policy: TrustPolicy, image: Identity) -> None:
        self._policy = policy
        self._image = image
        self._found: Found = policy.find(image)

    @property
    def demands(self) -> tuple[SigstoreSigned, ...]:
        """The signatures that are demanded; none where nothing is.

        Raises:
            PolicyError: no signature helps: the image is rejected, or what is demanded cannot be verified here.
        """
        reasons = [reason for each in self._found.requirements if (reason := _hopeless(each))]
        if reasons:
            raise self.refusal(reasons[0])
        return tuple(each for each in self._found.requirements if isinstance(each, SigstoreSigned))

    async def check(self, manifests: Sequence[Candidate], signatures: Signatures, read_keys: ReadKeys) -> list[Proof]:
        """Refuse the image unless each manifest has all signatures that are demanded.

        Returns:
            of each manifest those that were accepted.
        Raises:
            PolicyError: one of them has not.
            ConfigError: a key cannot be used.
            FastociError: the signatures cannot be had.
        """
        demanded = self.demands
        proofs: list[Proof] = []
        for manifest in manifests:
            made = await signatures(manifest.digest) if demanded else ()
            accepted: set[int] = set()
            for demand in demanded:
                assert demand.keys is not None
                owners = await read_keys(demand.keys)
                reasons = [problem(each, owners, self._image, manifest.digest, demand.identity) for each in made]
                if all(reasons):
                    raise self.refusal(await self._unsigned(manifest, reasons, signatures))
                accepted.add(reasons.index(""))
            proofs.append(tuple(made[number] for number in sorted(accepted)))
        return proofs

    async def _unsigned(self, manifest: Candidate, reasons: Sequence[str], signatures: Signatures) -> str:
        """Why the signatures of a manifest do not do."""
        if reasons:
            told = "; ".join([*dict.fromkeys(reasons)][:_TOLD])
            count = "its signature" if len(reasons) == 1 else f"none of its {len(reasons)} signatures"
            verb = "is not accepted" if len(reasons) == 1 else "is accepted"
            return f"it demands a signature of the manifest {manifest.digest}, and {count} {verb}: {told}"
        text = f"it demands a signature of the manifest {manifest.digest}, and there is none"
        if manifest.index is not None and await signatures(manifest.index):
            text += f"; its index {manifest.index} has one, which counts for no manifest: `cosign sign --recursive`"
        return text

    def refusal(self, reason: str) -> PolicyError:
        """What is raised for a reason."""
        where, file = self._found.where, self._policy.file
        return PolicyError(f"refused by {file} ({where}): {reason}", policy=file, where=where)


def _hopeless(requirement: Requirement) -> str:
    """Why no image is known to fulfil a requirement here; empty when one may."""
    if isinstance(requirement, Reject):
        return "it rejects every image"
    if isinstance(requirement, Unknown):
        return f"it demands {requirement.type!r}, which is unknown here"
    if isinstance(requirement, SignedBy):
        return "it demands an OpenPGP signature (signedBy), which cannot be verified here; one of cosign by a key can"
    if isinstance(requirement, SigstoreSigned) and requirement.unverifiable:
        return f"it demands {requirement.unverifiable} of a signature, which cannot be verified here; keys alone can"
    assert isinstance(requirement, AcceptAnything | SigstoreSigned)
    return ""


def load_keys(wanted: Keys) -> tuple[keys.Verify, ...]:
    """What verifies for each of the keys; blocks on the disk.

    Raises:
        ConfigError: one cannot be read, or is not a key that can be used.
    """
    named = [*wanted.paths, *(f"number {number}" for number in range(1, len(wanted.data) + 1))]
    found = []
    for name, data in zip(named, (*map(read_key, wanted.paths), *wanted.data), strict=True):
        try:
            found.append(keys.load(data))
        except UnsupportedError as error:
            raise ConfigError(f"{wanted.field}: {name}: {error.message}") from error
        except ValueError as error:
            raise ConfigError(f"{wanted.field}: {name}: this is not a public key in PEM") from error
    return tuple(found)
