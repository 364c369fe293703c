"""The kubelet's patterns of images: which keys mean an image, and which is the longest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.registry.auth.kubelet_match import best, matches


@pytest.mark.parametrize(
    ("pattern", "image", "means"),
    [
        ("gcr.io", "gcr.io/p/app", True),
        ("gcr.io", "us.gcr.io/p/app", False),
        ("GCR.io", "gcr.io/p", True),
        ("*.azurecr.io", "team.azurecr.io/app", True),
        ("*.azurecr.io", "azurecr.io/app", False),
        ("*.azurecr.io", "a.b.azurecr.io/app", False),
        ("*.azurecr.io", "team.azurecr.io.evil.test/app", False),
        ("*.*.registry.io", "a.b.registry.io/app", True),
        ("*.dkr.ecr.*.amazonaws.com", "12345.dkr.ecr.eu-west-1.amazonaws.com/app", True),
        ("*.dkr.ecr.*.amazonaws.com", "12345.dkr.ecr.cn-north-1.amazonaws.com.cn/app", False),
        ("app*.k8s.io", "app7.k8s.io/x", True),
        ("*", "registry/x", True),
        ("*", "r.test/x", False),
        ("r?.test", "r1.test/x", True),
        ("r[0-9].test", "r1.test/x", True),
        ("r[^0-9].test", "r1.test/x", False),
        ("r.test:8080", "r.test:8080/x", True),
        ("r.test:8080", "r.test/x", False),
        ("r.test", "r.test:443/x", False),
        ("r.test:8080/team", "r.test:8080/team/app", True),
        ("r.test/team", "r.test/teamwork", True),  # a prefix, as the kubelet takes it
        ("r.test/team/", "r.test/teamwork", False),
        ("r.test/team", "r.test/other/team", False),
        ("https://r.test/team", "r.test/team/app", True),
        ("docker.io", "docker.io/library/redis", True),
        ("[::1]:5000", "[::1]:5000/x", True),
        ("*.xn--bcher-kva.de", "r.xn--bcher-kva.de/x", True),
    ],
)
def test_a_pattern_means_the_images_that_the_kubelet_takes_it_for(pattern: str, image: str, means: bool) -> None:
    assert matches(pattern, image) is means


@pytest.mark.parametrize(
    "pattern", ["", "/x", "a b", "r.test:port", "r[.test", "r].test", "r[].test", "a\\*.test", "ftp://r"]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a pattern"):
        matches(pattern, "r.test/x")


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (["r.test", "r.test/team", "r.test/team/app", "r.test/team/application"], "r.test/team/app"),
        (["*.test", "r.test"], "r.test"),
        (["https://r.test/v1/"], "https://r.test/v1/"),
        (["https://r.test/v2/team"], "https://r.test/v2/team"),
        (["r.test/"], "r.test/"),
        (["other.test", "r.test.evil", "r[", "r.test:443"], None),
        ([], None),
    ],
)
def test_the_longest_key_that_means_the_image_is_chosen(keys: list[str], chosen: str | None) -> None:
    assert best(keys, "r.test/team/app") == chosen


def test_docker_hub_may_have_its_old_name_as_a_key() -> None:
    assert best(["https://index.docker.io/v1/"], "docker.io/library/redis") == "https://index.docker.io/v1/"


@given(st.text(max_size=40) | st.text(alphabet="*?[]^-.:/a1", max_size=20))
def test_any_text_is_a_pattern_or_a_value_error(text: str) -> None:
    try:
        matches(text, "r.test/x")
    except ValueError:
        return
    assert best([text], "r.test/x") in (text, None)
