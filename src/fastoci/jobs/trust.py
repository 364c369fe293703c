"""The policy of trust of an engine: read when the first image is asked for, and then asked about each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from fastoci.errors import PolicyError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import BufferSource
from fastoci.jobs.plan import Resolved

if TYPE_CHECKING:
    from fastoci.trust.judge import Candidate, Judge, Signatures
    from fastoci.trust.keys import Verify
    from fastoci.trust.policy import TrustPolicy
    from fastoci.trust.requirements import Keys
    from fastoci.trust.signature import Signature
    from fastoci.trust.signature_tag import Repository

Open = Callable[[Reference], Awaitable["Repository"]]
Name = Reference | tuple[str, str]  # of an image: or the transport and the path of where it is


class Trust:
    """Holds images against the policy, before anything of them is fetched.

    Args:
        policy: None for the machine's.
        buffers: for signatures on their way.
    """

    def __init__(self, policy: TrustPolicy | None, buffers: BufferSource) -> None:
        self._policy = policy
        self._buffers = buffers
        self._reading = asyncio.Lock()
        self._keys: dict[Keys, Sequence[Verify]] = {}

    async def admit(self, reference: Reference) -> None:
        """Refuse a name that leads to nothing that may be had, before its registry is asked.

        Raises:
            PolicyError: the policy rejects it, or demands what cannot be verified here.
            ConfigError: the policy cannot be used.
        """
        if (judge := await self.judge(reference)) is not None:
            _ = judge.demands

    async def check(self, reference: Reference, images: Sequence[Resolved], source: Repository) -> list[Resolved]:
        """Refuse what a name of a registry led to, unless it has the signatures that the policy demands.

        Returns:
            the same, with their signatures.
        Raises:
            PolicyError: it has not.
            ConfigError: the policy, or a key that it names, cannot be used.
            FastociError: the signatures cannot be had.
        """
        judge = await self.judge(reference)
        if judge is None or not judge.demands:
            return list(images)
        from fastoci.trust import kept

        manifests = [_candidate(image.descriptor, image.top) for image in images]
        proofs = await judge.check(manifests, self.asked(reference, source), self.read_keys)
        signed = zip(images, map(kept.encode, proofs), strict=True)
        return [msgspec.structs.replace(image, signatures=text) for image, text in signed]

    async def check_stored(self, image: StoredImage, manifest: Descriptor, ask: Open | None) -> None:
        """Refuse a manifest that a store has under a name, as ``check`` does; by the signatures that it keeps, too.

        Args:
            ask: opens the name's repository, which has the signatures; None when no registry may be asked.
        Raises:
            PolicyError, ConfigError, FastociError: as ``check``.
        """
        reference = Reference.parse(image.name)
        judge = await self.judge(reference)
        if judge is None or not judge.demands:
            return
        from fastoci.trust import kept

        found = kept.decode(image.signatures.get(str(manifest.digest), ""))

        async def held(digest: Digest) -> Sequence[Signature]:
            return found if digest == manifest.digest else ()

        candidate = _candidate(manifest, image.descriptor)
        try:
            await judge.check([candidate], held, self.read_keys)
        except PolicyError:
            if ask is None and found:
                raise
            if ask is None:
                text = f"it demands a signature of the manifest {manifest.digest}, and the store has none"
                raise judge.refusal(f"{text}; no registry may be asked for it") from None
            await judge.check([candidate], self.asked(reference, await ask(reference)), self.read_keys)

    def gate(self, name: Name, source: Repository | None, kept: Mapping[str, str] | None = None) -> Gate:
        """What holds one image against the policy before it is copied.

        Args:
            name: what it is asked for as: a reference, or a transport and a path.
            source: the repository that has its signatures, if it is in one.
            kept: the signatures that a store keeps of its manifests, by their digests.
        """
        return Gate(self, name, source, kept or {})

    def asked(self, reference: Reference, source: Repository) -> Signatures:
        """The signatures that a registry has of an image's manifests."""
        from fastoci.trust import signature_tag

        return partial(signature_tag.signatures, source, reference, self._buffers)

    async def judge(self, name: Name) -> Judge | None:
        """Who knows what is demanded of an image; nobody, and no import, when nothing is of any."""
        policy = await self._read()
        if policy.accepts_anything:
            return None
        from fastoci.trust.identity import Identity
        from fastoci.trust.judge import Judge

        image = Identity.of_reference(name) if isinstance(name, Reference) else Identity.of_path(*name)
        return Judge(policy, image)

    async def _read(self) -> TrustPolicy:
        async with self._reading:
            if self._policy is None:
                from fastoci.trust.files import load

                self._policy = await asyncio.to_thread(load, os.environ)
        return self._policy

    async def read_keys(self, keys: Keys) -> Sequence[Verify]:
        """What verifies for each of the keys. Raises: as ``load_keys``."""
        if keys not in self._keys:
            from fastoci.trust.judge import load_keys

            self._keys[keys] = await asyncio.to_thread(load_keys, keys)
        return self._keys[keys]


class Gate:
    """Holds one image against the policy: ``admit`` before anything of it is read, ``check`` before it is copied."""

    def __init__(self, trust: Trust, name: Name, source: Repository | None, kept: Mapping[str, str]) -> None:
        self._trust = trust
        self._name = name
        self._source = source
        self._kept = kept

    async def admit(self) -> None:
        """Refuse what no signature helps. Raises: as ``Trust.admit``."""
        if (judge := await self._trust.judge(self._name)) is not None:
            _ = judge.demands

    async def check(self, manifests: Sequence[Descriptor]) -> None:
        """Refuse manifests that lack the signatures that the policy demands. Raises: as ``Trust.check``."""
        judge = await self._trust.judge(self._name)
        if judge is None or not judge.demands:
            return
        signatures: Signatures = self._held
        if self._source is not None and isinstance(self._name, Reference):
            signatures = self._trust.asked(self._name, self._source)
        await judge.check([_candidate(each, each) for each in manifests], signatures, self._trust.read_keys)

    async def _held(self, manifest: Digest) -> Sequence[Signature]:
        from fastoci.trust import kept

        return kept.decode(self._kept.get(str(manifest), ""))


def _candidate(manifest: Descriptor, top: Descriptor) -> Candidate:
    from fastoci.trust.judge import Candidate

    return Candidate(manifest.digest, None if top.digest == manifest.digest else top.digest)
