"""The policy of retries, suspects, poison, backoff and quarantine, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fleet.attempts import Backlog, ShardAttempt, StartPolicy, backoff_seconds
from pipeline.run.progress import Progress
from pipeline.sources import Shard


def shards(count: int) -> Iterator[Shard]:
    for number in range(count):
        yield Shard(id=f"s{number}", kind="files", keys=("a",), uris=("a",), sizes=(1,), etags=("",), num_images=1)


def died_at(attempt: ShardAttempt, image: int | None, full: bool = False) -> int | None:
    attempt.progress = Progress(in_progress=image, full=full)
    return attempt.blame_image()


def test_shards_are_taken_in_order_and_then_the_backlog_is_empty() -> None:
    backlog = Backlog(shards(3), max_attempts=6)
    taken = []
    while backlog.has_first_attempts:
        taken.append(backlog.take_first_attempt().shard.id)
    assert taken == ["s0", "s1", "s2"]
    assert backlog.empty


def test_a_failed_shard_is_retried_isolated_and_after_a_delay() -> None:
    backlog = Backlog(shards(1), max_attempts=3)
    attempt = backlog.take_first_attempt()
    assert not attempt.isolated
    assert backlog.add_failure(attempt, now=100.0)
    assert attempt.isolated
    assert not backlog.empty
    assert backlog.take_retry(now=100.0) is None
    assert backlog.take_retry(now=101.0) is attempt
    assert backlog.empty


def test_retries_that_are_due_do_not_wait_for_others() -> None:
    backlog = Backlog(shards(2), max_attempts=9)
    late, early = backlog.take_first_attempt(), backlog.take_first_attempt()
    late.failures = 7  # one minute of backoff
    backlog.add_failure(late, now=0.0)
    backlog.add_failure(early, now=0.0)
    assert backlog.take_retry(now=2.0) is early
    assert backlog.take_retry(now=2.0) is None
    assert backlog.take_retry(now=61.0) is late


def test_a_shard_is_quarantined_at_the_last_attempt() -> None:
    backlog = Backlog(shards(1), max_attempts=3)
    attempt = backlog.take_first_attempt()
    assert [backlog.add_failure(attempt, 0.0) for _ in range(2)] == [True, True]
    backlog.retries.clear()
    assert backlog.add_failure(attempt, 0.0) is False
    assert backlog.empty, "a quarantined shard is not retried"


def test_one_death_blames_no_image_and_two_deaths_do() -> None:
    attempt = ShardAttempt(next(shards(1)))
    assert died_at(attempt, 4) is None
    assert attempt.poison == set()
    assert died_at(attempt, 4) == 4
    assert attempt.poison == {4}


def test_deaths_at_different_images_blame_neither() -> None:
    attempt = ShardAttempt(next(shards(1)))
    assert [died_at(attempt, image) for image in (1, 2, 3)] == [None, None, None]
    assert attempt.poison == set()


def test_a_process_that_was_full_or_between_images_blames_no_image() -> None:
    attempt = ShardAttempt(next(shards(1)))
    assert [died_at(attempt, 4, full=True) for _ in range(3)] == [None, None, None]
    assert [died_at(attempt, None) for _ in range(3)] == [None, None, None]


def test_a_new_poison_image_starts_the_count_of_failures_again() -> None:
    """A shard with several poison images is finished, however low the limit of attempts."""
    backlog = Backlog(shards(1), max_attempts=3)
    attempt = backlog.take_first_attempt()
    for image in range(5):
        for _ in range(2):
            died_at(attempt, image)
            assert backlog.add_failure(attempt, 0.0)
            backlog.retries.clear()
    assert attempt.poison == set(range(5))


def test_workers_are_given_up_after_three_failed_starts_each_while_none_runs() -> None:
    policy = StartPolicy()
    assert [policy.on_failure(0.0, any_running=False, wanted_workers=2) for _ in range(6)] == [False] * 5 + [True]


def test_failed_starts_beside_a_running_worker_never_end_the_job() -> None:
    policy = StartPolicy()
    assert not any(policy.on_failure(0.0, any_running=True, wanted_workers=1) for _ in range(20))


def test_a_started_worker_resets_the_count_and_a_failed_start_delays_the_next() -> None:
    policy = StartPolicy()
    for _ in range(2):
        policy.on_failure(10.0, any_running=False, wanted_workers=1)
    assert policy.not_before > 10.0
    policy.on_success()
    assert not policy.on_failure(10.0, any_running=False, wanted_workers=1)


@given(st.integers(1, 10_000))
def test_backoff_doubles_up_to_a_minute(failures: int) -> None:
    delay = backoff_seconds(failures)
    exact = min(60.0, 0.5 * 2 ** min(failures, 16))
    assert 0.5 * exact <= delay <= exact


@pytest.mark.parametrize(("failures", "limit"), [(1, 1.0), (3, 4.0), (7, 60.0)])
def test_backoff_by_hand(failures: int, limit: float) -> None:
    assert 0.5 * limit <= backoff_seconds(failures) <= limit
