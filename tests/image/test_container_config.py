"""What a container of an image is started with: read from hostile configs."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image.container_config import PATH, ContainerConfig, parse


def parsed(config: Mapping[str, object] | None = None, **fields: object) -> ContainerConfig:
    return parse(json.dumps({"os": "linux", "config": config, **fields}).encode())


def test_the_command_follows_the_entrypoint() -> None:
    assert parsed({"Entrypoint": ["/entry", "-x"], "Cmd": ["a b", ""]}).args == ("/entry", "-x", "a b", "")


@pytest.mark.parametrize("config", [None, {}, {"Entrypoint": None, "Cmd": []}])
def test_an_image_without_a_command_gets_a_shell(config: dict[str, object] | None) -> None:
    found = parsed(config)
    assert (found.args, found.working_dir, found.user, found.volumes) == (("sh",), "/", "", ())


def test_variables_keep_their_order_and_their_last_value() -> None:
    found = parsed({"Env": ["B=1", "PATH=/bin", "A=x=y", "B=2", "no variable", "=nor this", "EMPTY="]})
    assert list(found.env.items()) == [("B", "2"), ("PATH", "/bin"), ("A", "x=y"), ("EMPTY", "")]


def test_an_image_without_a_search_path_gets_the_usual_one() -> None:
    assert list(parsed({"Env": ["A=1"]}).env.items()) == [("PATH", PATH), ("A", "1")]


@pytest.mark.parametrize(
    ("written", "found"),
    [("", "/"), ("/app/", "/app/"), ("app", "/app"), ("/link/../b", "/link/../b"), ("..", "/..")],
)
def test_the_working_directory_is_as_written_from_the_root(written: str, found: str) -> None:
    assert parsed({"WorkingDir": written}).working_dir == found


def test_volumes_are_absolute_and_parents_come_first() -> None:
    found = parsed({"Volumes": {"/data/inner": {}, "var/lib": None, "/data": {}, "//data/": {}}})
    assert found.volumes == ("/data", "/data/inner", "/var/lib")
    assert found.left_out == ()


@pytest.mark.parametrize("path", ["/", ".", "/proc", "/proc/self/attr", "/sys/x", "/dev/shm", "/x/../proc", "//proc"])
def test_a_volume_over_what_the_runtime_mounts_is_left_out(path: str) -> None:
    found = parsed({"Volumes": {path: {}, "/data": {}, "/process": {}}})
    assert found.volumes == ("/data", "/process")
    assert len(found.left_out) == 1


def test_more_volumes_than_anybody_has_are_refused() -> None:
    assert len(parsed({"Volumes": {f"/{number}": {} for number in range(1000)}}).volumes) == 1000
    with pytest.raises(UnsupportedError, match="1001 volumes"):
        parsed({"Volumes": {f"/{number}": {} for number in range(1001)}})


def test_annotations_follow_the_specification_and_labels_come_first() -> None:
    config = {
        "Labels": {"mine": "1", "org.opencontainers.image.author": "the label"},
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
    }
    fields: dict[str, object] = {
        "architecture": "arm64",
        "variant": "v8",
        "author": "the field",
        "created": "2024-01-01T00:00:00Z",
        "os.version": "6",
        "os.features": ["a", "b"],
    }
    prefix = "org.opencontainers.image."
    assert parsed(config, **fields).annotations == {
        "mine": "1",
        f"{prefix}architecture": "arm64",
        f"{prefix}author": "the label",
        f"{prefix}created": "2024-01-01T00:00:00Z",
        f"{prefix}exposedPorts": "53/udp,80/tcp",
        f"{prefix}os": "linux",
        f"{prefix}os.features": "a,b",
        f"{prefix}os.version": "6",
        f"{prefix}stopSignal": "SIGQUIT",
        f"{prefix}variant": "v8",
    }


@pytest.mark.parametrize(
    "label",
    [
        "run.oci.hooks.stderr",
        "run.oci.handler",
        "org.systemd.property.ExecStartPost",
        "org.criu.config",
        "cdi.k8s.io/gpu",
        "io.katacontainers.config.hypervisor.path",
        "io.kubernetes.cri-o.Devices",
        "",
    ],
)
def test_a_label_that_leads_a_runtime_is_left_out_and_told(label: str) -> None:
    found = parsed({"Labels": {label: "x", "run.my": "y"}})
    assert found.annotations == {"run.my": "y", "org.opencontainers.image.os": "linux"}
    assert found.left_out == (f"label {label}",)


@pytest.mark.parametrize(
    "config",
    [
        {"Cmd": ["a\0b"]},
        {"Env": ["A=\0"]},
        {"Env": ["A\0=1"]},
        {"WorkingDir": "/\0"},
        {"Volumes": {"/\0": {}}},
        {"Cmd": "sh -c"},
        {"Env": {"A": "1"}},
        {"Labels": {"a": 1}},
        {"User": 0},
    ],
)
def test_a_config_of_another_form_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(FormatError, match="config"):
        parsed(config)


@pytest.mark.parametrize("text", [b'{"config":{"Cmd":["a"],"cmd":["b"]}}', b'{"config":{"User":"a","User":"b"}}'])
def test_a_config_with_two_meanings_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match="key"):
        parse(text)


def test_an_image_for_another_system_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="for windows"):
        parsed(os="windows")
