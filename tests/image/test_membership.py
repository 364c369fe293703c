"""Which lists want an image: who brought it, who pinned it, and when it goes.

Covers: image/membership.py.
"""

from __future__ import annotations

from msgspec.structs import replace

from fastoci.image.descriptor import Descriptor
from fastoci.image.mediatype import OCI_INDEX, OCI_MANIFEST
from fastoci.image.membership import joined, left, merged, pinned, released
from fastoci.image.stored_image import StoredImage

TOP = Descriptor.of(b"index", OCI_INDEX)
PULLED = StoredImage("example.com/app:1", TOP, {}, "2026-01-02T03:04:05Z")
BROUGHT = replace(PULLED, lists={"prod": False}, is_brought=True)
BROUGHT_PINNED = replace(PULLED, lists={"prod": True}, is_brought=True, pinned=True)


def test_what_only_a_list_brought_goes_with_it() -> None:
    assert left(BROUGHT, "prod") is None
    assert left(BROUGHT_PINNED, "prod") is None


def test_what_somebody_pulled_before_or_since_stays_without_the_list() -> None:
    assert left(merged(PULLED, BROUGHT), "prod") == PULLED
    assert left(merged(BROUGHT, PULLED), "prod") == PULLED
    assert left(merged(PULLED, BROUGHT_PINNED), "prod") == PULLED


def test_what_another_list_wants_stays_until_that_one_leaves_it() -> None:
    both = joined(BROUGHT, "test", pinned=False)
    rest = left(both, "prod")
    assert rest == replace(PULLED, lists={"test": False}, is_brought=True)
    assert left(rest, "test") is None


def test_a_list_that_does_not_want_an_image_changes_nothing() -> None:
    assert left(BROUGHT, "test") is BROUGHT
    assert released(BROUGHT, "test") is BROUGHT


def test_a_pin_goes_with_the_last_list_that_set_it() -> None:
    both = joined(BROUGHT_PINNED, "test", pinned=True)
    assert both.lists == {"prod": True, "test": True}
    rest = left(both, "prod")
    assert rest is not None
    assert rest.pinned
    assert not released(rest, "test").pinned
    unpinned = left(joined(BROUGHT_PINNED, "test", pinned=False), "prod")
    assert unpinned is not None
    assert not unpinned.pinned


def test_a_pin_by_hand_is_no_lists_to_take_away() -> None:
    by_hand = replace(PULLED, pinned=True)
    wanted = joined(by_hand, "prod", pinned=True)
    assert wanted.lists == {"prod": False}
    assert released(wanted, "prod").pinned
    assert left(wanted, "prod") == by_hand
    later = pinned(BROUGHT_PINNED, True)
    rest = left(later, "prod")
    assert rest is not None
    assert rest.pinned
    assert left(merged(BROUGHT, replace(PULLED, pinned=True)), "prod") == by_hand


def test_a_list_that_wants_a_pin_once_keeps_it_until_it_is_released() -> None:
    again = joined(BROUGHT_PINNED, "prod", pinned=False)
    assert again == BROUGHT_PINNED
    assert released(again, "prod") == BROUGHT


def test_who_lets_go_by_hand_takes_the_pin_from_the_lists() -> None:
    assert pinned(BROUGHT_PINNED, False) == BROUGHT


def test_a_name_that_moves_stays_the_lists_and_pinned() -> None:
    moved = Descriptor.of(b"other", OCI_MANIFEST)
    new = replace(BROUGHT, descriptor=moved)
    assert merged(BROUGHT_PINNED, new) == replace(BROUGHT_PINNED, descriptor=moved)
