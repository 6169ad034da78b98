"""The benchmark of many viewers: it counts only viewers that were served."""

from __future__ import annotations

import sys

import pytest

from benchmarks.viewers import Count, Crowd, unserved

SERVED = Count(20, 100, 10.0)


def test_an_interval_with_all_viewers_counts() -> None:
    assert unserved(SERVED, Count(20, 160, 10.0), 20, 6.0) == ""
    assert unserved(SERVED, Count(20, 154, 10.0), 20, 6.0) == "", "nine tenths"


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (Count(19, 100, 9.5), Count(19, 160, 9.5), "the pages of 19 of 20 viewers were rendered"),
        (Count(), Count(), "the pages of 0 of 20 viewers were rendered"),
        (SERVED, Count(20, 153, 10.0), "the viewers received 53 of 60 refreshes"),
        (SERVED, SERVED, "the viewers received 0 of 60 refreshes"),  # the crowd has died
        (Count(20, 0, 0.0), Count(20, 0, 0.0), "the viewers received 0 of 0 refreshes"),
        (SERVED, Count(20, 120, 2.0), "the viewers received 20 of 60 refreshes"),  # the server lengthened the interval
    ],
)
def test_an_interval_without_some_viewers_does_not(before: Count, after: Count, reason: str) -> None:
    assert unserved(before, after, 20, 6.0) == reason


def test_a_crowd_is_read_while_it_runs_and_at_its_end() -> None:
    script = "print('count 2 5 1.5'); print('count 3 9 2.0'); print('results 7000 9 0.5')"
    crowd = Crowd([sys.executable, "-c", script])
    assert crowd.wait() == ["7000", "9", "0.5"]
    assert crowd.count == Count(3, 9, 2.0)
    assert Crowd([sys.executable, "-c", "raise SystemExit(1)"]).wait() == []
