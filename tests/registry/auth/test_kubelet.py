"""The kubelet's image credential providers: real plugins, its own configuration files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastoci.errors import CredentialError, FormatError
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.kubelet import Providers, load
from support.helper_programs import HelperProgram, plugin

PROTOCOL = "credentialprovider.kubelet.k8s.io/v1"
CONFIG = """
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr-credential-provider
    matchImages:
      - "*.dkr.ecr.*.amazonaws.com"
      - "r.test:5000/team"
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [get-credentials]
    env:
      - {name: PLUGIN, value: "yes"}
"""
IMAGE = "1234.dkr.ecr.eu-west-1.amazonaws.com/team/app"


def response(auth: object, *, kind: str = "Registry", **more: object) -> dict[str, object]:
    return {
        "kind": "CredentialProviderResponse",
        "apiVersion": PROTOCOL,
        "cacheKeyType": kind,
        "auth": auth,
        **more,
    }


def entry(user: str, password: str = "hunter2") -> dict[str, str]:
    return {"username": user, "password": password}


class Node:
    """A directory of plugins, a configuration, and a clock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "config.yaml"
        self.config.write_text(CONFIG)
        self.now = 1000.0

    def plugin(self, answer: object, name: str = "ecr-credential-provider", *, status: int = 0) -> HelperProgram:
        return plugin(self.directory, name, answer, status=status)

    def load(self, **changes: object) -> Providers:
        """The configuration with fields of its first provider changed."""
        found = yaml.safe_load(CONFIG)
        found["providers"][0].update(changes)
        self.config.write_text(yaml.safe_dump(found))
        return load(self.config, self.directory, {"PATH": "/usr/bin:/bin"}, clock=lambda: self.now)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_plugin_is_asked_by_its_protocol_with_arguments_and_environment(node: Node) -> None:
    program = node.plugin(response({"*.dkr.ecr.*.amazonaws.com": entry("AWS")}))
    assert await node.load().get(IMAGE) == Credential("AWS", "hunter2")
    request = {"kind": "CredentialProviderRequest", "apiVersion": PROTOCOL, "image": IMAGE}
    assert program.lines() == [[request, ["get-credentials"], "yes"]]


async def test_an_image_that_no_pattern_means_is_asked_of_nobody(node: Node) -> None:
    program = node.plugin(response({}))
    providers = node.load()
    for image in ("r.test/team/app", "r.test:5000/other", "docker.io/library/redis"):
        assert await providers.get(image) is None
    assert program.lines() == []
    assert await providers.get("r.test:5000/team/app") is None
    assert len(program.lines()) == 1


async def test_the_longest_key_of_an_answer_is_taken(node: Node) -> None:
    host = IMAGE.partition("/")[0]
    auth = {host: entry("host"), f"{host}/team": entry("team"), f"{host}/team/application": entry("other")}
    node.plugin(response(auth))
    assert await node.load().get(IMAGE) == Credential("team", "hunter2")


@pytest.mark.parametrize(
    ("kind", "asked"),
    [("Image", 3), ("Registry", 2), ("Global", 1)],
)
async def test_an_answer_holds_as_widely_as_it_says(node: Node, kind: str, asked: int) -> None:
    program = node.plugin(response({"*.dkr.ecr.*.amazonaws.com": entry("AWS")}, kind=kind))
    providers = node.load()
    for image in (IMAGE, f"{IMAGE}2", "5.dkr.ecr.eu-west-1.amazonaws.com/app", IMAGE):
        assert await providers.get(image) == Credential("AWS", "hunter2")
    assert len(program.lines()) == asked


@pytest.mark.parametrize(
    ("said", "kept_s"), [({}, 43200.0), ({"cacheDuration": None}, 43200.0), ({"cacheDuration": "10m"}, 600.0)]
)
async def test_an_answer_is_kept_as_long_as_it_says_else_as_the_configuration_does(
    node: Node, said: dict[str, Any], kept_s: float
) -> None:
    program = node.plugin(response({}, **said))
    providers = node.load()
    for later_s, asked in ((0.0, 1), (kept_s - 1, 1), (kept_s, 2)):
        node.now = 1000.0 + later_s
        await providers.get(IMAGE)
        assert len(program.lines()) == asked


async def test_an_answer_for_no_time_is_asked_for_again(node: Node) -> None:
    program = node.plugin(response({}, cacheDuration="0s"))
    providers = node.load()
    await providers.get(IMAGE)
    await providers.get(IMAGE)
    assert len(program.lines()) == 2


async def test_many_that_wait_share_one_question(node: Node) -> None:
    program = node.plugin(response({"*.dkr.ecr.*.amazonaws.com": entry("AWS")}))
    providers = node.load()
    found = await asyncio.gather(*(providers.get(f"{IMAGE}{number}") for number in range(20)))
    assert found == [Credential("AWS", "hunter2")] * 20
    assert len(program.lines()) == 1


async def test_the_next_provider_is_asked_when_one_knows_nothing(node: Node) -> None:
    node.plugin(response(None))
    node.plugin(response({"r.test:5000": entry("second")}), "second")
    found = yaml.safe_load(CONFIG)
    found["providers"].append({**found["providers"][0], "name": "second"})
    node.config.write_text(json.dumps(found))
    assert await load(node.config, node.directory, {}).get("r.test:5000/team/x") == Credential("second", "hunter2")


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
async def test_all_versions_are_spoken(node: Node, version: str) -> None:
    protocol = f"credentialprovider.kubelet.k8s.io/{version}"
    node.plugin({**response({"r.test:5000": entry("me")}), "apiVersion": protocol})
    node.load(apiVersion=protocol)
    node.config.write_text(
        node.config.read_text().replace("kubelet.config.k8s.io/v1\n", f"kubelet.config.k8s.io/{version}\n")
    )
    assert await load(node.config, node.directory, {}).get("r.test:5000/team/x") == Credential("me", "hunter2")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "hunter2",
        "[]",
        "[" * 100_000,
        {},
        {**response({}), "kind": "Other"},
        {**response({}), "apiVersion": "credentialprovider.kubelet.k8s.io/v1beta1"},
        response({}, kind="Galaxy"),
        response([]),
        response({"r.test": "hunter2"}),
        response({"r.test": {"username": 1, "password": "hunter2"}}),
        response({}, cacheDuration="soon"),
        response({}, cacheDuration="-5m"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_without_its_text(node: Node, answer: object) -> None:
    node.plugin(answer)
    with pytest.raises(CredentialError, match=r"ecr-credential-provider: its answer for .* is no") as caught:
        await node.load().get(IMAGE)
    assert "hunter2" not in str(caught.value)
    assert caught.value.program == "ecr-credential-provider"


async def test_a_plugin_that_fails_is_named(node: Node) -> None:
    node.plugin(response({}), status=7)
    with pytest.raises(CredentialError, match=r"ecr-credential-provider: it failed for .* with exit status 7"):
        await node.load().get(IMAGE)


async def test_a_plugin_that_is_absent_is_named(node: Node) -> None:
    with pytest.raises(CredentialError, match="ecr-credential-provider: cannot be run"):
        await node.load().get(IMAGE)


async def test_a_provider_that_needs_a_pod_is_passed_over(node: Node) -> None:
    program = node.plugin(response({}))
    needs = {"serviceAccountTokenAudience": "a", "cacheType": "Token", "requireServiceAccount": True}
    assert await node.load(tokenAttributes=needs).get(IMAGE) is None
    assert program.lines() == []


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"name": "../../bin/sh"}, "'name'"),
        ({"name": ".."}, "'name'"),
        ({"name": None}, "'name'"),
        ({"apiVersion": "v1"}, "'apiVersion'"),
        ({"matchImages": []}, "'matchImages' is empty"),
        ({"matchImages": "r.test"}, "'matchImages' is not a list"),
        ({"matchImages": ["r[.test"]}, "which is not a pattern"),
        ({"defaultCacheDuration": None}, "'defaultCacheDuration'"),
        ({"defaultCacheDuration": "soon"}, "'defaultCacheDuration'"),
        ({"args": [1]}, "'args'"),
        ({"args": ["a\0b"]}, "'args'"),
        ({"env": {"a": "hunter2"}}, "'env'"),
        ({"env": [{"name": "A=B", "value": "hunter2"}]}, "'env'"),
        ({"env": ["hunter2"]}, "'env'"),
    ],
)
def test_a_provider_that_is_wrong_names_the_file_and_the_field(
    node: Node, changes: dict[str, object], wrong: str
) -> None:
    with pytest.raises(FormatError, match=wrong) as caught:
        node.load(**changes)
    assert f"{node.config}: providers[0]" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "its kind"),
        ("[]", "its kind"),
        ("kind: Pod", "its kind"),
        (CONFIG.replace("kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v9"), "its apiVersion"),
        (CONFIG.partition("providers:")[0], "'providers'"),
        (CONFIG.partition("providers:")[0] + "providers: [hunter2]", "is not an object"),
        (CONFIG + "  - hunter2: [", "line 14: this credential provider config is not YAML"),
        (CONFIG + "\0", "not YAML"),
        ("x: !!python/object/apply:os.system ['touch made']", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("#" * (2 << 20), "larger than"),
        (CONFIG + CONFIG.partition("providers:\n")[2], "two providers"),
    ],
)
def test_a_configuration_that_is_none_is_refused(node: Node, text: str, wrong: str) -> None:
    node.config.write_text(text)
    with pytest.raises(FormatError, match=wrong) as caught:
        load(node.config, node.directory, {})
    assert str(node.config) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_configuration_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        load(tmp_path / "absent", tmp_path, {})
