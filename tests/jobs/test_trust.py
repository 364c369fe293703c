"""Images that a policy rejects, or demands signatures of: pulled, prefetched and taken from the store.

Covers: jobs/trust.py, trust/judge.py, trust/kept.py, trust/signature_tag.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import ConfigError, FormatError, PolicyError
from fastoci.image.digest import Digest
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from support.signing import Signer, attach, payload, policy, sign, signed

REJECT = {"type": "reject"}
ACCEPT = {"type": "insecureAcceptAnything"}
IMAGE = Image.build([Layer.build([Entry("hello", data=b"world")])])
OTHER = Image.build([Layer.build([Entry("hello", data=b"moon")])], platform=fastoci.Platform("linux", "arm64"))
INDEX = Index.build([IMAGE, OTHER])


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    registry.add_image("app", "1", IMAGE)
    registry.add_image("app", "all", INDEX)
    with serve(registry) as served:
        yield served


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def key(signer: Signer, tmp_path: Path) -> Path:
    return signer.write(tmp_path / "cosign.pub")


def trusting(text: bytes) -> fastoci.TrustPolicy:
    return fastoci.TrustPolicy.parse(text, "policy.json")


def layers_asked(registry: Registry) -> list[str]:
    blobs = {str(layer.descriptor.digest) for layer in (*IMAGE.layers, *OTHER.layers)}
    return [record.path for record in registry.log if record.path.rpartition("/")[2] in blobs]


async def pull(registry: Registry, store: Path, text: bytes, tag: str = "1") -> fastoci.Image:
    async with fastoci.Engine(store, trust=trusting(text)) as engine:
        return await engine.pull(f"{registry.address}/app:{tag}", platform="linux/amd64")


async def test_a_rejected_image_is_refused_before_its_registry_is_asked(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"refused by policy.json \(transports.docker.*\): it rejects every image"):
        await pull(registry, tmp_path, policy(registry.address, REJECT))
    assert registry.log == []


async def test_a_signed_image_is_pulled(registry: Registry, tmp_path: Path, signer: Signer, key: Path) -> None:
    sign(registry, "app", IMAGE.descriptor.digest, signer)
    image = await pull(registry, tmp_path / "store", policy(registry.address, signed(key)))
    assert image.manifest_descriptor.digest == IMAGE.descriptor.digest


async def test_nothing_of_an_image_is_fetched_without_a_signature(
    registry: Registry, tmp_path: Path, key: Path
) -> None:
    with pytest.raises(PolicyError, match=f"a signature of the manifest {IMAGE.descriptor.digest}, and there is none"):
        await pull(registry, tmp_path / "store", policy(registry.address, signed(key)))
    assert layers_asked(registry) == []
    async with fastoci.Engine(tmp_path / "store") as engine:
        assert await engine.images() == ()


async def test_a_signature_is_of_one_manifest_one_image_and_one_key(
    registry: Registry, tmp_path: Path, signer: Signer, key: Path
) -> None:
    name, digest = f"{registry.address}/app", IMAGE.descriptor.digest
    wrong = {
        "of the manifest sha256:": payload(name, OTHER.descriptor.digest),
        "of the image 'example.com/app'": payload("example.com/app", digest),
        "of another type": payload(name, digest).replace(b"cosign container", b"atomic container"),
        "unknown field `more`": payload(name, digest, more=1),
        "required field `critical`": b"{}",
        "malformed": b"not JSON",
    }
    text = policy(registry.address, signed(key))
    for reason, data in wrong.items():
        attach(registry, "app", digest, [(data, signer.over(data))])
        with pytest.raises(PolicyError, match=f"its signature is not accepted: .*{reason}"):
            await pull(registry, tmp_path / "store", text)
    right = payload(name, digest)
    made = [(right, Signer().over(right)), (right, "!"), (right, signer.over(right + b" "))]
    attach(registry, "app", digest, made)
    with pytest.raises(
        PolicyError, match="none of its 3 signatures is accepted: it was not made by the key; it is not"
    ):
        await pull(registry, tmp_path / "store", text)
    assert layers_asked(registry) == []
    attach(registry, "app", digest, [*made, (right, signer.over(right))])
    await pull(registry, tmp_path / "store", text)


async def test_a_signature_of_an_index_is_none_of_its_manifests(
    registry: Registry, tmp_path: Path, signer: Signer, key: Path
) -> None:
    text = policy(registry.address, signed(key))
    sign(registry, "app", INDEX.descriptor.digest, signer)
    with pytest.raises(PolicyError, match=f"its index {INDEX.descriptor.digest} has one, .*cosign sign --recursive"):
        await pull(registry, tmp_path / "store", text, "all")
    sign(registry, "app", IMAGE.descriptor.digest, signer)
    await pull(registry, tmp_path / "store", text, "all")
    async with fastoci.Engine(tmp_path / "store", trust=trusting(text)) as engine:
        with pytest.raises(PolicyError, match=f"a signature of the manifest {OTHER.descriptor.digest}, and there is"):
            await engine.pull_platforms(f"{registry.address}/app:all", ["all"])


async def test_all_requirements_must_hold(registry: Registry, tmp_path: Path, signer: Signer, key: Path) -> None:
    second = Signer()
    both = policy(registry.address, ACCEPT, signed(key), signed(second.write(tmp_path / "second.pub")))
    data = payload(f"{registry.address}/app", IMAGE.descriptor.digest)
    attach(registry, "app", IMAGE.descriptor.digest, [(data, signer.over(data))])
    with pytest.raises(PolicyError, match="it was not made by the key"):
        await pull(registry, tmp_path / "store", both)
    attach(registry, "app", IMAGE.descriptor.digest, [(data, signer.over(data)), (data, second.over(data))])
    await pull(registry, tmp_path / "store", both)


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        ({"type": "signedBy", "keyType": "GPGKeys", "keyData": "aGk="}, "an OpenPGP signature"),
        ({"type": "signedBaseLayer"}, "'signedBaseLayer', which is unknown here"),
        ({"type": "sigstoreSigned", "keyPath": "/k", "rekorPublicKeyPath": "/r"}, "rekorPublicKeyPath of a signature"),
        ({"type": "sigstoreSigned", "pki": {"caRootsPath": "/r", "subjectEmail": "a@b"}}, "pki of a signature"),
    ],
    ids=["openpgp", "unknown", "rekor", "pki"],
)
async def test_what_cannot_be_verified_is_refused_before_its_registry_is_asked(
    registry: Registry, tmp_path: Path, requirement: dict[str, object], reason: str
) -> None:
    with pytest.raises(PolicyError, match=f"it demands {reason}"):
        await pull(registry, tmp_path, policy(registry.address, requirement))
    assert registry.log == []


async def test_signatures_that_cannot_be_had_are_no_permission(registry: Registry, tmp_path: Path, key: Path) -> None:
    digest, text = IMAGE.descriptor.digest, policy(registry.address, signed(key))
    tag = f"sha256-{digest.hex}.sig"
    registry.add_manifest("app", tag, INDEX.media_type, INDEX.index)
    with pytest.raises(FormatError, match="an index where the manifest of signatures is expected"):
        await pull(registry, tmp_path / "store", text)
    many = [(b"%d" % number, "") for number in range(129)]
    attach(registry, "app", digest, many)
    with pytest.raises(FormatError, match="129 signatures, more than 128"):
        await pull(registry, tmp_path / "store", text)
    attach(registry, "app", digest, [(bytes(65537), "")])
    with pytest.raises(FormatError, match="a signed payload of 65537 bytes, more than 65536"):
        await pull(registry, tmp_path / "store", text)
    attach(registry, "app", digest, [(b"payload", "")])
    registry.add_blob(str(Digest.of(b"payload")), b"another")
    with pytest.raises(fastoci.errors.DigestMismatchError):
        await pull(registry, tmp_path / "store", text)
    assert layers_asked(registry) == []


async def test_a_key_that_cannot_be_used_is_named(registry: Registry, tmp_path: Path, signer: Signer) -> None:
    sign(registry, "app", IMAGE.descriptor.digest, signer)
    missing = policy(registry.address, signed(tmp_path / "absent.pub"))
    with pytest.raises(ConfigError, match=r"absent.pub: cannot read this public key: No such file"):
        await pull(registry, tmp_path / "store", missing)
    (tmp_path / "text.pub").write_text("no key")
    with pytest.raises(ConfigError, match=r"\[0\].keyPath: /.*/text.pub: this is not a public key in PEM"):
        await pull(registry, tmp_path / "store", policy(registry.address, signed(tmp_path / "text.pub")))


async def test_what_the_store_has_obeys_as_well(registry: Registry, tmp_path: Path, signer: Signer, key: Path) -> None:
    store, name = tmp_path / "store", f"{registry.address}/app:1"
    await pull(registry, store, policy(registry.address, ACCEPT))
    before = len(registry.log)
    async with fastoci.Engine(store, trust=trusting(policy(registry.address, REJECT))) as engine:
        for asked in (name, f"{registry.address}/app@{IMAGE.descriptor.digest}"):
            for when in ("always", "missing"):
                with pytest.raises(PolicyError, match="it rejects every image"):
                    await engine.pull(asked, policy=when)
        for asked in (name, str(IMAGE.descriptor.digest), IMAGE.descriptor.digest.hex[:12]):
            with pytest.raises(PolicyError, match="it rejects every image"):
                await engine.pull(asked, policy="never")
    assert len(registry.log) == before
    async with fastoci.Engine(store, trust=trusting(policy(registry.address, signed(key)))) as engine:
        with pytest.raises(PolicyError, match="and there is none"):
            await engine.pull(name, policy="missing")
        sign(registry, "app", IMAGE.descriptor.digest, signer)
        await engine.pull(name, policy="missing")
    assert len(layers_asked(registry)) == len(IMAGE.layers)


async def test_a_signature_that_was_verified_is_kept_and_verified_again_without_the_registry(
    registry: Registry, tmp_path: Path, signer: Signer, key: Path
) -> None:
    store, name, text = tmp_path / "store", f"{registry.address}/app:all", policy(registry.address, signed(key))
    for manifest in (IMAGE, OTHER):
        sign(registry, "app", manifest.descriptor.digest, signer)
    async with fastoci.Engine(store, trust=trusting(text)) as engine:
        await engine.pull(name, platform="linux/amd64")
        await engine.prefetch([fastoci.PrefetchRequest(name, platforms=("linux/arm64",))])
        (stored,) = await engine.images()
        assert stored.signatures.keys() == {str(each.descriptor.digest) for each in (IMAGE, OTHER)}
        before = len(registry.log)
        for platform in ("linux/amd64", "linux/arm64"):
            await engine.pull(name, platform=platform, policy="never")
        await engine.pull(name, platform="linux/amd64", policy="missing")
        assert len(registry.log) == before
    other = policy(registry.address, signed(Signer().write(tmp_path / "other.pub")))
    async with fastoci.Engine(store, trust=trusting(other)) as engine:
        with pytest.raises(PolicyError, match="its signature is not accepted: it was not made by the key"):
            await engine.pull(name, platform="linux/amd64", policy="never")
    (path,) = (each for each in (store / "refs").rglob("*") if len(each.name) == 64)
    document = json.loads(path.read_text())
    for broken in ("no JSON", "[{}]"):
        document["signatures"][str(IMAGE.descriptor.digest)] = broken
        path.write_text(json.dumps(document))
        async with fastoci.Engine(store, trust=trusting(text)) as engine:
            with pytest.raises(PolicyError, match="and the store has none; no registry may be asked for it"):
                await engine.pull(name, platform="linux/amd64", policy="never")
            await engine.pull(name, platform="linux/amd64", policy="missing")


async def test_a_prefetch_brings_what_may_be_had(registry: Registry, tmp_path: Path, signer: Signer, key: Path) -> None:
    registry.add_image("signed", "1", IMAGE)
    registry.add_image("free", "1", IMAGE)
    registry.add_image("never", "1", OTHER)
    sign(registry, "signed", IMAGE.descriptor.digest, signer)
    scopes = {
        f"{registry.address}/signed": [signed(key)],
        f"{registry.address}/app": [signed(key)],
        f"{registry.address}/free": [ACCEPT],
    }
    text = json.dumps({"default": [REJECT], "transports": {"docker": scopes}}).encode()
    names = [f"{registry.address}/{name}" for name in ("app:1", "signed:1", "never:1", "free:1")]
    requests = [fastoci.PrefetchRequest(name) for name in names]
    async with fastoci.Engine(tmp_path / "store", trust=trusting(text)) as engine:
        plan = await engine.plan_prefetch(requests)
        assert {each.request.reference for each in plan.refused} == {names[0], names[2]}
        result = await engine.prefetch(requests)
        assert {each.request.reference: type(each.error) for each in result.failed} == dict.fromkeys(
            (names[0], names[2]), PolicyError
        )
        assert [image.name for image in await engine.images()] == [names[3], names[1]]
    assert not any("/never/" in record.path for record in registry.log)


async def test_a_copy_obeys_wherever_it_begins(registry: Registry, tmp_path: Path, signer: Signer, key: Path) -> None:
    name = f"{registry.address}/app:1"
    sign(registry, "app", IMAGE.descriptor.digest, signer)
    text = json.loads(policy(registry.address, signed(key)))
    layout, link = tmp_path / "layouts" / "app", tmp_path / "link"
    link.symlink_to(tmp_path / "layouts")
    text["transports"]["oci"] = {str(tmp_path / "layouts"): [ACCEPT], str(layout / "no"): [REJECT]}
    async with fastoci.Engine(tmp_path / "store", trust=trusting(json.dumps(text).encode())) as engine:
        await engine.pull(name)
        await engine.copy(f"docker://{name}", f"oci:{layout}")
        await engine.copy(f"oci:{link}/app", f"oci:{tmp_path}/second")
        await engine.copy(f"store:{name}", f"oci:{tmp_path}/third")
        with pytest.raises(PolicyError, match=r"refused by policy.json \(default\): it rejects every image"):
            await engine.copy(f"oci:{tmp_path}/second", f"oci:{tmp_path}/none")
        before = len(registry.log)
        with pytest.raises(PolicyError, match="it rejects every image"):
            await engine.copy(f"docker://localhost:{registry.address.partition(':')[2]}/app:1", f"oci:{tmp_path}/none")
        assert len(registry.log) == before
        with pytest.raises(PolicyError, match=f"a signature of the manifest {OTHER.descriptor.digest}, and there is"):
            options = fastoci.CopyOptions(platforms=("all",))
            await engine.copy(f"docker://{registry.address}/app:all", f"oci:{tmp_path}/none", options)
    text["transports"]["docker"][registry.address] = [signed(Signer().write(tmp_path / "other.pub"))]
    text["transports"]["oci"][""] = [signed(key, "exactRepository", dockerRepository="a.b/c")]
    async with fastoci.Engine(tmp_path / "store", trust=trusting(json.dumps(text).encode())) as engine:
        for source in (f"store:{name}", f"docker://{name}"):
            with pytest.raises(PolicyError, match="its signature is not accepted: it was not made by the key"):
                await engine.copy(source, f"oci:{tmp_path}/none")
        with pytest.raises(PolicyError, match="and there is none"):
            await engine.copy(f"oci:{tmp_path}/second", f"oci:{tmp_path}/none")
    assert not (tmp_path / "none").exists()


async def test_a_mirror_is_asked_and_the_name_that_was_asked_for_is_judged(
    registry: Registry, tmp_path: Path, signer: Signer, key: Path
) -> None:
    conf = tmp_path / "registries.conf"
    mirror = f'[[registry.mirror]]\nlocation = "{registry.address}"\ninsecure = true\n'
    conf.write_text(f'[[registry]]\nlocation = "origin.invalid"\n{mirror}')
    sign(registry, "app", IMAGE.descriptor.digest, signer, "origin.invalid/app:1")
    options = fastoci.RegistryOptions(registries_conf=conf)
    text = policy("origin.invalid/app", signed(key, "matchExact"))
    async with fastoci.Engine(tmp_path / "store", registry=options, trust=trusting(text)) as engine:
        await engine.pull("origin.invalid/app:1")
    text = policy(registry.address, ACCEPT)
    async with fastoci.Engine(tmp_path / "store", registry=options, trust=trusting(text)) as engine:
        with pytest.raises(PolicyError, match=r"refused by policy.json \(default\)"):
            await engine.pull("origin.invalid/app:1")


async def test_the_machines_policy_counts_by_default(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.json"
    monkeypatch.setenv("CONTAINERS_POLICY_JSON", str(path))
    async with fastoci.Engine(tmp_path / "store") as engine:
        with pytest.raises(ConfigError, match=r"policy.json: cannot read this policy of trust: No such file"):
            await engine.pull(f"{registry.address}/app:1")
    path.write_bytes(policy(registry.address, REJECT))
    async with fastoci.Engine(tmp_path / "store") as engine:
        with pytest.raises(PolicyError):
            await engine.pull(f"{registry.address}/app:1")
    with pytest.raises(TypeError, match=r"trust: expected TrustPolicy, got str .*; read_trust_policy makes one"):
        await fastoci.Engine(tmp_path / "store", trust=str(path)).__aenter__()  # type: ignore[arg-type]
    anything = fastoci.TrustPolicy.accept_anything()
    async with fastoci.Engine(tmp_path / "store", trust=anything) as engine:
        await engine.pull(f"{registry.address}/app:1")


def test_cryptography_is_imported_only_when_a_signature_is_demanded(registry: Registry, tmp_path: Path) -> None:
    program = """if True:
        import asyncio, sys, fastoci
        async def main(name, store, policy):
            async with fastoci.Engine(store, trust=fastoci.TrustPolicy.parse(policy)) as engine:
                await engine.pull(name)
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.stdin.buffer.read()))
        print("cryptography" in sys.modules)
    """
    command = [sys.executable, "-c", program, f"{registry.address}/app:1", str(tmp_path / "store")]
    done = subprocess.run(command, input=policy(registry.address, ACCEPT), capture_output=True, check=True)
    assert done.stdout == b"False\n"
