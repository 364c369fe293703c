"""What images are called where they are copied to."""

from __future__ import annotations

import pytest

from fastoci.errors import ReferenceSyntaxError
from fastoci.image.end import End
from fastoci.image.end_names import demand_place_for, kept_names, names


def test_one_image_has_the_name_of_its_destination_and_more() -> None:
    assert names(End.parse("docker://r.test/app:1"), ["2"]) == ("r.test/app:1", "r.test/app:2")
    in_full = ["r.test/app:2"]
    assert names(End.parse("docker://r.test/app:1"), in_full) == ("r.test/app:1", "r.test/app:2")
    assert names(End.parse("oci:dir:one"), ["two"]) == ("one", "two")
    assert names(End.parse("oci:dir"), []) == ("",)


@pytest.mark.parametrize("name", ["r.test/other:2", "other:2", "r.test/app@sha256:" + "0" * 64, "-", ""])
def test_another_tag_is_one_of_the_repository(name: str) -> None:
    with pytest.raises(ReferenceSyntaxError):
        names(End.parse("docker://r.test/app:1"), [name])


@pytest.mark.parametrize("place", ["docker://r.test/app", "store:r.test/app", "dir:d", "oci:d:name"])
def test_several_images_go_only_where_each_has_a_name(place: str) -> None:
    demand_place_for(1, End.parse(place), [])
    with pytest.raises(ReferenceSyntaxError):
        demand_place_for(2, End.parse(place), [])


def test_several_images_get_no_name_in_common() -> None:
    demand_place_for(2, End.parse("oci:d"), [])
    for wrong in (0, []), (2, ["name"]):
        with pytest.raises(ReferenceSyntaxError):
            demand_place_for(wrong[0], End.parse("oci:d"), wrong[1])


def test_each_of_several_images_keeps_its_name() -> None:
    called = ["r.test/app:1", "", "one", ""]
    assert kept_names(called, End.parse("oci:d")) == called
    assert kept_names(called, End.parse("docker-archive:d")) == ["r.test/app:1", "", "docker.io/library/one:latest", ""]
    with pytest.raises(ReferenceSyntaxError, match="two of the images"):
        kept_names(["redis", "docker.io/library/redis:latest"], End.parse("docker-archive:d"))
    with pytest.raises(ReferenceSyntaxError, match="is not a name"):
        kept_names(["a", "b c"], End.parse("oci:d"))
