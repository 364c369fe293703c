"""Kubernetes manifests: the images of containers, wherever a pod is described.

Covers: lists/kubernetes.py, lists/node.py.
"""

from __future__ import annotations

import json
import textwrap

import pytest

from fastoci.lists.parsing import parse_list
from fastoci.lists.request import ListProblem


def images(text: str) -> list[tuple[str, str]]:
    """The images of a manifest, with their origins; there are no problems."""
    found = parse_list(textwrap.dedent(text).encode(), "m")
    assert found.problems == ()
    return [(request.reference, request.origin) for request in found.requests]


def test_all_kinds_of_containers_and_image_volumes_count() -> None:
    assert images("""\
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: web, annotations: {image: not-a-container:1}}
        spec:
          template:
            spec:
              initContainers:
              - name: init
                image: busybox:1
              containers:
              - {name: web, image: "nginx:1.27"}
              - name: side
                image: quay.io/side@sha256:ab
              ephemeralContainers: [{image: debug}]
              volumes:
              - name: model
                image:
                  reference: registry.local/model:2
              - configMap: {name: image}
        """) == [
        ("busybox:1", "m:9"),
        ("nginx:1.27", "m:11"),
        ("quay.io/side@sha256:ab", "m:13"),
        ("debug", "m:14"),
        ("registry.local/model:2", "m:18"),
    ]


def test_documents_of_helm_are_read_one_by_one_and_an_image_counts_once() -> None:
    assert images("""\
        ---
        # Source: app/templates/cron.yaml
        apiVersion: batch/v1
        kind: CronJob
        spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: a}]}}}}}
        ---
        # Source: app/templates/empty.yaml
        ---
        apiVersion: v1
        kind: ConfigMap
        data: {image: b, pod.yaml: "containers: [{image: c}]"}
        ---
        apiVersion: v1
        kind: Pod
        spec: {containers: [{image: a}, {image: d}]}
        """) == [("a", "m:5"), ("d", "m:15")]


def test_pods_of_kubectl_are_read_and_their_status_is_not() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"annotations": {"last-applied": '{"spec":{"containers":[{"image":"old"}]}}\t\x7f\ud83d\ude00'}},
        "spec": {"containers": [{"name": "a", "image": "redis:7"}]},
        "status": {"containerStatuses": [{"image": "docker.io/library/redis:7", "imageID": "x@sha256:00"}]},
    }
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod]}, indent=4)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if '"redis:7"' in line)
    assert images(text) == [("redis:7", f"m:{line}")]
    assert images(json.dumps([pod])) == [("redis:7", "m:1")]
    assert images(text.replace("    ", "\t")) == [("redis:7", f"m:{line}")]


@pytest.mark.parametrize(
    ("image", "counts"),
    [
        ("quay.io/prometheus/prometheus", True),
        ("redis:7", True),
        ("team/app:7", True),
        ("localhost:5000/app", True),
        ("app@sha256:00", True),
        ("ubuntu-2204", False),
        ("projects/ubuntu/global/images/family/noble", False),
        ("https://cloud.example/disk.qcow2", False),
        ("logo of a team: 1", False),
        ("", False),
    ],
)
def test_a_resource_of_others_has_the_images_that_say_more_than_a_name(image: str, counts: bool) -> None:
    manifest = f"""\
        apiVersion: monitoring.coreos.com/v1
        kind: Prometheus
        metadata: {{image: "quay.io/none:1"}}
        spec: {{nested: {{image: "{image}"}}}}
        status: {{image: "quay.io/none:2"}}
        """
    assert images(manifest) == ([(image, "m:4")] if counts else [])
    assert images(manifest.replace("monitoring.coreos.com", "storage.k8s.io")) == []


def test_the_schema_of_a_resource_has_no_images() -> None:
    assert (
        images("""\
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        spec:
          schema:
            properties:
              containers: {type: array, items: {properties: {image: {type: string, default: "quay.io/x:1"}}}}
              volumes: {type: array}
        """)
        == []
    )


def test_workloads_of_others_have_containers_as_all_have() -> None:
    assert images("""\
        apiVersion: argoproj.io/v1alpha1
        kind: Workflow
        spec:
          templates:
          - container: {image: alpine:3}
          - containers: [{image: plain-name}]
        """) == [("alpine:3", "m:5"), ("plain-name", "m:6")]


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("", None),
        ("' '", "the image of a container is empty"),
        ("{repository: a, tag: b}", "the image of a container is not a text"),
        ("{{ .Values.image }}", "a key is not a text: braces that a template leaves need quotes"),
    ],
    ids=["none", "blank", "mapping", "template"],
)
def test_a_container_without_an_image_is_told_unless_it_says_nothing(image: str, problem: str | None) -> None:
    found = parse_list(f"kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - image: {image}\n".encode(), "m")
    messages = [problem.message for problem in found.problems]
    assert messages[:1] == ([] if problem is None else [problem])
    assert {problem.origin for problem in found.problems} <= {"m:5"}
    assert found.requests == ()


def test_anchors_and_merged_keys_mean_what_they_mean_to_kubectl() -> None:
    assert images("""\
        apiVersion: v1
        kind: Pod
        spec:
          containers:
          - &one {name: one, image: app:1}
          - {<<: *one, name: two}
          - {<<: [{name: x}, {image: app:2}]}
          initContainers: [*one]
        """) == [("app:1", "m:5"), ("app:2", "m:7")]


def test_a_document_of_no_form_is_told_and_the_others_count() -> None:
    found = parse_list(b"---\nimage: x\n---\napiVersion: v1\nkind: Pod\nspec: {containers: [{image: a}]}\n", "m")
    assert [request.reference for request in found.requests] == ["a"]
    assert [problem.origin for problem in found.problems] == ["m:2"]
    assert "neither Kubernetes, compose nor skopeo sync" in found.problems[0].message


def test_a_manifest_that_is_cut_off_gives_what_was_whole_before() -> None:
    found = parse_list(b"kind: Pod\napiVersion: v1\nspec: {containers: [{image: a}]}\n---\nx: 'y\n", "m")
    assert [request.reference for request in found.requests] == ["a"]
    assert found.problems == (ListProblem("m:6", "this is not YAML: found unexpected end of stream"),)
