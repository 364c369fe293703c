"""Back-off and the retry budget, by numbers alone."""

from __future__ import annotations

from msgspec.structs import replace

from fastoci.registry.fetch.retry import Backoff, RetryBudget, RetryPolicy

POLICY = RetryPolicy(tries=10, unreachable_tries=3, first_s=0.2, maximum_s=20.0, budget=100)


def policy(random: float) -> RetryPolicy:
    return replace(POLICY, rng=lambda: random)


def waits(backoff: Backoff, *, unreachable: bool = False) -> list[float]:
    found = []
    while (wait_s := backoff.next_s(unreachable=unreachable)) is not None:
        found.append(wait_s)
    return found


def test_waits_double_up_to_the_most_and_end_after_the_last_try() -> None:
    found = waits(Backoff(policy(1.0), RetryBudget(100)))
    assert found == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0]


def test_the_jitter_is_full() -> None:
    assert waits(Backoff(policy(0.0), RetryBudget(100))) == [0.0] * 9
    assert waits(Backoff(policy(0.5), RetryBudget(100)))[:2] == [0.1, 0.2]


def test_a_host_that_never_answered_is_tried_less_often() -> None:
    assert len(waits(Backoff(policy(1.0), RetryBudget(100)), unreachable=True)) == 2


def test_other_failures_do_not_take_the_tries_that_a_timeout_has() -> None:
    backoff = Backoff(policy(0.0), RetryBudget(100))
    assert [backoff.next_s(unreachable=unreachable) for unreachable in (False, False, False, True, False, True)] == [
        0.0
    ] * 6
    assert backoff.next_s(unreachable=True) is None


def test_progress_gives_all_tries_back() -> None:
    backoff = Backoff(policy(1.0), RetryBudget(100))
    waits(backoff)
    backoff.renew()
    assert backoff.next_s(unreachable=False) == 0.2


def test_all_requests_share_a_budget_that_success_fills_again() -> None:
    budget = RetryBudget(12)
    first, second = (Backoff(policy(0.0), budget) for _ in range(2))
    assert len(waits(first)) == 9
    assert len(waits(second)) == 3
    for _ in range(11):  # a tenth each
        budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_a_budget_does_not_grow_beyond_its_size() -> None:
    budget = RetryBudget(1)
    for _ in range(100):
        budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_a_user_s_retries_are_of_whatever_cause_and_a_user_s_delay_is_the_same_each_time() -> None:
    for unreachable in (False, True):
        found = waits(Backoff(RetryPolicy().asked(150, 0.5), RetryBudget(150)), unreachable=unreachable)
        assert found == [0.5] * 150
        assert waits(Backoff(RetryPolicy().asked(0, None), RetryBudget(100)), unreachable=unreachable) == []
    assert RetryPolicy().asked(150, None).budget == 150
    assert RetryPolicy().asked(None, None) == RetryPolicy()
    assert RetryPolicy().asked(None, 0.5).tries == RetryPolicy().tries


def test_a_wait_after_thousands_of_tries_is_the_longest() -> None:
    found = waits(Backoff(replace(policy(1.0), tries=2000), RetryBudget(2000)))
    assert (len(found), found[-1]) == (1999, 20.0)


def test_a_refusal_that_says_when_spreads_the_next_try_and_doubles_with_each() -> None:
    backoff = Backoff(policy(1.0), RetryBudget(100))
    assert [backoff.limited_s(0) for _ in range(4)] == [6.0, 12.0, 20.0, 20.0]
    backoff.renew()
    assert backoff.limited_s(0) == 6.0


def test_who_was_answered_in_between_waits_less_and_keeps_the_budget() -> None:
    budget = RetryBudget(1)
    assert Backoff(policy(1.0), budget).limited_s(3) == 1.5
    assert budget.spend()
    assert Backoff(policy(1.0), budget).limited_s(3) == 1.5
    assert Backoff(policy(1.0), budget).limited_s(0) is None


def test_refusals_that_say_when_cost_none_of_the_other_tries_and_have_an_end() -> None:
    backoff = Backoff(replace(policy(0.0), tries=3, limited_tries=5), RetryBudget(100))
    assert [backoff.limited_s(1) for _ in range(4)] == [0.0] * 4
    assert [backoff.next_s(unreachable=False) for _ in range(3)] == [0.0, 0.0, None]
    assert backoff.limited_s(1) is None
