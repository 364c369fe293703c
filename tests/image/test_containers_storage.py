"""Records of containers/storage: which layers there are, and what becomes of old records."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image.containers_storage import (
    EMPTY_TAR,
    Record,
    TarFacts,
    data_name,
    image_record,
    layer_record,
    merged_images,
    merged_layers,
    needed_layers,
    parse_records,
    storage_layers,
)
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layer_file import LayerDirectory

DIFF_IDS = [Digest.of(bytes([number])) for number in range(3)]
PAIRS = [(Descriptor("application/vnd.oci.image.layer.v1.tar+zstd", each, 9), each) for each in DIFF_IDS]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def stack(chains: list[Digest]) -> list[LayerDirectory]:
    return [
        LayerDirectory(
            entries=1,
            size=5,
            owners=True,
            user_xattrs=False,
            names_root=False,
            chain_id=chain,
            path=f"/s/layers/overlay/{chain.hex}/tree",
            boot_id="",
            synced=True,
        )
        for chain in chains
    ]


def image(number: int, name: str, created: str = "") -> Record:
    config = Descriptor("config", Digest.of(bytes([number])), 1)
    return image_record(name, config, config, {"manifest": b"{}"}, "top", created)


def test_layers_have_the_ids_that_containers_image_gives_them() -> None:
    made = storage_layers(PAIRS, stack(DIFF_IDS), naming=None)
    first, second = DIFF_IDS[0].hex, DIFF_IDS[1].hex
    assert made[0].id == first
    assert made[1].id == hashlib.sha256(f"{first}+{second}".encode()).hexdigest()
    assert [each.parent for each in made] == ["", made[0].id, made[1].id]
    assert made[2].lowers == (made[1].link, made[0].link)


def test_layers_that_only_count_together_are_one_layer_that_nobody_finds_by_a_digest() -> None:
    made = storage_layers(PAIRS, stack([Digest.of(b"chain"), DIFF_IDS[2]]), naming=None)
    assert [each.shows.partition("/")[0] for each in made] == [Digest.of(b"chain").hex, DIFF_IDS[2].hex]
    record = layer_record(made[0], None, NOW)
    assert record["diff-digest"] not in {str(each) for each in DIFF_IDS}
    assert record["diff-size"] == 5
    assert "parent" not in record


def test_a_directory_that_shows_twice_is_mounted_once() -> None:
    pairs = [PAIRS[0], PAIRS[1], PAIRS[0]]
    made = storage_layers(pairs, stack([diff_id for _, diff_id in pairs]), naming=None)
    assert made[2].link == made[0].link
    above = storage_layers([*pairs, PAIRS[2]], stack([*(each for _, each in pairs), DIFF_IDS[2]]), naming=None)[-1]
    assert above.lowers == (made[2].link, made[1].link)


def test_the_root_of_a_lower_layer_is_one_more_layer() -> None:
    directories = stack(DIFF_IDS)
    made = storage_layers(PAIRS, directories, naming=directories[0])
    assert made[-1].shows == f"{DIFF_IDS[0].hex}/root"
    assert made[-1].diff_id == EMPTY_TAR
    assert len(made) == 4


def test_what_is_known_of_a_tar_is_in_the_record() -> None:
    record = layer_record(storage_layers(PAIRS, stack(DIFF_IDS), naming=None)[0], TarFacts(1024, 5, 0), NOW)
    assert record["diff-digest"] == str(DIFF_IDS[0])
    assert (record["diff-size"], record["compression"], record["created"]) == (1024, 4, "2026-01-02T03:04:05Z")
    assert (record["uidset"], record["gidset"]) == ([0, 5], [0])


def test_a_diff_id_of_another_algorithm_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="sha256 only"):
        storage_layers([(PAIRS[0][0], Digest("sha512", "0" * 128))], stack(DIFF_IDS[:1]), naming=None)


def test_a_name_leads_to_the_image_that_got_it_last() -> None:
    first = merged_images([], image(1, "a"))
    both = merged_images(merged_images(first, image(1, "b")), image(2, "a"))
    assert [(each["id"], each["names"]) for each in both] == [
        (image(1, "")["id"], ["b"]),
        (image(2, "")["id"], ["a"]),
    ]


def test_what_is_known_of_a_layer_is_not_forgotten() -> None:
    known: Record = {"id": "a", "uidset": [0], "theirs": 1}
    assert merged_layers([known], [{"id": "a", "diff-digest": "none"}, {"id": "b"}]) == [known, {"id": "b"}]
    assert merged_layers([{"id": "a"}], [known]) == [known]


def test_layers_are_needed_by_the_images_above_them() -> None:
    layers: list[Record] = [{"id": "a"}, {"id": "b", "parent": "a"}, {"id": "c", "parent": "a"}]
    assert needed_layers([{"id": "i", "layer": "b"}], layers) == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"),
        ("2023-11-14T22:13:20.123456789+02:00", "2023-11-14T22:13:20.123456789+02:00"),
        ("2023-13-45T22:13:20Z", "0001-01-01T00:00:00Z"),
        ('","x":"', "0001-01-01T00:00:00Z"),
    ],
    ids=["plain", "fraction", "no date", "no time"],
)
def test_a_time_that_go_does_not_read_is_none(text: str, told: str) -> None:
    assert image(1, "a", text)["created"] == told


def test_documents_are_in_files_that_containers_storage_finds() -> None:
    assert data_name("manifest") == "manifest"
    assert data_name("sha256:0a") == "=c2hhMjU2OjBh"


@pytest.mark.parametrize("data", [b"{}", b"[1]", b"[{}]", b"no"])
def test_other_files_are_no_records(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"images\.json"):
        parse_records(data, "images.json")
